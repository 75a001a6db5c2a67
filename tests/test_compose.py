"""Scenes composed of cut-outs: what is written is exactly what is seen, and nothing leaks."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

import mobilenet
from mobilenet.compose import compose
from mobilenet.compose import verb as compose_verb
from mobilenet.compose.cutouts import find_cutouts
from mobilenet.compose.figures import FACE_POINTS, PERSON_POINTS, face, person
from mobilenet.compose.paste import Look, paste_scene, seen_points
from mobilenet.errors import DataError, UsageError
from mobilenet.scenes import open_scenes
from mobilenet.scenes.segments import extent, paint

DOCS = Path(__file__).parent.parent / "docs"
RED, BLUE = (230, 20, 20), (20, 20, 230)


def cut_out(path: Path, index: int, *, shape: str = "ellipse") -> Path:
    """A shape whose proportions and colours are its own, a red dot on its left, a blue on its
    right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGBA", (120, 90))
    draw = ImageDraw.Draw(image)
    fill = (40 + 20 * index, 200 - 20 * index, 90)
    getattr(draw, shape)((10, 5 + 4 * index, 110, 85), fill=(*fill, 255))
    for x, colour in ((35, RED), (85, BLUE)):
        draw.ellipse((x - 9, 41, x + 9, 59), fill=(*colour, 255))
    image.save(path)
    return path


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    root = tmp_path / "cutouts"
    for index in range(6):
        cut_out(root / f"round/small/{index}.png", index)
        cut_out(root / f"square/{index}.png", index, shape="rectangle")
    points = {
        f"round/small/{index}.png": {"left_dot": [35, 50], "right_dot": [85, 50]}
        for index in range(6)
    }
    (root / "landmarks.json").write_text(json.dumps(points))
    return root


@pytest.fixture
def backgrounds(tmp_path: Path) -> Path:
    folder = tmp_path / "backgrounds"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for index in range(6):
        noise = Image.fromarray(rng.integers(90, 160, (6, 8, 3), np.uint8))
        noise.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{index}.png")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_scenes_are_written_as_they_are_seen(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    made = mobilenet.compose(
        cutouts, out=tmp_path / "out", backgrounds=backgrounds, pictures=20, size=128
    )
    assert made.classes == ("round", "square")
    assert made.pictures == {"train": 20, "val": 4, "test": 4}
    assert made.cutouts["round"] == {"train": 4, "val": 1, "test": 1}
    assert made.backgrounds == {"train": 4, "val": 1, "test": 1}
    data = open_scenes(made.path)
    assert (data.kind, data.classes) == ("coco", made.classes)
    assert (data.keypoints, data.flipped) == (("left_dot", "right_dot"), (1, 0))
    assert data.notes == ()
    for split, scenes in data.splits.items():
        assert len(scenes) == made.pictures[split]
        assert sum(len(scene.boxes) for scene in scenes) == made.objects[split]
        for scene in scenes:
            assert scene.pixels().shape == (128, 128, 3)
            drawn = np.zeros((128, 128), np.uint8)
            assert scene.segments is not None
            for index, segment in enumerate(scene.segments):
                assert segment is not None
                mask = paint(segment, 128, 128)
                assert not drawn[mask].any()  # what is seen belongs to one object
                drawn[mask] = scene.labels[index] + 1
                assert extent(mask) == tuple(scene.boxes[index])
                assert mask.sum() == scene.areas[index]
            np.testing.assert_array_equal(drawn, scene.semantic())
    assert not list(tmp_path.glob(".*"))


def test_points_are_where_the_cut_out_has_them(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    out = compose(
        cutouts, out=tmp_path / "out", backgrounds=backgrounds, pictures=30, size=256
    ).path
    seen = {1: 0, 2: 0}
    for scene in open_scenes(out, task="keypoints").splits["train"]:
        pixels = scene.pixels().astype(int)
        assert scene.keypoints is not None
        for label, box, points in zip(scene.labels, scene.boxes, scene.keypoints, strict=True):
            if label != 0:
                assert not points.any()
                continue
            for x, y, visibility in points:
                seen[int(visibility)] += 1
                if visibility == 2:
                    assert box[0] <= x <= box[2]
                    assert box[1] <= y <= box[3]
                    if box[2] - box[0] > 40:  # mirrored, a left dot is the blue one
                        red, _, blue = pixels[int(y), int(x)]
                        assert abs(red - blue) > 60
        turned = scene.keypoints[scene.labels == 0]
        both = turned[(turned[..., 2] == 2).all(1)]
        for left, right in both:
            # in the scene as in the cut-out, the left dot is left of the right one
            assert left[0] < right[0]
    assert min(seen.values()) > 0


def test_equal_arguments_write_equal_bytes(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    def make(name: str, seed: int) -> dict[str, str]:
        made = compose(
            cutouts,
            out=tmp_path / name,
            backgrounds=backgrounds,
            pictures=4,
            size=96,
            figures=3,
            faces=3,
            seed=seed,
        )
        return digests(made.path)

    first = make("a", 1)
    assert first == make("b", 1)
    assert {"classes.txt", "compose.json", "annotations/instances_val.json"} <= set(first)
    other = make("c", 2)
    assert not {first[name] for name in first if name.endswith(".jpg")} & set(other.values())


def test_nothing_is_in_two_splits(cutouts: Path, backgrounds: Path, tmp_path: Path) -> None:
    # copies of one object: another name, mirrored, smaller
    one = Image.open(cutouts / "square/2.png")
    shutil.copy(cutouts / "square/2.png", cutouts / "square/copy.png")
    one.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(cutouts / "square/mirrored.png")
    one.resize((60, 45)).save(cutouts / "square/smaller.png")
    for seed in range(5):
        out = tmp_path / str(seed)
        made = compose(
            cutouts, out=out, backgrounds=backgrounds, pictures=1, size=64, held_out=0.3, seed=seed
        )
        facts = json.loads((out / "compose.json").read_text())
        for kind in ("cutouts_of", "backgrounds_of"):
            parts = [set(part) for part in facts[kind].values()]
            assert len(set.union(*parts)) == sum(len(part) for part in parts)
        copies = {f"square/{name}.png" for name in ("2", "copy", "mirrored", "smaller")}
        assert [copies <= set(part) for part in facts["cutouts_of"].values()].count(True) == 1
        assert made.cutouts["square"] == {"train": 2, "val": 2, "test": 2}


def test_what_is_pasted_is_seen(cutouts: Path) -> None:
    shelf = find_cutouts(cutouts, (), (), skip_bad=False)
    background = np.full((200, 200, 3), 128, np.uint8)
    look = Look(colour=0.0, soft=0.0, scale=(0.3, 0.5))
    for seed in range(10):
        rng = np.random.default_rng(seed)
        chosen = [shelf.cutouts[at] for at in rng.integers(len(shelf.cutouts), size=9)]
        picture, pasted = paste_scene(background, chosen, [(1, 0), ()], look, rng)
        changed = (picture != 128).any(-1)
        owned = np.zeros((200, 200), bool)
        for one in pasted:
            assert not (owned & one.mask).any()
            assert one.mask.sum() >= 64
            owned |= one.mask
        assert changed[owned].mean() > 0.99
        # what is changed and belongs to none is an edge of less than half an alpha
        near = np.asarray(Image.fromarray(owned).convert("L").filter(ImageFilter.MaxFilter(5))) > 0
        assert not (changed & ~near).any()


def test_points_that_are_not_seen() -> None:
    owners = np.full((4, 5), -1, np.int16)
    owners[:, 1:] = 0
    owners[2, 3] = 1
    points = np.array([[1.5, 0.5, 2], [3.2, 2.9, 2], [-0.1, 2, 2], [5, 2, 2], [1, 1, 1], [9, 9, 0]])
    expected = [[1.5, 0.5, 2], [3.2, 2.9, 1], [0, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    np.testing.assert_array_equal(seen_points(points, owners, 0), expected)


def test_drawn_people_and_faces_have_their_points() -> None:
    hidden = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, points = person(seed, 0, 0).draw(rng)
        found = dict(zip(PERSON_POINTS, points, strict=True))
        pixels = np.asarray(image)
        assert points.shape == (17, 3)
        for name, (x, y, visibility) in found.items():
            hidden += visibility == 1
            assert visibility in (1, 2)
            assert pixels[int(y), int(x), 3] > 128, name  # on the figure, hidden or not
        assert found["left_hip"][0] > found["right_hip"][0]  # from the front
        for name in ("left_eye", "right_eye"):
            x, y, visibility = found[name]
            if visibility == 2:
                assert pixels[int(y), int(x), :3].max() < 110
        image, points = face(seed, 0, 0).draw(rng)
        pixels = np.asarray(image)
        found = dict(zip(FACE_POINTS, points, strict=True))
        for name in ("left_eye", "right_eye"):
            x, y, visibility = found[name]
            assert visibility == 2
            assert pixels[int(y), int(x), :3].max() < 80  # the pupil
        assert found["left_eye"][0] > found["nose"][0] > found["right_eye"][0]
        hidden += int((points[:, 2] == 1).sum())
    assert hidden > 20
    again = [person(1, 0, 0).draw(np.random.default_rng(pose))[0] for pose in (1, 1, 2)]
    assert again[0].tobytes() == again[1].tobytes() != again[2].tobytes()


def test_figures_and_faces_are_classes_with_skeletons(backgrounds: Path, tmp_path: Path) -> None:
    made = compose(
        out=tmp_path / "o", backgrounds=backgrounds, pictures=6, size=128, figures=5, faces=5
    )
    assert made.classes == ("person", "face")
    data = open_scenes(made.path, task="keypoints")
    assert data.keypoints == (*PERSON_POINTS, "mouth")
    assert [data.keypoints[at] for at in data.flipped[:3]] == ["nose", "right_eye", "left_eye"]
    names = [{data.keypoints[start], data.keypoints[end]} for start, end in data.skeleton]
    assert {"left_ankle", "left_knee"} in names
    assert len(names) == 19


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_pycocotools_reads_the_annotations(
    cutouts: Path, backgrounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    out = compose(cutouts, out=tmp_path / "out", backgrounds=backgrounds, pictures=4, size=96).path
    oracle = coco.COCO(str(out / "annotations/instances_train.json"))
    for key, record in oracle.imgs.items():
        mask = np.asarray(Image.open(out / f"masks/train/{Path(record['file_name']).stem}.png"))
        drawn = np.zeros_like(mask)
        for annotation in oracle.loadAnns(oracle.getAnnIds(imgIds=key)):
            drawn[oracle.annToMask(annotation) > 0] = annotation["category_id"]
        np.testing.assert_array_equal(drawn, mask)


def test_classes_are_chosen_and_put_together(cutouts: Path) -> None:
    for index in range(4):
        cut_out(cutouts / f"other/{index}.png", index + 6, shape="rectangle")
    shelf = find_cutouts(cutouts, ["shape=round,square", "other"], (), skip_bad=False)
    assert shelf.classes == ("shape", "other")
    assert [len([c for c in shelf.cutouts if c.label == at]) for at in (0, 1)] == [12, 4]
    assert shelf.points == (("left_dot", "right_dot"), ())
    with pytest.raises(DataError, match="no cut-outs for class round"):
        find_cutouts(cutouts, ["round"], ["small"], skip_bad=False)
    with pytest.raises(DataError, match=r"class 'oval': .*oval: no such folder"):
        find_cutouts(cutouts, ["oval"], (), skip_bad=False)
    with pytest.raises(DataError, match="class 'round': there twice"):
        find_cutouts(cutouts, ["round", "round=square"], (), skip_bad=False)


def test_a_picture_of_two_classes_is_refused(cutouts: Path) -> None:
    with pytest.raises(DataError, match=r"square/0\.png of class shape and square/0\.png of class"):
        find_cutouts(cutouts, ["shape=round,square", "square"], (), skip_bad=False)
    (cutouts / "square/copy.png").write_bytes((cutouts / "round/small/2.png").read_bytes())
    with pytest.raises(DataError, match=r"2\.png of class round and square/copy\.png of class sq"):
        find_cutouts(cutouts, (), (), skip_bad=False)


def test_copies_of_a_background_stay_together(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    for path in sorted(backgrounds.iterdir()):
        (backgrounds / f"copy {path.name}").write_bytes(path.read_bytes())
    made = compose(cutouts, out=tmp_path / "out", backgrounds=backgrounds, pictures=1, size=64)
    assert sum(made.backgrounds.values()) == 12
    facts = json.loads((made.path / "compose.json").read_text())
    parts = [{name[-5:] for name in names} for names in facts["backgrounds_of"].values()]
    assert [len(part) for part in parts] == [count // 2 for count in made.backgrounds.values()]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 6
    for path in sorted(backgrounds.iterdir())[2:]:
        path.write_bytes((backgrounds / "0.png").read_bytes())
    with pytest.raises(DataError, match="backgrounds that differ; expected 3 or more"):
        compose(cutouts, out=tmp_path / "two", backgrounds=backgrounds)


def test_landmarks_in_a_table_are_the_same(cutouts: Path) -> None:
    before = find_cutouts(cutouts, (), (), skip_bad=False)
    given = json.loads((cutouts / "landmarks.json").read_text())
    (cutouts / "landmarks.json").unlink()
    rows = [f"{path},{name},{x},{y}" for path, at in given.items() for name, (x, y) in at.items()]
    (cutouts / "landmarks.csv").write_text("path,point,x,y\n" + "\n".join(rows) + "\n")
    after = find_cutouts(cutouts, (), (), skip_bad=False)
    assert before.points == after.points
    rng = np.random.default_rng(0)
    for one, other in zip(before.cutouts, after.cutouts, strict=True):
        np.testing.assert_array_equal(one.draw(rng)[1], other.draw(rng)[1])


def test_cut_outs_that_cannot_be_used_are_named(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20)).save(cutouts / "square/opaque.png")
    Image.new("RGBA", (20, 20), (9, 9, 9, 255)).save(cutouts / "square/solid.png")
    Image.new("RGBA", (20, 20)).save(cutouts / "square/clear.png")
    (cutouts / "square/text.png").write_text("not a picture")
    with pytest.raises(DataError, match="4 defects") as caught:
        compose(cutouts, out=tmp_path / "out", backgrounds=backgrounds)
    for reason in ("without alpha", "opaque everywhere", "transparent everywhere", "a text"):
        assert reason in str(caught.value)
    made = compose(
        cutouts, out=tmp_path / "out", backgrounds=backgrounds, pictures=1, size=64, skip_bad=True
    )
    assert made.cutouts["square"] == {"train": 4, "val": 1, "test": 1}
    assert "left out for 4 defects" in made.notes[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a.png": [1]}', 'expected {"faces/a.png"'),
        ('{"round/small/0.png": {"eye": [1]}}', "round/small/0.png eye: expected x, y"),
        ('{"round/small/0.png": {"eye": [1, 2, 0]}}', "1 (hidden) or 2 (visible)"),
        ('{"gone.png": {"eye": [1, 2]}}', "landmarks of 'gone.png', but there is no such cut-out"),
        ("{\n", "line 2: not JSON"),
    ],
)
def test_broken_landmarks_are_refused(cutouts: Path, content: str, reason: str) -> None:
    (cutouts / "landmarks.json").write_text(content)
    with pytest.raises(DataError, match=re.escape(reason)):
        find_cutouts(cutouts, (), (), skip_bad=False)


def test_options_that_cannot_work_are_refused(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="nothing to paste"):
        compose(out=out)
    for options, reason in (
        ({"pictures": 0}, "pictures 0"),
        ({"size": 10}, "size 10"),
        ({"objects": (3, 2)}, "objects"),
        ({"held_out": 0.0}, "held_out 0.0"),
        ({"figures": 2}, "figures 2"),
    ):
        with pytest.raises(UsageError, match=re.escape(reason)):
            compose(cutouts, out=out, **options)
    for index in range(2, 6):
        (cutouts / f"square/{index}.png").unlink()
    with pytest.raises(DataError, match="class square: 2 objects that differ; expected 3"):
        compose(cutouts, out=out, backgrounds=backgrounds)
    with pytest.raises(DataError, match="no such folder of backgrounds"):
        compose(cutouts, out=out, backgrounds=tmp_path / "no")
    with pytest.raises(UsageError, match="is there already"):
        compose(cutouts, out=backgrounds)
    assert not out.exists()


def test_an_interrupted_composition_leaves_nothing(
    cutouts: Path, backgrounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compose_verb, "_write_facts", stop)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        compose(cutouts, out=tmp_path / "out", backgrounds=backgrounds, pictures=2, size=64)
    assert sorted(tmp_path.iterdir()) == before


def test_the_shipped_photographs_are_found(cutouts: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    made = compose(cutouts, out=tmp_path / "out", pictures=2, size=96)
    assert min(made.backgrounds.values()) >= 2


# The page


def test_the_page_runs_as_it_is_written(
    cutouts: Path, backgrounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compose(cutouts, out=tmp_path / "scenes", backgrounds=backgrounds, pictures=4, size=96)
    backgrounds.rename(tmp_path / "photographs")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "scenes.md").read_text(), re.S)
    assert len(blocks) == 4
    scope: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "scenes.md", "exec"), scope)
    assert open_scenes("composed").classes == ("round", "square")
    with Image.open("shown.png") as shown:
        assert shown.size == (96, 96)

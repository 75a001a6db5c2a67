"""Detectors of faces through the verbs: tiny faces learned, measured, asked, refused."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import mobilenet
from mobilenet import CheckpointError, DataError, Overrides, UsageError
from mobilenet.checkpoint import read_model_json, write_model_json
from mobilenet.evaluate.scene_model import open_scene_model
from mobilenet.evaluate.scenes import SceneEvaluation
from mobilenet.faces import FACES, SIX_FLIPPED, SIX_LANDMARKS, Faces, create_faces
from mobilenet.networks import name_of, network_program, read_network, read_rules
from mobilenet.predict import Predictions
from mobilenet.scenes import SceneData, open_scenes
from mobilenet.scenes.augment import mirror, square_crop
from mobilenet.scenes.sample import Sample, sample_of
from mobilenet.tasks import SCENE_TASKS, Example

SIDE = 64
TASK = SCENE_TASKS["faces"]
# of a face's width and height: where each landmark is, and its colour
PLACES = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.5, 0.85), (0.06, 0.5), (0.94, 0.5))
INKS = ((250, 40, 40), (40, 40, 250), (40, 230, 40), (150, 20, 90), (250, 250, 40), (40, 240, 240))


def drawn(rng: np.random.Generator) -> tuple[Image.Image, list[int], list[float]]:
    """A picture, the x, y, width and height of its face, and the landmarks as COCO has them."""
    picture = Image.fromarray(rng.integers(40, 120, (SIDE, SIDE, 3), np.uint8))
    side = int(rng.integers(20, 30))
    x, y = (int(place) for place in rng.integers(2, SIDE - side - 2, 2))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((x, y, x + side, y + side), fill=(235, 200, 175))
    points: list[float] = []
    for (across, down), ink in zip(PLACES, INKS, strict=True):
        px, py = x + across * side, y + down * side
        pen.ellipse((px - 2, py - 2, px + 2, py + 2), fill=ink)
        points += [px, py, 2]
    return picture, [x, y, side, side], points


def write_faces(folder: Path, counts: dict[str, int]) -> Path:
    """COCO with a class of faces among others, as `compose` names their landmarks."""
    rng = np.random.default_rng(4)
    nose = {"id": 7, "name": "dog", "keypoints": ["nose", "tail"]}
    face = {"id": 3, "name": "face", "keypoints": list(SIX_LANDMARKS)}
    for split, count in counts.items():
        (folder / "images" / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(count):
            picture, box, points = drawn(rng)
            picture.save(folder / "images" / split / f"{index}.png")
            size = {"width": SIDE, "height": SIDE}
            images.append({"id": index, "file_name": f"{index}.png", **size})
            one = {"id": 2 * index, "image_id": index, "category_id": 3, "bbox": box}
            annotations.append({**one, "keypoints": points})
            dog = {"id": 2 * index + 1, "image_id": index, "category_id": 7}
            annotations.append({**dog, "bbox": [0, 0, 5, 5], "keypoints": [1, 1, 2, 4, 4, 2]})
        content = {"images": images, "annotations": annotations, "categories": [face, nose]}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def write_wider(folder: Path, *, landmarks: bool) -> Path:
    """WIDER FACE's own layout, or RetinaFace's with five landmarks."""
    rng = np.random.default_rng(5)
    for split in ("train", "val"):
        images = folder / (f"{split}/images" if landmarks else f"WIDER_{split}/images")
        images.mkdir(parents=True)
        lines = []
        for index in range(6):
            picture, (x, y, w, h), points = drawn(rng)
            picture.save(images / f"{index}.jpg")
            where = np.array(points).reshape(6, 3)[[0, 1, 2, 3, 4], :2]
            marks = " ".join(f"{px} {py} 0" for px, py in where)
            if landmarks:
                lines += [f"# {index}.jpg", f"{x} {y} {w} {h} {marks} 0.9"]
            else:
                lines += [f"{index}.jpg", "2", f"{x} {y} {w} {h} 0 0 0 0 0 0"]
                lines += ["1 1 9 9 0 0 0 1 0 0"]  # marked invalid
        labels = folder / ("" if landmarks else "wider_face_split")
        labels.mkdir(exist_ok=True)
        name = f"{split}/label.txt" if landmarks else f"wider_face_{split}_bbx_gt.txt"
        (labels / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_faces(tmp_path_factory.mktemp("faces") / "data", {"train": 24, "val": 8})


def train(data: Path, out: Path, model: str = "blazeface", **given: Any) -> Any:
    options: dict[str, Any] = {"size": SIDE, "weights": "none", "epochs": 1, "seed": 3}
    fixed = {"threads": 1, "workers": 0, "device": "cpu"}
    quick = Overrides(batch_size=8, lr=5e-3, ema=0.9)
    return mobilenet.train(
        str(data), out=out, model=model, overrides=quick, **{**options, **fixed, **given}
    )


def evaluate(run: Path, data: Path, **given: Any) -> SceneEvaluation:
    found = mobilenet.evaluate(str(run), str(data), threads=1, workers=0, device="cpu", **given)
    assert isinstance(found, SceneEvaluation)
    return found


@pytest.fixture(scope="module")
def run(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BlazeFace that has learned the pictures it is measured on."""
    out = tmp_path_factory.mktemp("run") / "run"
    with patch.object(TASK, "vary", lambda sample, rng, size, rules: sample):
        train(faces, out, epochs=40)
    return out


def test_faces_and_landmarks_are_learned(run: Path, faces: Path) -> None:
    found = evaluate(run, faces, split="train").scores
    assert found.primary == "AP"
    assert found.figures["AP"] is not None
    assert found.figures["AP"] > 0.8
    assert found.figures["AP_hard"] == found.figures["AP"]  # every face is at least 10 pixels high
    assert found.figures["AP_easy"] is None  # and none of them 50
    assert found.figures["landmark_error"] is not None
    assert found.figures["landmark_error"] < 0.2
    report = (run / "report.html").read_text()
    assert "landmark_error" in report
    assert "blazeface on" in report


def test_a_run_says_all_that_is_needed(run: Path) -> None:
    contract = read_model_json(run)
    assert (contract["task"], contract["labels"]) == ("faces", ["face"])
    assert contract["model"]["backbone"] is None
    assert contract["model"]["rows"][0] == {"k": 5, "c": 24, "NL": "RE", "s": 2}
    assert contract["decoding"]["names"] == list(SIX_LANDMARKS)
    assert contract["decoding"]["flipped"] == list(SIX_FLIPPED)
    spec = read_network("faces", {k: v for k, v in contract["model"].items() if k != "rows"})
    assert spec.to_dict() == {k: v for k, v in contract["model"].items() if k != "rows"}
    assert read_rules("faces", contract["decoding"]).to_dict() == contract["decoding"]
    opened = open_scene_model(run, threads=1, device="cpu")
    assert opened.spec == spec


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("model", {"landmarks": 0}, "landmarks 0: expected at least 1"),
        ("model", {"landmarks": True}, "landmarks True"),
        ("model", {"size": 100}, "expected a multiple of 16"),
        ("model", {"head": "retinaface"}, "expected a backbone"),
        ("model", {"anchors": [[16.0]]}, "anchors of 1 maps"),
        ("model", {"rows": []}, "not the rows that this version builds"),
        ("decoding", {"merge": "soft"}, "merge 'soft'"),
        ("decoding", {"threshold": True}, "threshold True"),
        ("decoding", {"flipped": [0, 0, 1, 2, 3, 4]}, "expected every position of 6 landmarks"),
        ("decoding", {"names": [1]}, "expected texts"),
        ("decoding", {"colour": 1}, "unknown fields"),
        ("labels", ["face", "hand"], "2 labels for 1 classes"),
    ],
)
def test_damaged_contracts_are_refused(
    part: str, changes: Any, message: str, run: Path, tmp_path: Path
) -> None:
    contract = read_model_json(run)
    contract[part] = {**contract[part], **changes} if isinstance(changes, dict) else changes
    with pytest.raises(CheckpointError, match=message):
        write_model_json(tmp_path, contract)
    (tmp_path / "model.json").write_text(json.dumps(contract))
    with pytest.raises(CheckpointError, match=message):
        read_model_json(tmp_path)


def test_other_landmarks_than_the_network_answers_are_refused(run: Path, tmp_path: Path) -> None:
    contract = read_model_json(run)
    contract["decoding"] |= {"names": ["eye"], "flipped": [0]}
    write_model_json(tmp_path, contract)
    with pytest.raises(CheckpointError, match="names 1 landmarks, but the network answers 6"):
        open_scene_model(tmp_path, threads=1, device="cpu")


def test_predict_names_landmarks_and_draws_them(run: Path, faces: Path, tmp_path: Path) -> None:
    scene = open_scenes(faces, task="faces").splits["train"][0]
    found = mobilenet.predict(str(run), [scene.image], save=tmp_path / "drawn")
    assert isinstance(found, Predictions)
    best = next(found.json_lines())["predictions"][0]
    assert best["label"] == "face"
    assert list(best["landmarks"]) == list(SIX_LANDMARKS)
    np.testing.assert_allclose(best["box"], scene.boxes[0], atol=5)
    assert scene.keypoints is not None
    near = np.array(list(best["landmarks"].values())) - scene.keypoints[0, :, :2]
    assert np.abs(near).max() < 5
    with Image.open(next((tmp_path / "drawn").iterdir())) as drawing:
        changed = np.abs(np.asarray(drawing, int) - scene.pixels()).max(2) > 50
    assert changed.shape == (SIDE, SIDE)
    assert changed.mean() > 0.02


def test_an_exported_file_finds_the_same_faces(run: Path, faces: Path, tmp_path: Path) -> None:
    folder = tmp_path / "onnx"
    mobilenet.export(str(run), to="onnx", out=folder)
    picture = Image.open(open_scenes(faces, task="faces").splits["val"][0].image)
    own = open_scene_model(run, threads=1, device="cpu")
    file = open_scene_model(folder, threads=1, device="cpu")
    assert file.rules == own.rules
    one, other = own.find(picture), file.find(picture)
    assert len(one.scores)
    np.testing.assert_allclose(other.boxes, one.boxes, atol=0.01)
    np.testing.assert_allclose(other.landmarks, one.landmarks, atol=0.01)
    assert TASK.agreement(one, other)[0] == TASK.agreement(one, other)[1]


# ------------------------------------------------------------------------------------------ data


def test_only_faces_are_kept_with_their_own_landmarks(faces: Path) -> None:
    found = open_scenes(faces, task="faces")
    assert found.classes == ("face",)
    assert found.keypoints == SIX_LANDMARKS
    assert found.flipped == SIX_FLIPPED
    assert "of 2 classes only face" in found.notes
    whole = open_scenes(faces, task="detect").splits["val"][0]
    assert (len(whole.boxes), len(found.splits["val"][0].boxes)) == (2, 1)
    assert found.splits["val"][0].labels.tolist() == [0]


def test_data_without_faces_is_refused(faces: Path, tmp_path: Path) -> None:
    text = (faces / "annotations" / "instances_val.json").read_text()
    for name in ("muzzle", "dog face"):
        other = tmp_path / f"{name}.json"
        content = json.loads(text.replace('"face"', f'"{name}"'))
        content["categories"].append({"id": 9, "name": "cat face"})
        other.write_text(json.dumps(content))
        (tmp_path / "images").mkdir(exist_ok=True)
        for picture in (faces / "images" / "val").iterdir():
            (tmp_path / "images" / picture.name).write_bytes(picture.read_bytes())
        if name == "muzzle":  # the one that has the word
            with pytest.raises(DataError, match="without a single box"):
                open_scenes(other, task="faces")
        else:
            with pytest.raises(DataError, match="call exactly one of them face"):
                open_scenes(other, task="faces")


def test_wider_face_without_landmarks_teaches_boxes_only(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_wider(tmp_path / "wider", landmarks=False)
    out = tmp_path / "run"
    result = train(data, out)
    assert set(result.evaluation.scores.figures) == {"AP", "AP_easy", "AP_medium", "AP_hard"}
    assert "has no backbone" not in capsys.readouterr().err
    contract = read_model_json(out)
    assert contract["model"]["landmarks"] == 6
    assert contract["decoding"]["names"] == []
    opened = open_scene_model(out, threads=1, device="cpu")
    one = Faces(
        boxes=np.array([[1, 2, 9, 9]], np.float32),
        scores=np.ones(1, np.float32),
        landmarks=np.zeros((1, 6, 2), np.float32),
    )
    (listed,) = TASK.to_json(one, opened.labels, opened.rules)["predictions"]
    assert listed == {"label": "face", "score": 1.0, "box": [1.0, 2.0, 9.0, 9.0]}
    # a network with landmarks is measured there by its boxes
    figures = evaluate(run, data).scores.figures
    assert figures["AP"] is not None
    assert figures["AP"] > 0.3
    assert figures["landmark_error"] is None


def test_five_landmarks_of_retinafaces_labels(run: Path, tmp_path: Path) -> None:
    data = write_wider(tmp_path / "wider", landmarks=True)
    out = tmp_path / "run"
    train(data, out, "retinaface_mobilenet_v1_0.25", size=96)
    contract = read_model_json(out)
    assert contract["model"]["landmarks"] == 5
    assert contract["model"]["backbone"]["width"] == 0.25
    assert contract["decoding"]["flipped"] == [1, 0, 2, 4, 3]
    opened = open_scene_model(out, threads=1, device="cpu")
    assert name_of(opened.spec) == "retinaface_mobilenet_v1_0.25"
    wide = replace(opened.spec, backbone=replace(opened.spec.backbone, width=0.5))
    assert name_of(wide) == "retinaface on mobilenet_v1"
    with pytest.raises(DataError, match=r"its keypoints are eye_left, .* trained on right_eye"):
        evaluate(run, data)


def test_blazeface_takes_neither_width_nor_weights(faces: Path, tmp_path: Path) -> None:
    for options in ({"width": 0.5}, {"weights": "file.pth"}):
        with pytest.raises(UsageError, match="blazeface has no backbone to take them"):
            train(faces, tmp_path / "run", **options)
    with pytest.raises(UsageError, match="multiple of 16"):
        train(faces, tmp_path / "run", size=100)


def test_resuming_ends_with_the_same_bytes(faces: Path, tmp_path: Path) -> None:
    whole = train(faces, tmp_path / "whole", epochs=2)
    stopped = tmp_path / "stopped"
    with (
        patch("mobilenet.train.scenes.save_model", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        train(faces, stopped, epochs=2)
    assert train(faces, stopped, epochs=2, resume=True).weights_sha256 == whole.weights_sha256


# --------------------------------------------------------------------------------------- the task


def sample(size: tuple[int, int] = (40, 30)) -> Sample:
    """Two faces, the second of a crowd, with two landmarks each."""
    width, height = size
    points = np.array([[[12, 12, 2], [18, 13, 1]], [[0, 0, 0], [31, 5, 2]]], np.float32)
    return Sample(
        picture=np.arange(width * height * 3, dtype=np.uint8).reshape(height, width, 3),
        boxes=np.array([[10, 10, 20, 20], [28, 2, 36, 8]], np.float32),
        labels=np.zeros(2, np.int64),
        crowd=np.array([False, True]),
        keypoints=points,
    )


def test_mirrored_landmarks_change_places_and_sides(faces: Path) -> None:
    own = sample_of(open_scenes(faces, task="faces").splits["train"][0])
    other = mirror(own, SIX_FLIPPED)
    assert own.keypoints is not None
    assert other.keypoints is not None
    right, left = (SIX_LANDMARKS.index(name) for name in ("right_eye", "left_eye"))
    np.testing.assert_allclose(
        other.keypoints[0, right], [SIDE - own.keypoints[0, left, 0], own.keypoints[0, left, 1], 2]
    )
    # by the ink that they were drawn with: the mirrored right eye has the left one's colour
    x, y = (int(end) for end in other.keypoints[0, right, :2])
    assert np.abs(other.picture[y, x].astype(int) - INKS[left]).max() < 60
    again = mirror(other, SIX_FLIPPED)
    np.testing.assert_allclose(again.keypoints, own.keypoints, atol=1e-4)


def test_varied_samples_keep_landmarks_on_their_ink(faces: Path) -> None:
    data = open_scenes(faces, task="faces")
    rules = TASK.rules(FACES["blazeface"], data)
    for seed in range(40):
        own = sample_of(data.splits["train"][seed % 24])
        with patch("mobilenet.tasks.faces.distort", lambda picture, rng: picture):
            varied = TASK.vary(own, np.random.default_rng(seed), SIDE, rules)
        points = varied.keypoints
        assert points is not None
        (face,) = points
        for x, y, seen in face[:2].tolist():  # the eyes, red and blue, or mirrored the other way
            if seen and 1 < x < varied.size[0] - 2 and 1 < y < varied.size[1] - 2:
                pixel = varied.picture[int(y), int(x)].astype(int)
                apart = [np.abs(pixel - ink).sum() for ink in INKS[:2]]
                assert min(apart) < 260, (seed, pixel)


def test_a_square_crop_has_the_middle_of_a_face() -> None:
    for seed in range(50):
        found = square_crop(sample(), np.random.default_rng(seed))
        width, height = found.size
        assert width == height
        assert 9 <= width <= 30
        assert (~found.crowd).sum() == 1
        assert found.boxes.min() >= 0
        assert found.boxes.max() <= width
    empty = square_crop(sample().only(np.zeros(2, bool)), np.random.default_rng(0))
    assert empty.size[0] == empty.size[1]


def test_crowds_and_the_tiny_are_ignored_and_faces_without_landmarks_learned() -> None:
    small = replace(sample(), boxes=np.array([[10, 10, 20, 10.5], [28, 2, 36, 8]], np.float32))
    target = TASK.target(FACES["blazeface"], small)
    assert target.ignored.tolist() == [True, True]
    assert TASK.target(FACES["blazeface"], sample()).ignored.tolist() == [False, True]
    assert TASK.target(FACES["blazeface"], replace(sample(), keypoints=None)).keypoints is None


def as_faces(boxes: Sequence[Sequence[float]], scores: Sequence[float], points: Any) -> Faces:
    return Faces(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        landmarks=np.array(points, np.float32),
    )


def tally_of(names: tuple[str, ...], found: Sequence[Faces]) -> Any:
    """Of pictures with a face 10 pixels high and a crowd's."""
    rules = replace(
        TASK.rules(FACES["blazeface"], _nameless()), names=names, flipped=tuple(range(len(names)))
    )
    tally = TASK.tally(FACES["blazeface"], rules, ["face"])
    for one in found:
        tally.add(Example(scene=None), sample(), one)  # pyright: ignore[reportArgumentType]
    return tally


def _nameless() -> SceneData:
    return SceneData(kind="coco", source="", classes=("face",), splits={})


def test_figures_by_hand() -> None:
    at = [[12, 12], [18, 15]]
    right = as_faces([[10, 10, 20, 20]], [0.9], [at])
    # the surest is wrong, one is the crowd's and neither, the last is right
    mixed = as_faces(
        [[0, 0, 5, 5], [28, 2, 36, 8], [10, 10, 20, 20]], [0.9, 0.8, 0.3], [at, at, at]
    )
    tally = tally_of(("left_eye", "right_eye"), [right, mixed])
    scores = tally.scores()
    # right and wrong are alike sure: 1 of 2 at recall 1/2; then 2 of 3
    assert scores.figures["AP"] == pytest.approx(2 / 3)
    assert scores.figures["AP_hard"] == scores.figures["AP"]
    assert scores.figures["AP_medium"] is None
    # the first eye is where it should be, the second 2 pixels off; the eyes are sqrt(37) apart
    assert scores.figures["landmark_error"] == pytest.approx(1 / np.sqrt(37))
    assert tally.resampled(np.array([0, 0])) == 1
    assert tally.resampled(np.array([1])) == pytest.approx(0.5)
    # without two eyes over the side of the box
    nose = tally_of(("nose", "mouth"), [right]).scores()
    assert nose.figures["landmark_error"] == pytest.approx(1 / 10)
    assert "landmark_error" not in tally_of((), [right]).scores().figures
    nothing = tally_of(("left_eye", "right_eye"), [as_faces([], [], np.zeros((0, 2, 2)))]).scores()
    assert (nothing.figures["AP"], nothing.figures["landmark_error"]) == (0, None)


def test_agreement_counts_sure_faces_once() -> None:
    points = [[[0, 0]]] * 3
    one = as_faces([[0, 0, 10, 10], [20, 20, 30, 30], [40, 0, 50, 9]], [0.9, 0.8, 0.1], points)
    two = as_faces([[0, 0, 10, 9], [1, 0, 10, 10], [60, 60, 70, 70]], [0.9, 0.8, 0.7], points)
    assert TASK.agreement(one, two) == (1.0, 4.0)
    assert TASK.agreement(one, one) == (2.0, 2.0)


def test_answers_are_in_the_pixels_of_the_picture() -> None:
    spec = replace(FACES["blazeface"], size=SIDE)
    torch.manual_seed(0)
    network = create_faces(spec).eval()
    with torch.no_grad():
        found = {k: v.numpy() for k, v in network(torch.rand(2, 3, SIDE, SIDE)).items()}
    rules = replace(TASK.rules(spec, _nameless()), threshold=0.0, top=5)
    same = TASK.decode(spec, rules, found, [(SIDE, SIDE), (SIDE, SIDE)], SIDE)[0]
    wide = TASK.decode(spec, rules, found, [(2 * SIDE, SIDE), (SIDE, SIDE)], SIDE)[0]
    np.testing.assert_allclose(wide.boxes, same.boxes * [2, 1, 2, 1], rtol=1e-6)
    np.testing.assert_allclose(wide.landmarks, same.landmarks * [2, 1], rtol=1e-6)
    assert len(same.scores)
    assert network_program(network).outputs

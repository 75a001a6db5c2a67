"""Labelled scenes read from small files in exactly their formats, and what is refused in them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.errors import DataError, UsageError
from mobilenet.scenes import Scene, SceneData, open_scenes
from mobilenet.scenes.marks import mirrored_names
from mobilenet.scenes.segments import Runs, checked_runs, from_text, paint, runs_of, to_text
from mobilenet.scenes.wider import FLIPPED


def picture(path: Path, width: int = 40, height: int = 30, *, exif: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tags = Image.Exif()
    tags[0x0112] = exif
    Image.new("RGB", (width, height), (90, 120, 60)).save(path, exif=tags)
    return path


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def only(data: SceneData, split: str = "train") -> Scene:
    (scene,) = data.splits[split]
    return scene


# Segments


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # its own
def test_segments_are_painted_and_spelled_as_pycocotools_does() -> None:
    oracle = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for trial in range(300):
        height, width = (int(side) for side in rng.integers(1, 50, 2))
        corners = rng.random((int(rng.integers(3, 10)), 2)) * [1.3 * width, 1.3 * height] - 3
        corners = np.round(2 * corners) / 2 if trial % 2 else corners
        mask = paint((corners,), height, width)
        (expected,) = oracle.frPyObjects([corners.reshape(-1).tolist()], height, width)
        np.testing.assert_array_equal(mask, oracle.decode(expected).astype(bool))
        assert to_text(runs_of(mask)) == expected["counts"].decode()
        np.testing.assert_array_equal(
            paint(from_text(to_text(runs_of(mask)), height, width), 0, 0), mask
        )


def test_a_square_and_its_runs() -> None:
    square = np.array([[1, 1], [3, 1], [3, 4], [1, 4]])
    expected = np.zeros((5, 4), bool)
    expected[1:4, 1:3] = True
    np.testing.assert_array_equal(paint((square,), 5, 4), expected)
    assert runs_of(expected).counts.tolist() == [6, 3, 2, 3, 6]
    assert runs_of(~expected).counts.tolist() == [0, 6, 3, 2, 3, 6]
    assert runs_of(np.zeros((2, 2), bool)).counts.tolist() == [4]
    assert runs_of(np.ones((2, 2), bool)).counts.tolist() == [0, 4]
    text = "".join(chr(48 + count) for count in (6, 3, 2, 0, 4))  # 3 - 3, 6 - 2
    assert to_text(Runs(5, 4, np.array([6, 3, 2, 3, 6]))) == text


@pytest.mark.parametrize("text", ["o", "6\t", "63"])
def test_broken_runs_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="runs"):
        from_text(text, 5, 4)
    with pytest.raises(ValueError, match="runs of 9 pixels in a picture of 4 x 5 = 20"):
        checked_runs([4, 5], 5, 4)


# COCO


def coco(**changes) -> dict:
    content = {
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 40, "height": 30},
            {"id": 9, "file_name": "b.jpg", "width": 40, "height": 30},
        ],
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 18,
                "bbox": [10, 5, 8, 6],
                "area": 40.5,
                "iscrowd": 0,
                "segmentation": [[10, 5, 18, 5, 18, 11, 10, 11]],
            },
            {
                "id": 2,
                "image_id": 7,
                "category_id": 3,
                "bbox": [30, 20, 20, 5],
                "iscrowd": 1,
                "segmentation": {"size": [30, 40], "counts": [920, 5, 275]},
            },
        ],
    }
    return {**content, **changes}


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """COCO's own layout: annotations/instances_*2017.json beside the folders of pictures."""
    for split in ("train2017", "val2017"):
        save(tmp_path / f"annotations/instances_{split}.json", coco())
        save(tmp_path / f"annotations/captions_{split}.json", {})
        for name in ("a.jpg", "b.jpg"):
            picture(tmp_path / split / name)
    return tmp_path


def test_coco(animals: Path) -> None:
    data = open_scenes(animals)
    assert (data.kind, data.classes, list(data.splits)) == (
        "coco",
        ("car", "dog"),
        ["train", "val"],
    )
    scene, empty = data.splits["train"]
    assert scene.image == animals / "train2017" / "a.jpg"
    assert (scene.width, scene.height) == (40, 30)
    np.testing.assert_array_equal(scene.boxes, [[10, 5, 18, 11], [30, 20, 40, 25]])
    assert scene.boxes.dtype == np.float32
    assert scene.labels.tolist() == [1, 0]
    assert scene.crowd.tolist() == [False, True]
    assert scene.areas.tolist() == [40.5, 50]
    assert data.notes == ("2 boxes reached beyond their pictures and were clipped",)
    assert empty.boxes.shape == (0, 4)
    assert scene.pixels().shape == (30, 40, 3)
    semantic = scene.semantic()
    expected = np.zeros((30, 40), np.uint8)
    expected[5:11, 10:18] = 2
    expected[20:25, 30] = 255
    np.testing.assert_array_equal(semantic, expected)
    assert not empty.semantic().any()


def test_coco_as_a_single_file_and_as_roboflow_writes_it(tmp_path: Path) -> None:
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "car", "supercategory": "animals"},
        {"id": 18, "name": "dog", "supercategory": "animals"},
    ]
    for split in ("train", "valid"):
        save(tmp_path / split / "_annotations.coco.json", coco(categories=categories))
        for name in ("a.jpg", "b.jpg"):
            picture(tmp_path / split / name)
    data = open_scenes(tmp_path)
    assert (data.classes, list(data.splits)) == (("car", "dog"), ["train", "val"])
    assert data.notes[0] == "category 'animals': no class but the group of all others"
    single = open_scenes(tmp_path / "train" / "_annotations.coco.json", val_fraction=0.5)
    assert {name: len(part) for name, part in single.splits.items()} == {"train": 1, "val": 1}
    assert "val: 1 of 2 pictures, held out of train" in single.notes
    again = open_scenes(tmp_path / "valid", val_fraction=0.5)
    assert again.splits["val"][0].image.name == single.splits["val"][0].image.name


def test_coco_runs_in_both_spellings_are_the_same_object(animals: Path) -> None:
    mask = np.zeros((30, 40), bool)
    mask[3:9, 4:20] = True
    plain = {"size": [30, 40], "counts": runs_of(mask).counts.tolist()}
    packed = {"size": [30, 40], "counts": to_text(runs_of(mask))}
    for spelled in (plain, packed):
        record = {**coco()["annotations"][0], "segmentation": spelled}
        save(animals / "annotations/instances_train2017.json", coco(annotations=[record]))
        scene = open_scenes(animals).splits["train"][0]
        np.testing.assert_array_equal(scene.semantic() == 2, mask)
    del record["bbox"]  # then the box is the segment's
    save(animals / "annotations/instances_train2017.json", coco(annotations=[record]))
    np.testing.assert_array_equal(open_scenes(animals).splits["train"][0].boxes, [[4, 3, 20, 9]])


def test_masks_beside_coco_are_checked_before_training(animals: Path) -> None:
    images = [
        {"id": 7, "file_name": "p/a.png", "width": 40, "height": 30},
        {"id": 9, "file_name": "q/a.png", "width": 40, "height": 30},
    ]
    values = {"p": 1, "q": 2}
    for folder, value in values.items():
        picture(animals / "train2017" / folder / "a.png")
        mask = animals / "masks/train" / folder / "a.png"
        mask.parent.mkdir(parents=True)
        Image.fromarray(np.full((30, 40), value, np.uint8)).save(mask)
    save(animals / "annotations/instances_train2017.json", coco(images=images))
    scenes = open_scenes(animals, task="segment").splits["train"]
    assert [scene.semantic().max() for scene in scenes] == [1, 2]  # not each other's
    Image.fromarray(np.full((30, 40), 9, np.uint8)).save(animals / "masks/train/p/a.png")
    with pytest.raises(DataError, match=r"1 defects(.|\n)*p/a\.png: the values \[9\], but 0 is"):
        open_scenes(animals, task="segment")
    (kept,) = open_scenes(animals, task="segment", skip_bad=True).splits["train"]
    assert kept.semantic().max() == 2
    assert len(open_scenes(animals).splits["train"]) == 2


def test_coco_keypoints(tmp_path: Path) -> None:
    points = {"keypoints": ["nose", "left_eye", "right_eye"], "skeleton": [[1, 2], [1, 3]]}
    record = {**coco()["annotations"][0], "keypoints": [11, 6, 2, 12, 7, 1, 0, 0, 0]}
    content = coco(categories=[{"id": 18, "name": "dog", **points}], annotations=[record])
    save(tmp_path / "annotations/person_keypoints_val2017.json", content)
    save(tmp_path / "annotations/instances_val2017.json", coco(annotations=[]))
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / "val2017" / name)
    data = open_scenes(tmp_path, task="keypoints")
    assert data.keypoints == ("nose", "left_eye", "right_eye")
    assert (data.skeleton, data.flipped) == (((0, 1), (0, 2)), (0, 2, 1))
    found = data.splits["val"][0].keypoints
    assert found is not None
    np.testing.assert_array_equal(found, [[[11, 6, 2], [12, 7, 1], [0, 0, 0]]])
    with pytest.raises(DataError, match="without a single box"):
        open_scenes(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [10, 5, 0, 6]}, "is 0 x 6 pixels; label it anew or remove it"),
        ({"bbox": [10, 5, -3, 6]}, "is -3 x 6 pixels"),
        ({"bbox": [50, 5, 8, 6]}, "lies outside its picture of 40 x 30"),
        ({"bbox": [10, 5, 8]}, "expected [x, y, width, height] in pixels"),
        ({"bbox": [10, 5, float("nan"), 6]}, "is not made of numbers"),
        ({"category_id": 4}, "category_id 4 is not among the categories [3, 18]"),
        ({"image_id": 8}, "image_id 8 (1 objects) is not among the images"),
        ({"category_id": [3]}, "category_id [3] is not among the categories [3, 18]"),
        ({"image_id": None}, "no object with an image_id"),
        ({"iscrowd": 2}, "iscrowd 2: expected 0 or 1"),
        ({"area": float("nan")}, "area nan: expected square pixels"),
        ({"area": 1e39}, "area 1e+39: expected square pixels"),
        ({"segmentation": [[0, 0, 1e9, 0, 1e9, 9]]}, "further outside its picture of 40 x 30"),
        ({"segmentation": [[1, 2, 3, 4]]}, "three corners or more"),
        ({"segmentation": {"size": [40, 30], "counts": [1200]}}, "expected [height, width]"),
        ({"segmentation": {"size": [30, 40], "counts": [3, 4]}}, "runs of 7 pixels in a picture"),
    ],
)
def test_a_defect_in_coco_is_named_and_can_be_left_out(
    animals: Path, change: dict, reason: str
) -> None:
    annotations = coco()["annotations"]
    annotations[0] = {**annotations[0], **change}
    path = save(animals / "annotations/instances_train2017.json", coco(annotations=annotations))
    with pytest.raises(DataError) as caught:
        open_scenes(animals)
    assert "1 defects; mend them, or leave out what they are in with skip_bad" in str(caught.value)
    assert f"{path}, annotations[0]" in str(caught.value)
    assert reason in str(caught.value)
    data = open_scenes(animals, skip_bad=True)
    assert data.splits["train"][0].labels.tolist() == [0]
    assert any(reason in note for note in data.notes)


def test_defects_of_pictures_are_listed_ten_at_a_time(animals: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(10, 24)]
    save(animals / "annotations/instances_val2017.json", coco(images=[*coco()["images"], *images]))
    picture(animals / "val2017" / "b.jpg", 20, 30)
    with pytest.raises(DataError) as caught:
        open_scenes(animals)
    text = str(caught.value)
    assert "15 defects" in text
    assert "images[1]: says 40 x 30 pixels" in text
    assert "no such picture in" in text
    assert text.endswith("and 5 more")
    assert text.count("\n") == 11
    assert len(open_scenes(animals, skip_bad=True).splits["val"]) == 1


def test_pictures_that_exif_turns(animals: Path) -> None:
    picture(animals / "train2017" / "a.jpg", 30, 40, exif=6)  # shown as 40 x 30, as it is labelled
    assert len(open_scenes(animals).splits["train"]) == 2
    picture(animals / "train2017" / "a.jpg", 40, 30, exif=6)
    with pytest.raises(DataError, match="labelled unturned: remove its orientation"):
        open_scenes(animals)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"images": [],\n "annotations"', "line 2: not JSON"),
        ({"images": [], "annotations": []}, "no list 'categories'"),
        (coco(categories=[]), "categories: empty"),
        (
            coco(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]),
            "the id 1 is there twice",
        ),
        (coco(categories=[{"id": "1", "name": "a"}]), "expected a whole number as id"),
        (
            coco(categories=[{"id": 1, "name": "a", "keypoints": ["x"], "skeleton": [[1, 2]]}]),
            "categories[0]: skeleton: expected a list of pairs of 1 to 1",
        ),
        (coco(categories=[{"id": 1}]), "categories[0]: no record with id and name"),
    ],
)
def test_a_file_that_is_no_coco_is_refused(tmp_path: Path, content: object, reason: str) -> None:
    path = save(tmp_path / "labels.json", content)
    with pytest.raises(DataError, match=re.escape(reason)):
        open_scenes(path)


# Pascal VOC


def voc_xml(objects: str, width: int = 40, height: int = 30) -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotation><folder>VOC2012</folder>'
        f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        f"<segmented>1</segmented>{objects}</annotation>"
    )


def voc_object(name: str, box: tuple[object, ...], difficult: int = 0) -> str:
    ends = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inner = "".join(f"<{end}>{value}</{end}>" for end, value in ends)
    return (
        f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
        f"<difficult>{difficult}</difficult><bndbox>{inner}</bndbox></object>"
    )


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_01", "2007_02", "2007_03"):
        picture(root / f"JPEGImages/{name}.jpg")
    objects = voc_object("dog", (1, 1, 10, 20)) + voc_object("person", (5.5, 6, 40, 30), 1)
    save(root / "Annotations/2007_01.xml", voc_xml(objects))
    save(root / "Annotations/2007_02.xml", voc_xml(""))
    save(root / "Annotations/2007_03.xml", voc_xml(voc_object("cat", (2, 2, 3, 3))))
    save(root / "ImageSets/Main/trainval.txt", "2007_01\n2007_02\n2007_03\n")
    save(root / "ImageSets/Main/val.txt", "2007_03\n")
    save(root / "ImageSets/Segmentation/train.txt", "2007_01\n")
    save(root / "ImageSets/Segmentation/val.txt", "2007_01\n")
    mask = np.zeros((30, 40), np.uint8)
    mask[:20, :10], mask[20:22] = 12, 255
    drawn = Image.fromarray(mask).convert("P")
    drawn.putdata(mask.reshape(-1).tolist())
    (root / "SegmentationClass").mkdir()
    drawn.save(root / "SegmentationClass/2007_01.png")
    return tmp_path


def test_voc(voc: Path) -> None:
    data = open_scenes(voc)
    assert data.kind == "voc"
    assert data.classes[11] == "dog"
    assert [len(part) for part in data.splits.values()] == [2, 1]
    scene = data.splits["train"][0]
    np.testing.assert_array_equal(scene.boxes, [[0, 0, 10, 20], [4.5, 5, 40, 30]])
    assert [data.classes[label] for label in scene.labels] == ["dog", "person"]
    assert scene.crowd.tolist() == [False, True]
    masked = only(open_scenes(voc, task="segment")).semantic()
    assert (masked[0, 0], masked[20, 0], masked[29, 0]) == (12, 255, 0)
    with pytest.raises(DataError, match="boxes only"):
        only(data, "val").semantic()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (voc_xml(voc_object("dog", (7, 7, 6, 9))), r"object 1 \(dog\): box \[6, 6, 6, 9\]"),
        (voc_xml(voc_object("dog", ("", 7, 6, 9))), "expected the numbers xmin"),
        (voc_xml("", 30, 40), "says 30 x 40 pixels"),
        ("<annotation>\n<object>", "line 2: not XML"),
    ],
)
def test_defects_in_voc(voc: Path, content: str, reason: str) -> None:
    path = save(voc / "VOCdevkit/VOC2012/Annotations/2007_02.xml", content)
    with pytest.raises(DataError, match=reason) as caught:
        open_scenes(voc)
    assert str(path) in str(caught.value)


def test_voc_of_other_classes_and_missing_files(voc: Path) -> None:
    root = voc / "VOCdevkit" / "VOC2012"
    save(root / "Annotations/2007_02.xml", voc_xml(voc_object("zebra", (1, 1, 10, 20))))
    assert open_scenes(root).classes == ("cat", "dog", "person", "zebra")
    save(root / "classes.txt", "person\ndog\ncat\n")
    with pytest.raises(DataError, match=r"object 1 \(zebra\): a class that is none of"):
        open_scenes(root)
    (root / "SegmentationClass/2007_01.png").unlink()
    with pytest.raises(DataError, match=r"2007_01\.png: no such mask"):
        open_scenes(root, task="segment")
    (root / "JPEGImages/2007_03.jpg").unlink()
    with pytest.raises(DataError, match=r"2007_03\.jpg: no such picture"):
        open_scenes(root)


def test_masks_of_voc_are_checked_before_training(voc: Path) -> None:
    root = voc / "VOCdevkit" / "VOC2012"
    mask = root / "SegmentationClass/2007_01.png"
    good = mask.read_bytes()
    Image.new("RGB", (40, 30)).save(mask)
    with pytest.raises(DataError, match="a mask of mode RGB: expected one channel"):
        open_scenes(root, task="segment")
    assert len(open_scenes(root).splits) == 2
    Image.new("L", (40, 30), 21).save(mask)
    with pytest.raises(DataError, match=r"the values \[21\], but 0 is .* 1 to 20 are the classes"):
        open_scenes(root, task="segment")
    mask.write_bytes(good)
    path = root / "Annotations/2007_01.xml"
    save(path, path.read_text().replace("dog", "zebra"))
    with pytest.raises(DataError, match=r"classes \['person', 'zebra'\] are not VOC's twenty"):
        open_scenes(root, task="segment")
    save(root / "classes.txt", "\n".join([*"abcdefghijk", "zebra", "person"]))
    masked = only(open_scenes(root, task="segment"))
    assert masked.labels.tolist() == [11, 12]
    assert masked.semantic()[0, 0] == 12


def test_years_of_voc_and_encodings(voc: Path) -> None:
    root = voc / "VOCdevkit" / "VOC2012"
    path = root / "Annotations/2007_02.xml"
    text = voc_xml(voc_object("dog", (1, 1, 10, 20))).replace("Left", "côté")
    path.write_bytes(text.replace("utf-8", "ISO-8859-1").encode("latin-1"))
    assert open_scenes(voc).splits["train"][1].labels.tolist() == [11]
    path.write_bytes(text.encode("latin-1"))  # it says UTF-8
    with pytest.raises(DataError, match=r"2007_02\.xml, line 2: not XML"):
        open_scenes(voc)
    path.write_bytes(text.replace("utf-8", "none-such").encode("latin-1"))
    with pytest.raises(DataError, match=r"2007_02\.xml(, line 1)?: "):
        open_scenes(voc)
    assert len(open_scenes(voc, skip_bad=True).splits["train"]) == 1
    other = voc / "VOCdevkit" / "VOC2007"
    for part in ("JPEGImages", "Annotations"):
        (other / part).mkdir(parents=True)
    for source in (voc, voc / "VOCdevkit"):
        with pytest.raises(DataError, match="several datasets, VOC2007, VOC2012; pass the folder"):
            open_scenes(source)
    assert len(open_scenes(root, skip_bad=True).splits) == 2


# YOLO


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("a", "b"):
            picture(tmp_path / f"images/{split}/{name}.jpg")
        save(tmp_path / f"labels/{split}/a.txt", "1 0.5 0.5 0.25 0.2\n0 0.0125 0.1 0.05 0.1\n\n")
    return tmp_path


def test_yolo_with_yaml_and_with_classes_txt(yolo: Path) -> None:
    save(yolo / "classes.txt", "cat\ndog\n")
    plain = open_scenes(yolo)
    (yolo / "classes.txt").unlink()
    text = f"path: {yolo}\ntrain: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    save(yolo / "data.yaml", text)
    described = open_scenes(yolo)
    save(yolo / "data.yaml", "train: ../images/train\nval: ../images/val\nnc: 2\nnames: [cat, dog]")
    roboflow = open_scenes(yolo / "data.yaml")
    for data in (plain, described, roboflow):
        assert (data.kind, data.classes) == ("yolo", ("cat", "dog"))
        scene, empty = data.splits["val"]
        np.testing.assert_allclose(scene.boxes, [[15, 12, 25, 18], [0, 1.5, 1.5, 4.5]], atol=1e-5)
        assert scene.labels.tolist() == [1, 0]
        assert empty.image.name == "b.jpg"
        assert not len(empty.boxes)


def test_yolo_polygons_and_poses(yolo: Path) -> None:
    save(yolo / "classes.txt", "cat\ndog\n")
    for split in ("train", "val"):
        save(yolo / f"labels/{split}/a.txt", "0 0.25 0.2 0.5 0.2 0.5 0.4 0.25 0.4\n")
    scene = open_scenes(yolo, task="segment", val_fraction=0).splits["train"][0]
    np.testing.assert_allclose(scene.boxes, [[10, 6, 20, 12]], atol=1e-5)
    assert scene.semantic()[6:12, 10:20].all()
    assert scene.semantic().sum() == 60
    pose = "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\nflip_idx: [1, 0]\n"
    save(yolo / "data.yaml", pose)
    save(yolo / "labels/train/a.txt", "0 0.5 0.5 0.25 0.2 0.5 0.5 2 0.1 0.1 0\n")
    data = open_scenes(yolo, task="keypoints", val_fraction=0)
    assert (data.keypoints, data.flipped) == (("0", "1"), (1, 0))
    points = data.splits["train"][0].keypoints
    assert points is not None
    np.testing.assert_allclose(points, [[[20, 15, 2], [0, 0, 0]]])
    save(yolo / "data.yaml", pose.replace("3]", "2]"))
    save(yolo / "labels/train/a.txt", "0 0.5 0.5 0.25 0.2 0.5 0.5 0 0\n")
    points = open_scenes(yolo, task="keypoints", val_fraction=0).splits["train"][0].keypoints
    assert points is not None
    np.testing.assert_allclose(points, [[[20, 15, 2], [0, 0, 0]]])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0 20 15 10 6", "numbers outside 0 to 1"),
        ("2 0.5 0.5 0.2 0.2", "class 2: expected 0 to 1"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5: expected 0 to 1"),
        ("0 0.5 0.5 0.2", "4 numbers: expected 5"),
        ("dog 0.5 0.5 0.2 0.2", "expected numbers"),
        ("0 0.5 0.5 0 0.2", "is 0 x 6 pixels"),
    ],
)
def test_defects_in_yolo(yolo: Path, row: str, reason: str) -> None:
    save(yolo / "classes.txt", "cat\ndog\n")
    path = save(yolo / "labels/train/a.txt", f"1 0.5 0.5 0.25 0.2\n{row}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2: ")) as caught:
        open_scenes(yolo)
    assert reason in str(caught.value)
    assert len(open_scenes(yolo, skip_bad=True).splits["train"][0].boxes) == 1


@pytest.mark.parametrize("point", ["nan 0.5 2", "20 15 2", "0.5 -0.1 1"])
def test_points_of_yolo_outside_the_picture_are_refused(yolo: Path, point: str) -> None:
    save(yolo / "data.yaml", "train: images/train\nnames: [cat]\nkpt_shape: [2, 3]\n")
    row = f"0 0.5 0.5 0.2 0.2 {point} 0.5 0.5 2"
    path = save(yolo / "labels/train/a.txt", f"0 0.5 0.5 0.2 0.2\n{row}\n")
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2: numbers outside 0 to 1")):
        open_scenes(yolo, task="keypoints")
    save(path, row[:-1] + "0" + "\n" + row.replace(point, "nan nan 0"))  # not labelled: anything
    with pytest.raises(DataError, match="1 defects"):
        open_scenes(yolo, task="keypoints")


def test_boxes_among_polygons_of_yolo(yolo: Path) -> None:
    save(yolo / "classes.txt", "cat\ndog\n")
    path = save(yolo / "labels/train/a.txt", "0 0.2 0.2 0.5 0.2 0.5 0.4\n1 0.5 0.5 0.25 0.2\n")
    (yolo / "labels/val/a.txt").unlink()
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2: a box without a polygon")):
        open_scenes(yolo, task="segment")
    scene = open_scenes(yolo, task="segment", skip_bad=True).splits["train"][0]
    assert set(np.unique(scene.semantic())) == {0, 1}
    assert len(open_scenes(yolo).splits["train"][0].boxes) == 2


def test_labels_of_yolo_in_no_text_are_left_out(yolo: Path) -> None:
    save(yolo / "classes.txt", "cat\ndog\n")
    (yolo / "labels/train/b.txt").write_bytes(b"\xff\xfe0")
    with pytest.raises(DataError, match=r"1 defects(.|\n)*b\.txt: not UTF-8"):
        open_scenes(yolo)
    assert len(open_scenes(yolo, skip_bad=True).splits["train"]) == 1


def test_yolo_that_cannot_be_read(yolo: Path) -> None:
    with pytest.raises(DataError, match="no names of the classes"):
        open_scenes(yolo)
    for text, reason in (
        ("names: [a, a]\ntrain: images/train", "a class is there twice"),
        ("names: [a, b]\nnc: 3\ntrain: images/train", "nc: 3, but 2 names"),
        ("names: [a, b]\ntrain: photos", "no such folder"),
        ("names: [a, b]\nval: images/val\nvalid: images/train", "the val split is there twice"),
        ("names: {1: a}\ntrain: images", "expected the keys 0 to 0"),
        ("names: [a", "not YAML"),
        ("names: [a]\ntrain: images\nkpt_shape: [2, 4]", "2 or 3"),
    ):
        save(yolo / "data.yaml", text)
        with pytest.raises(DataError, match=re.escape(reason)):
            open_scenes(yolo)
    save(yolo / "data.yaml", "names: [a, b]\ntrain: images/train")
    (yolo / "labels/train/a.txt").unlink()
    with pytest.raises(DataError, match="none of its pictures has a file of labels"):
        open_scenes(yolo)


# WIDER FACE


def test_wider_face(tmp_path: Path) -> None:
    for name in ("0--Parade/a.jpg", "0--Parade/b.jpg", "1--Run/c.jpg"):
        picture(tmp_path / "WIDER_train/images" / name)
    text = (
        "0--Parade/a.jpg\n2\n4 5 10 12 0 0 0 0 0 0 \n20 5 3 4 2 0 0 1 0 0 \n"
        "0--Parade/b.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n"
        "1--Run/c.jpg\n1\n30 20 20 20 0 0 0 0 2 1 \n"
    )
    path = save(tmp_path / "wider_face_split/wider_face_train_bbx_gt.txt", text)
    data = open_scenes(tmp_path, val_fraction=0)
    assert (data.kind, data.classes) == ("wider", ("face",))
    first, empty, last = data.splits["train"]
    np.testing.assert_array_equal(first.boxes, [[4, 5, 14, 17], [20, 5, 23, 9]])
    assert first.crowd.tolist() == [False, True]
    assert empty.boxes.shape == (0, 4)
    np.testing.assert_array_equal(last.boxes, [[30, 20, 40, 30]])
    save(path, text.replace("4 5 10 12", "4 5 0 12"))
    with pytest.raises(DataError, match=re.escape(f"{path}, line 3: box [4, 5, 4, 17]")):
        open_scenes(tmp_path)
    save(path, text.replace("a.jpg\n2", "a.jpg\n3"))
    with pytest.raises(DataError, match=re.escape(f"{path}, line 5: expected face 3 of 3")):
        open_scenes(tmp_path)


def test_landmarks_of_faces(tmp_path: Path) -> None:
    picture(tmp_path / "train/images/0--Parade/a.jpg")
    picture(tmp_path / "train/images/b.jpg")
    text = (
        "# 0--Parade/a.jpg\n4 5 10 12 6 8 0.0 10 8 0.0 8 10 1.0 6 13 0.0 10 13 0.0 0.82\n"
        "20 5 9 9 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 0.2\n# b.jpg\n"
    )
    path = save(tmp_path / "train/label.txt", text)
    data = open_scenes(tmp_path, task="keypoints", val_fraction=0)
    scene, empty = data.splits["train"]
    assert data.flipped == mirrored_names(data.keypoints) == FLIPPED
    assert scene.keypoints is not None
    first = [[6, 8, 2], [10, 8, 2], [8, 10, 1], [6, 13, 2], [10, 13, 2]]
    np.testing.assert_array_equal(scene.keypoints, [first, np.zeros((5, 3))])
    assert not len(empty.boxes)
    save(path, text.replace("0.82", ""))
    assert len(open_scenes(tmp_path, val_fraction=0).splits["train"][0].boxes) == 2
    save(path, text.replace("4 5 10 12 6 8", "4 5 10 12 nan 8"))
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2: expected x y w h")):
        open_scenes(tmp_path)
    save(path, text.replace("4 5 10 12 6", "4 5 10 12"))
    # one number less could be a row without sharpness, so two
    save(path, text.replace("4 5 10 12 6 8", "4 5 10 12"))
    with pytest.raises(DataError, match=re.escape(f"{path}, line 2: expected x y w h")):
        open_scenes(tmp_path)


# Folders of masks


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    for index, split in enumerate(("train", "train", "val")):
        picture(tmp_path / f"images/{split}/{index}.jpg")
        mask = np.zeros((30, 40), np.uint8)
        mask[index : index + 3, 4:9], mask[20:, :] = 1 + index % 2, 255
        path = tmp_path / f"masks/{split}/{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    save(tmp_path / "classes.txt", "background\ncat\ndog\n")
    return tmp_path


def test_folders_of_masks(masks: Path) -> None:
    data = open_scenes(masks, task="segment")
    assert (data.kind, data.classes) == ("masks", ("cat", "dog"))
    assert [len(part) for part in data.splits.values()] == [2, 1]
    semantic = data.splits["train"][1].semantic()
    assert (semantic[:20] == 2).sum() == 15
    assert (semantic[20:] == 255).all()
    (masks / "classes.txt").unlink()
    save(masks / "classes.json", {"cat": 1, "dog": 2, "void": 255})
    assert open_scenes(masks, task="segment").classes == ("cat", "dog")
    with pytest.raises(DataError, match="without a single box; segment instead"):
        open_scenes(masks)


def test_defects_in_masks(masks: Path) -> None:
    save(masks / "classes.txt", "cat\n")
    with pytest.raises(DataError, match=r"1\.png: the values \[2\], but 0 is the background"):
        open_scenes(masks, task="segment")
    save(masks / "classes.txt", "cat\ndog\n")
    Image.new("RGB", (40, 30)).save(masks / "masks/train/0.png")
    with pytest.raises(DataError, match="a mask of mode RGB: expected one channel"):
        open_scenes(masks, task="segment")
    Image.new("L", (30, 40)).save(masks / "masks/train/0.png")
    with pytest.raises(DataError, match="30 x 40 pixels, but its picture has 40 x 30"):
        open_scenes(masks, task="segment")
    (masks / "masks/train/0.png").rename(masks / "masks/train/9.png")
    with pytest.raises(DataError, match="2 defects") as caught:
        open_scenes(masks, task="segment")
    assert "no picture" in str(caught.value)
    assert "no mask" in str(caught.value)
    assert len(open_scenes(masks, task="segment", skip_bad=True).splits["train"]) == 1


# Any of them


def test_limit_keeps_the_same_pictures_wherever_they_are(animals: Path) -> None:
    data = open_scenes(animals, limit=1)
    assert [len(part) for part in data.splits.values()] == [1, 1]
    moved = animals.parent / "elsewhere"
    animals.rename(moved)
    again = open_scenes(moved, limit=1)
    for split in ("train", "val"):
        assert only(again, split).image.name == only(data, split).image.name


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labelled scenes; expected COCO"):
        open_scenes(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        open_scenes(tmp_path / "no")
    with pytest.raises(UsageError, match="task 'classify': expected one of"):
        open_scenes(tmp_path, task="classify")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="limit 0"):
        open_scenes(tmp_path, limit=0)


def test_names_are_mirrored() -> None:
    assert mirrored_names(("nose", "left_eye", "right_eye", "left_toe")) == (0, 2, 1, 3)
    assert mirrored_names(("Left Eye", "Right Eye")) == (1, 0)


def test_scenes_need_no_torch() -> None:
    code = "import sys, mobilenet.scenes; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "mobilenet.scenes" in loaded
    assert not {"torch", "yaml", "onnx", "pycocotools"} & loaded

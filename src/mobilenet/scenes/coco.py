"""COCO JSON: boxes, polygons, runs in both spellings, crowds, keypoints.

Found as `annotations/instances_train2017.json` beside `train2017/` or `images/train2017/` (any
prefix, year and split), as Roboflow's `train/_annotations.coco.json`, or as one JSON file beside
its pictures. A folder `masks/SPLIT/NAME.png` beside `annotations/` holds the pictures' masks
(NAME: the picture's file_name, folders in it included).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data.listing import SPLIT_NAMES
from ..errors import DataError
from ..preprocess import ImageError
from ..progress import track
from .marks import Defects, Found, Mark, build, check_size, mirrored_names, read_text
from .scene import Scene, check_mask
from .segments import Segment, checked_runs, from_text

ROBOFLOW = "_annotations.coco.json"
_FOREIGN = ("captions", "panoptic", "stuff", "image_info")
_LARGEST = 1e12  # px²: no picture has more
_PREFIX = {
    "detect": "instances",
    "segment": "instances",
    "keypoints": "person_keypoints",
    "faces": "instances",
}


def is_coco(root: Path) -> bool:
    return (
        (root / ROBOFLOW).is_file()
        or any(root.glob(f"*/{ROBOFLOW}"))
        or any((root / "annotations").glob("*.json"))
    )


def list_coco(source: Path, defects: Defects, *, task: str) -> Found:
    """Read a COCO dataset. Raises DataError where its files cannot be read at all; what is wrong
    in single records goes to `defects`."""
    files = {"all": source} if source.is_file() else _find(source, task)
    read = {split: _load(path) for split, path in files.items()}
    classes, unused = _classes(files, read)
    keypoints, skeleton = _keypoints(read, classes)
    splits: dict[str, list[Scene]] = {}
    for split, content in read.items():
        reader = _Reader(files[split], split, content, classes, keypoints, defects, task)
        splits[split] = reader.scenes()
    return Found(
        kind="coco",
        classes=classes,
        splits=splits,
        keypoints=keypoints,
        skeleton=skeleton,
        flipped=mirrored_names(keypoints),
        notes=tuple(f"category {name!r}: no class but the group of all others" for name in unused),
    )


class _Reader:
    """One file of annotations."""

    def __init__(
        self,
        path: Path,
        split: str,
        content: Mapping[str, Any],
        classes: tuple[str, ...],
        keypoints: tuple[str, ...],
        defects: Defects,
        task: str,
    ) -> None:
        self.path, self.split, self.content = path, split, content
        self.defects, self.task = defects, task
        self.keypoints, self.classes = keypoints, len(classes)
        place = {name: label for label, name in enumerate(classes)}
        records = {record["id"]: record for record in content["categories"]}
        self.labels = {key: place.get(record["name"]) for key, record in records.items()}
        # where each of a category's keypoints stands among those of all
        self.places = {
            key: [keypoints.index(name) for name in record.get("keypoints", [])]
            for key, record in records.items()
        }

    def scenes(self) -> list[Scene]:
        by_image: dict[Any, list[tuple[int, dict[str, Any]]]] = {}
        for index, record in enumerate(self.content["annotations"]):
            if isinstance(record, dict) and _key(record.get("image_id")) is not None:
                by_image.setdefault(record["image_id"], []).append((index, record))
            else:
                self.defects.add(self._where("annotations", index), "no object with an image_id")
        scenes: list[Scene] = []
        seen: set[Any] = set()
        images = self.content["images"]
        for index, record in enumerate(track(images, total=len(images), desc=self.path.name)):
            where = self._where("images", index)
            try:
                key, name = _key(record["id"]), record["file_name"]
            except (KeyError, TypeError):
                key, name = None, None
            if key is None or not isinstance(name, str) or not name or "\0" in name:
                self.defects.add(where, "no record with id and file_name")
                continue
            if key in seen:
                self.defects.add(where, f"the id {key} is another picture's too; renumber them")
                continue
            seen.add(key)
            marks = by_image.pop(key, [])
            try:
                image = self._locate(name)
                stated = _stated(record)
                size = check_size(image, where, stated)
            except ImageError as error:
                self.defects.add(error.name or where, error.reason)
                continue
            except ValueError as error:
                self.defects.add(where, str(error))
                continue
            read = [self._mark(at, given, size) for at, given in marks]
            marked = [mark for mark in read if mark is not None]
            mask = self._mask(name)
            if self.task == "segment" and mask is not None:
                try:
                    check_mask(mask, *size, self.classes)
                except DataError as error:
                    self.defects.listed.append(str(error))
                    continue
            if self.task == "segment" and mask is None:
                for mark in marked:
                    if mark.segment is None:
                        self.defects.add(mark.where, "no segmentation; draw one, or use boxes only")
                marked = [mark for mark in marked if mark.segment is not None]
            points = len(self.keypoints)
            scene = build(image, size, marked, self.defects, points=points, mask=mask)
            scenes.append(scene)
        for key, marks in by_image.items():
            where = self._where("annotations", marks[0][0])
            self.defects.add(
                where, f"image_id {key!r} ({len(marks)} objects) is not among the images"
            )
        return scenes

    def _mark(self, index: int, record: dict[str, Any], size: tuple[int, int]) -> Mark | None:
        where = self._where("annotations", index)
        if "id" in record:
            where += f" (id {record['id']})"
        label = self.labels.get(_key(record.get("category_id")))
        if label is None:
            known = sorted(self.labels)
            self.defects.add(
                where,
                f"category_id {record.get('category_id')!r} is not among the categories {known}",
            )
            return None
        try:
            return Mark(
                where=where,
                label=label,
                box=_box(record),
                crowd=_crowd(record),
                area=_area(record),
                keypoints=self._points(record),
                segment=_segment(record.get("segmentation"), size),
            )
        except (ValueError, TypeError, OverflowError) as error:
            self.defects.add(where, str(error))
            return None

    def _points(self, record: dict[str, Any]) -> np.ndarray | None:
        given = record.get("keypoints")
        if not given or not self.keypoints:
            return None
        places = self.places[record["category_id"]]
        values = np.asarray(given, np.float32)
        if values.shape != (3 * len(places),):
            raise ValueError(
                f"{values.size} numbers of keypoints: expected x, y and visibility of each of "
                f"{len(places)}"
            )
        values = values.reshape(-1, 3)
        if not np.isfinite(values).all() or not np.isin(values[:, 2], (0, 1, 2)).all():
            raise ValueError("keypoints whose visibility is not 0, 1 or 2, or that are no numbers")
        points = np.zeros((len(self.keypoints), 3), np.float32)
        points[places] = values
        return points

    def _locate(self, name: str) -> Path:
        folder = self.path.parent
        stem = re.sub(r"^.*_(?=(?:train|val|test)\w*$)", "", self.path.stem)
        places = [folder, folder / "images", folder / stem]
        places += [folder.parent / part for part in (stem, f"images/{stem}", "images", ".")]
        for place in places:
            if (place / name).is_file():
                return place / name
        looked = ", ".join(str(place) for place in places)
        raise ImageError(f"no such picture in {looked}", f"{self.path}: {name}")

    def _mask(self, name: str) -> Path | None:
        """The picture's mask, which lies below `masks/SPLIT` as the picture's file_name says."""
        if Path(name).is_absolute():
            return None
        mask = (self.path.parent.parent / "masks" / self.split / name).with_suffix(".png")
        return mask if mask.is_file() else None

    def _where(self, part: str, index: int) -> str:
        return f"{self.path}, {part}[{index}]"


def _find(root: Path, task: str) -> dict[str, Path]:
    """The file of annotations of each split."""
    if (root / ROBOFLOW).is_file():
        return {"all": root / ROBOFLOW}
    found: dict[str, Path] = {}
    roboflow = sorted(root.glob(f"*/{ROBOFLOW}"))
    for path in roboflow:
        split = SPLIT_NAMES.get(path.parent.name.lower())
        if split is None:
            raise DataError(f"{path}: expected in a folder named train, valid or test")
        found[split] = path
    if roboflow:
        return found
    named: dict[str, dict[str, Path]] = {}
    for path in sorted((root / "annotations").glob("*.json")):
        prefix, _, rest = path.stem.rpartition("_")
        split = SPLIT_NAMES.get(re.sub(r"[-\d]*$", "", rest.lower()))
        if prefix in _FOREIGN:
            continue
        if split is None:
            prefix, split = path.stem, "all"
        parts = named.setdefault(prefix, {})
        if split in parts:
            raise DataError(
                f"{root}: {parts[split].name} and {path.name} are both the {split} split; keep one"
            )
        parts[split] = path
    if not named:
        raise DataError(f"{root / 'annotations'}: only captions or stuff, no objects")
    wanted = _PREFIX[task]
    if wanted not in named and len(named) > 1:
        raise DataError(
            f"{root / 'annotations'}: files of several kinds, {sorted(named)}, and none named "
            f"{wanted}_SPLIT.json; pass the one to read itself"
        )
    return named[wanted] if wanted in named else next(iter(named.values()))


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise DataError(
                f"{path}: no list {part!r}: expected COCO's images, annotations and categories"
            )
    for index, record in enumerate(content["categories"]):
        reason = _why_no_category(record)
        if reason:
            raise DataError(f"{path}, categories[{index}]: {reason}")
    for part in ("id", "name"):
        counts = Counter(record[part] for record in content["categories"])
        twice = [key for key, count in counts.items() if count > 1]
        if twice:
            raise DataError(f"{path}, categories: the {part} {twice[0]!r} is there twice; keep one")
    return content


def _why_no_category(record: Any) -> str | None:
    if not isinstance(record, dict) or not {"id", "name"} <= set(record):
        return "no record with id and name"
    if type(record["id"]) is not int or not isinstance(record["name"], str) or not record["name"]:
        return "expected a whole number as id and a text as name"
    names, lines = record.get("keypoints", []), record.get("skeleton", [])
    if not _is_list(names, str) or len(set(names)) < len(names):
        return "keypoints: expected a list of names, each once"
    pairs = isinstance(lines, list) and all(
        _is_list(line, int) and len(line) == 2 for line in lines
    )
    if not pairs or not all(1 <= end <= len(names) for line in lines for end in line):
        return f"skeleton: expected a list of pairs of 1 to {len(names)}"
    return None


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(one) is kind for one in value)


def _classes(
    files: dict[str, Path], read: dict[str, dict[str, Any]]
) -> tuple[tuple[str, ...], list[str]]:
    """Names in the order of their ids, and those of them that are only groups."""
    names: dict[str, str] = {}
    used: set[str] = set()
    for content in read.values():
        by_id = {record["id"]: record["name"] for record in content["categories"]}
        for record in sorted(content["categories"], key=lambda record: record["id"]):
            names.setdefault(record["name"], str(record.get("supercategory", "")))
        used |= {
            by_id[record["category_id"]]
            for record in content["annotations"]
            if isinstance(record, dict) and _key(record.get("category_id")) in by_id
        }
    groups = [
        name
        for name in names
        if name not in used
        and len(names) > 1
        and all(group == name for other, group in names.items() if other != name)
    ]
    classes = tuple(name for name in names if name not in groups)
    if not classes:
        raise DataError(f"{next(iter(files.values()))}, categories: empty; expected the classes")
    return classes, groups


def _keypoints(
    read: dict[str, dict[str, Any]], classes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    """The names of all categories' keypoints, each once, and the lines between them."""
    names: list[str] = []
    lines: list[tuple[int, int]] = []
    for content in read.values():
        for record in content["categories"]:
            if record["name"] not in classes:
                continue
            own = record.get("keypoints", [])
            names += [name for name in own if name not in names]
            for pair in record.get("skeleton", []):
                line = (names.index(own[pair[0] - 1]), names.index(own[pair[1] - 1]))
                if line not in lines:
                    lines.append(line)
    return tuple(names), tuple(lines)


def _key(value: Any) -> int | str | None:
    """An id, None for what cannot be one."""
    return value if type(value) in (int, str) else None


def _stated(record: dict[str, Any]) -> tuple[int, int] | None:
    width, height = record.get("width"), record.get("height")
    if width is None or height is None:
        return None
    if type(width) is not int or type(height) is not int:
        raise ValueError(f"width {width!r}, height {height!r}: expected whole pixels")
    return width, height


def _box(record: dict[str, Any]) -> tuple[float, float, float, float] | None:
    box = record.get("bbox")
    if not box and record.get("segmentation"):
        return None
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"bbox {box!r}: expected [x, y, width, height] in pixels")
    x, y, width, height = (float(value) for value in box)
    return x, y, x + width, y + height


def _area(record: dict[str, Any]) -> float | None:
    area = record.get("area")
    if area is not None and not 0 <= float(area) < _LARGEST:
        raise ValueError(f"area {area!r}: expected square pixels")
    return float(area) if area else None


def _crowd(record: dict[str, Any]) -> bool:
    given = record.get("iscrowd", 0)
    if given not in (0, 1):
        raise ValueError(f"iscrowd {given!r}: expected 0 or 1")
    return bool(given)


def _segment(given: Any, size: tuple[int, int]) -> Segment | None:
    if not given:
        return None
    width, height = size
    if isinstance(given, dict):
        if list(given.get("size", [])) != [height, width]:
            raise ValueError(
                f"runs of size {given.get('size')}: expected [height, width] = {[height, width]}"
            )
        counts = given.get("counts")
        if isinstance(counts, str):
            return from_text(counts, height, width)
        return checked_runs(counts or [], height, width)
    polygons: list[np.ndarray] = []
    for polygon in given:
        values = np.asarray(polygon, np.float32)
        if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
            raise ValueError(
                "segmentation with a polygon that is not x, y of three corners or more in turns"
            )
        corners = values.reshape(-1, 2)
        if (corners < [-width, -height]).any() or (corners > [2 * width, 2 * height]).any():
            raise ValueError(
                "segmentation with a polygon that lies further outside its picture of "
                f"{width} x {height} than that is large; draw it anew"
            )
        polygons.append(corners)
    return tuple(polygons)

"""YOLO text files: a row an object, its class and then shares of the picture's width and height.

`class cx cy w h`, with keypoints behind it where data.yaml has a kpt_shape, or `class x y x y ...`
for a polygon. Labels lie where the pictures do, with `labels` for the last `images` in the path. A
picture without a file of labels, or with an empty one, has nothing on it.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ..data.folders import PICTURES
from ..data.listing import SPLIT_NAMES, sort_naturally
from ..errors import DataError, MissingDependency
from ..preprocess import ImageError
from ..progress import track
from .marks import Defects, Found, Mark, build, read_text, shown_size
from .scene import Scene

_YAMLS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "labels/classes.txt", "obj.names", "classes.names")
_SLACK = 1e-3  # of the picture: rows are rounded to a few digits


def find_yaml(root: Path) -> Path | None:
    return next((root / name for name in _YAMLS if (root / name).is_file()), None)


def is_yolo(root: Path) -> bool:
    folders = (root / "images").is_dir() and (root / "labels").is_dir()
    return find_yaml(root) is not None or (folders and any((root / "labels").rglob("*.txt")))


def list_yolo(source: Path, defects: Defects, *, task: str) -> Found:
    """Read a YOLO dataset from its folder or its data.yaml. What is wrong in single rows goes to
    `defects`. Raises MissingDependency without PyYAML where there is a data.yaml."""
    described = source if source.is_file() else find_yaml(source)
    if described is not None:
        settings = _load(described)
        classes = _yaml_names(described, settings)
        pictures = _yaml_pictures(described, settings)
        shape, flipped = _pose(described, settings)
    else:
        classes = _text_names(source)
        pictures = _folder_pictures(source)
        shape, flipped = (0, 0), ()
    splits: dict[str, list[Scene]] = {}
    labelled = 0
    for split, paths in pictures.items():
        splits[split] = []
        for path in track(paths, total=len(paths), desc=f"{source.name} {split}"):
            labels = _labels_of(path)
            labelled += labels.is_file()
            scene = _scene(path, labels, classes, shape, defects, task)
            if scene is not None:
                splits[split].append(scene)
    if not labelled and any(pictures.values()):
        first = next(path for paths in pictures.values() for path in paths)
        raise DataError(
            f"{source}: none of its pictures has a file of labels; for {first} it is expected at "
            f"{_labels_of(first)}"
        )
    return Found(
        kind="yolo",
        classes=classes,
        splits=splits,
        keypoints=tuple(str(place) for place in range(shape[0])),
        flipped=flipped,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError:
        raise MissingDependency("pyyaml", "scenes", f"reading {path}") from None
    try:
        settings = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {error}") from None
    if not isinstance(settings, dict):
        raise DataError(f"{path}: expected names: and train: and val:")
    return settings


def _yaml_names(path: Path, settings: dict[str, Any]) -> tuple[str, ...]:
    names = settings.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path}: names: expected the keys 0 to {len(names) - 1}")
        names = [names[key] for key in sorted(names)]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: names: expected a list of the classes, or 0: and so on with each")
    classes = tuple(str(name) for name in names)
    if len(set(classes)) < len(classes):
        raise DataError(f"{path}: names: a class is there twice; keep one")
    if settings.get("nc", len(classes)) != len(classes):
        raise DataError(f"{path}: nc: {settings['nc']}, but {len(classes)} names")
    return classes


def _yaml_pictures(path: Path, settings: dict[str, Any]) -> dict[str, list[Path]]:
    roots = [path.parent / str(settings.get("path", ".")), path.parent]
    found: dict[str, list[Path]] = {}
    for key, split in SPLIT_NAMES.items():
        given = settings.get(key)
        if not given:
            continue
        if split in found:
            raise DataError(f"{path}: {key}: the {split} split is there twice; keep one")
        found[split] = []
        for one in given if isinstance(given, list) else [given]:
            place = _place(roots, str(one))
            if place is None:
                raise DataError(f"{path}: {key}: {one}: no such folder or list of pictures")
            found[split] += _pictures(place)
    if not any(found.values()):
        raise DataError(f"{path}: no pictures; expected train: and val: with their folders")
    return found


def _place(roots: list[Path], given: str) -> Path | None:
    """A path of data.yaml; "../train/images", as Roboflow writes it, is meant without the "../"."""
    for root in roots:
        for spelled in (given, given.removeprefix("../")):
            if (root / spelled).exists():
                return root / spelled
    return None


def _pictures(place: Path) -> list[Path]:
    if place.is_file():
        lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
        return [place.parent / line for line in lines]
    names = sort_naturally(
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.suffix.lower() in PICTURES and not path.name.startswith(".")
    )
    return [place / name for name in names]


def _folder_pictures(root: Path) -> dict[str, list[Path]]:
    parts = {
        split: folder
        for folder in sorted((root / "images").iterdir())
        if folder.is_dir() and (split := SPLIT_NAMES.get(folder.name.lower()))
    }
    if not parts:
        return {"all": _pictures(root / "images")}
    return {split: _pictures(folder) for split, folder in parts.items()}


def _text_names(root: Path) -> tuple[str, ...]:
    for name in _NAMES:
        if (root / name).is_file():
            lines = read_text(root / name).splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    raise DataError(
        f"{root}: images and labels, but no names of the classes; expected data.yaml, or "
        "classes.txt with a class a line"
    )


def _pose(path: Path, settings: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, ...]]:
    """(keypoints, numbers of each) and how they change places when mirrored."""
    shape = settings.get("kpt_shape")
    if not shape:
        return (0, 0), ()
    if not _is_shape(shape):
        raise DataError(f"{path}: kpt_shape: {shape}: expected [keypoints, 2 or 3]")
    given = settings.get("flip_idx", list(range(shape[0])))
    flipped = tuple(given) if isinstance(given, list) else ()
    if any(type(at) is not int for at in flipped) or sorted(flipped) != list(range(shape[0])):
        raise DataError(f"{path}: flip_idx: expected each of 0 to {shape[0] - 1} once")
    return (int(shape[0]), int(shape[1])), flipped


def _is_shape(shape: Any) -> bool:
    whole = isinstance(shape, list) and all(type(number) is int for number in shape)
    return whole and len(shape) == 2 and 1 <= shape[0] <= 1000 and shape[1] in (2, 3)


def _labels_of(picture: Path) -> Path:
    parts = list(picture.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _scene(
    image: Path,
    labels: Path,
    classes: tuple[str, ...],
    shape: tuple[int, int],
    defects: Defects,
    task: str,
) -> Scene | None:
    try:
        width, height, _ = shown_size(image)
        rows = read_text(labels).splitlines() if labels.is_file() else []
    except ImageError as error:
        defects.add(error.name or image, error.reason)
        return None
    except DataError as error:
        defects.listed.append(str(error))
        return None
    marks: list[Mark] = []
    for number, row in enumerate(rows, 1):
        if row.strip():
            where = f"{labels}, line {number}"
            try:
                mark = _mark(where, row.split(), (width, height), len(classes), shape)
                if task == "segment" and mark.segment is None:
                    raise ValueError("a box without a polygon; draw one, or use boxes only")
                marks.append(mark)
            except ValueError as error:
                defects.add(where, str(error))
    return build(image, (width, height), marks, defects, points=shape[0])


def _mark(
    where: str, cells: list[str], size: tuple[int, int], classes: int, shape: tuple[int, int]
) -> Mark:
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        raise ValueError(f"{' '.join(cells)!r}: expected numbers") from None
    if not len(values) or values[0] not in range(classes):
        raise ValueError(f"class {cells[0]}: expected 0 to {classes - 1}")
    label = int(values[0])
    points, numbers = shape
    pose = bool(points) and len(values) == 5 + points * numbers
    polygon = not points and len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not pose and not polygon:
        raise ValueError(
            f"{len(values)} numbers: expected 5 (class cx cy w h)"
            + (f" or {5 + points * numbers} with keypoints" if points else ", or an odd number "
               "from 7 on for a polygon")
        )  # fmt: skip
    scale = np.array(size, np.float64)
    if polygon:
        corners = values[1:].reshape(-1, 2)
        _check_shares(corners)
        corners = (corners * scale).astype(np.float32)
        (x0, y0), (x1, y1) = corners.min(0).tolist(), corners.max(0).tolist()
        return Mark(where=where, label=label, box=(x0, y0, x1, y1), segment=(corners,))
    _check_shares(values[1:5])
    centre, half = values[1:3] * scale, values[3:5] * scale / 2
    (x0, y0), (x1, y1) = (centre - half).tolist(), (centre + half).tolist()
    return Mark(
        where=where,
        label=label,
        box=(x0, y0, x1, y1),
        keypoints=_points(values[5:].reshape(points, numbers), scale) if pose else None,
    )


def _points(given: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 (K, 3) in pixels; without a third number, (0, 0) is not labelled."""
    if given.shape[1] == 3:
        seen = given[:, 2]
        if not np.isin(seen, (0, 1, 2)).all():
            raise ValueError("a keypoint whose visibility is not 0, 1 or 2")
    else:
        seen = np.where((given == 0).all(1), 0, 2)
    if (seen > 0).any():
        _check_shares(given[seen > 0, :2])
    points = np.concatenate([given[:, :2] * scale, seen[:, None]], 1)
    points[seen == 0] = 0
    return points.astype(np.float32)


def _check_shares(values: np.ndarray) -> None:
    if not np.isfinite(values).all() or values.min() < -_SLACK or values.max() > 1 + _SLACK:
        raise ValueError(
            "numbers outside 0 to 1: expected shares of the picture's width and height; divide "
            "pixels by them"
        )

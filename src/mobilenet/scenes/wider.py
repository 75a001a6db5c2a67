"""WIDER FACE: the boxes' text with its flags, and RetinaFace's label.txt with five landmarks.

`wider_face_split/wider_face_train_bbx_gt.txt` beside `WIDER_train/images`: a picture's name, its
number of faces, a row a face: x y w h blur expression illumination invalid occlusion pose. Faces
that are marked invalid count neither as right nor as wrong. A picture without one has the row of
zeros that the originals have, or none.

`train/label.txt` beside `train/images`: `# NAME`, then a row a face: x y w h, five times x, y and
0 for visible, 1 for hidden, -1 for unknown, and how sharp it is.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..data.listing import SPLIT_NAMES
from ..errors import DataError
from ..preprocess import ImageError
from ..progress import track
from .marks import Defects, Found, Mark, build, read_text, shown_size
from .scene import Scene

# as seen in the picture, the left eye on the left
KEYPOINTS = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")
FLIPPED = (1, 0, 2, 4, 3)
_INVALID = 7  # the column of that flag

_Row = tuple[int, list[float]]  # line in the file, numbers
_Picture = tuple[int, str, list[_Row]]  # line, name, faces


def is_wider(root: Path) -> bool:
    return bool(_boxes(root)) or bool(_landmarks(root))


def list_wider(root: Path, defects: Defects) -> Found:
    """Read WIDER FACE. What is wrong in single rows goes to `defects`."""
    landmarks = _landmarks(root)
    files = landmarks or _boxes(root)
    splits: dict[str, list[Scene]] = {}
    for split, path in files.items():
        read = _read_landmarks if landmarks else _read_boxes
        folders = (
            [path.parent / "images", path.parent]
            if landmarks
            else [root / f"WIDER_{split}" / "images", path.parent / f"WIDER_{split}" / "images"]
        )
        pictures = list(read(path, defects))
        splits[split] = []
        for line, name, rows in track(pictures, total=len(pictures), desc=path.name):
            where = f"{path}, line {line}"
            try:
                image = next((f / name for f in folders if (f / name).is_file()), folders[0] / name)
                width, height, _ = shown_size(image)
            except ImageError as error:
                defects.add(where, f"{error.name or name}: {error.reason}")
                continue
            marks = [_mark(f"{path}, line {at}", row, bool(landmarks)) for at, row in rows]
            points = len(KEYPOINTS) if landmarks else 0
            splits[split].append(build(image, (width, height), marks, defects, points=points))
    return Found(
        kind="wider",
        classes=("face",),
        splits=splits,
        keypoints=KEYPOINTS if landmarks else (),
        skeleton=(),
        flipped=FLIPPED if landmarks else (),
    )


def _boxes(root: Path) -> dict[str, Path]:
    return {
        split: path
        for split in ("train", "val", "test")
        for folder in (root / "wider_face_split", root)
        if (path := folder / f"wider_face_{split}_bbx_gt.txt").is_file()
    }


def _landmarks(root: Path) -> dict[str, Path]:
    return {
        SPLIT_NAMES[path.parent.name.lower()]: path
        for path in sorted(root.glob("*/label.txt"))
        if path.parent.name.lower() in SPLIT_NAMES
    }


def _read_boxes(path: Path, defects: Defects) -> Iterator[_Picture]:
    lines = read_text(path).splitlines()
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        first, name = at + 1, lines[at].strip()
        try:
            count = int(lines[at + 1])
        except (IndexError, ValueError):
            raise DataError(
                f"{path}, line {at + 2}: expected the number of faces of {name}"
            ) from None
        at += 2
        rows: list[_Row] = []
        for _ in range(count):
            numbers = _numbers(lines[at]) if at < len(lines) else None
            if numbers is None or len(numbers) not in (4, 10):
                raise DataError(
                    f"{path}, line {at + 1}: expected face {len(rows) + 1} of {count} of {name}: "
                    "x y w h and six flags"
                )
            rows.append((at + 1, numbers))
            at += 1
        if not count and at < len(lines):  # the originals have a row of zeros here
            at += _numbers(lines[at]) == [0.0] * 10
        yield first, name, rows


def _read_landmarks(path: Path, defects: Defects) -> Iterator[_Picture]:
    name, first, rows = "", 0, []
    for line, text in enumerate(read_text(path).splitlines(), 1):
        if text.startswith("#"):
            if first:
                yield first, name, rows
            name, first, rows = text[1:].strip(), line, []
        elif text.strip():
            numbers = _numbers(text)
            if not first:
                raise DataError(f"{path}, line {line}: expected `# ` and the picture's name")
            known = numbers is not None and len(numbers) in (4, 10, 19, 20)
            # a box's own numbers are looked at with all others'
            if numbers is None or not known or not np.isfinite(numbers[4:]).all():
                defects.add(
                    f"{path}, line {line}",
                    "expected x y w h, and five times x y and 0, 1 or -1",
                )
            else:
                rows.append((line, numbers))
    if first:
        yield first, name, rows


def _mark(where: str, row: list[float], landmarks: bool) -> Mark:
    x, y, width, height = row[:4]
    points = None
    if landmarks and len(row) >= 19:
        given = np.array(row[4:19], np.float32).reshape(5, 3)
        points = given.copy()
        points[:, 2] = np.where(given[:, 2] == 0, 2, 1)
        points[(given[:, :2] < 0).any(1) | (given[:, 2] < 0)] = 0
    invalid = len(row) == 10 and row[_INVALID] == 1
    box = (x, y, x + width, y + height)
    return Mark(where=where, label=0, box=box, crowd=invalid, keypoints=points)


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(cell) for cell in text.split()]
    except ValueError:
        return None

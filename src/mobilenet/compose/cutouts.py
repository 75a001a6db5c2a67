"""Cut-outs on disk: pictures with alpha in class folders, and named points on them.

Points come from `landmarks.json`, `{"faces/a.png": {"left_eye": [x, y], "nose": [x, y, 1]}}`, or
`landmarks.csv` with the columns path, point, x, y and optionally visibility, in the folder of the
cut-outs: pixels of the picture as it is stored, visibility 2 for visible (where none is given) and
1 for hidden.
"""

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.listing import sort_naturally
from ..errors import DataError
from ..preprocess import open_image, read_file
from ..scenes.marks import Defects, read_text

SIDE = 512  # pixels: the longer side of a cut-out is kept no larger
_SUFFIXES = frozenset({".png", ".webp", ".tif", ".tiff", ".gif"})
_ALIKE = 6.0  # of 255, mean difference of two thumbnails of what counts as one object

Drawing = tuple[Image.Image, np.ndarray]  # RGBA, points float32 (K, 3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Cutout:
    """One object to paste. `name`: within the folder. `group`: the same for pictures of one
    object, which must not be split up. `draw`: the picture and its class's points, the same for a
    file each time, a new pose for what is drawn."""

    name: str
    label: int
    group: str
    draw: Callable[[np.random.Generator], Drawing]


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """All cut-outs. `points`: the names of each class's points; `skeletons`: pairs of their
    positions that a line joins."""

    classes: tuple[str, ...]
    cutouts: tuple[Cutout, ...]
    points: tuple[tuple[str, ...], ...]
    skeletons: tuple[tuple[tuple[int, int], ...], ...]
    notes: tuple[str, ...] = ()


def find_cutouts(
    root: Path, classes: Sequence[str], without: Sequence[str], *, skip_bad: bool
) -> Shelf:
    """The cut-outs in a folder of class folders, which may be nested.

    `classes`: NAME=FOLDER,FOLDER or FOLDER, below `root`; none takes each folder of `root`.
    `without`: names of folders to leave out at any depth. `skip_bad` leaves out what is
    damaged or has no alpha. Raises DataError, naming the first ten, for such cut-outs, and where
    nothing is found.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a folder of class folders of cut-outs")
    folders = _class_folders(root, classes, without)
    given = _read_landmarks(root)
    cutouts: list[Cutout] = []
    points: list[tuple[str, ...]] = []
    defects = Defects(str(root))
    for label, (name, places) in enumerate(folders.items()):
        paths = [path for path in _pictures(places, without) if _is_usable(path, defects)]
        if not paths and not defects.listed:
            raise DataError(f"{', '.join(map(str, places))}: no cut-outs for class {name}")
        keys = {path: path.relative_to(root).as_posix() for path in paths}
        names = tuple(dict.fromkeys(n for key in keys.values() for n in given.get(key, {})))
        points.append(names)
        groups = _groups(paths)
        cutouts += [
            Cutout(
                name=keys[path],
                label=label,
                group=keys[groups[path]],
                draw=_FromFile(path, _ordered(names, given.get(keys[path], {}))),
            )
            for path in paths
        ]
    _refuse_shared(root, cutouts, tuple(folders))
    notes = defects.settle(skip_bad=skip_bad)
    missing = [key for key in given if not (root / key).is_file()]
    if missing:
        raise DataError(f"{root}: landmarks of {missing[0]!r}, but there is no such cut-out")
    return Shelf(
        classes=tuple(folders),
        cutouts=tuple(cutouts),
        points=tuple(points),
        skeletons=tuple(() for _ in folders),
        notes=tuple(notes),
    )


@dataclass(frozen=True, eq=False)
class _FromFile:
    path: Path
    points: np.ndarray  # float32 (K, 3), pixels of the file

    def __call__(self, rng: np.random.Generator) -> Drawing:
        image, left, top, scale = _load(self.path)
        points = self.points.copy()
        points[:, :2] = (points[:, :2] - [left, top]) * scale
        points[points[:, 2] == 0] = 0
        return image, points


@lru_cache(maxsize=512)
def _load(path: Path) -> tuple[Image.Image, int, int, float]:
    """(the cut-out within its alpha's extent, that extent's left and top, how it was scaled)."""
    image = open_image(read_file(path), str(path))
    if not image.has_transparency_data:
        raise DataError(
            f"{path}: a cut-out without alpha; cut the object out and save it as PNG with "
            "transparency"
        )
    try:
        image = image.convert("RGBA")
    except Exception as error:  # malformed files escape from Pillow as any exception
        raise DataError(f"{path}: a damaged picture: {error}") from error
    if image.getchannel("A").getextrema()[0] == 255:
        raise DataError(f"{path}: a cut-out that is opaque everywhere: make its background clear")
    box = image.getchannel("A").point([0] * 64 + [255] * 192).getbbox()
    if box is None:
        raise DataError(f"{path}: a cut-out that is transparent everywhere; remove it")
    image = image.crop(box)
    scale = min(1.0, SIDE / max(image.size))
    if scale < 1:
        size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(size, Image.Resampling.BOX)
    return image, box[0], box[1], scale


def _is_usable(path: Path, defects: Defects) -> bool:
    try:
        _load(path)
    except DataError as error:
        defects.listed.append(str(error))
        return False
    return True


def _class_folders(
    root: Path, classes: Sequence[str], without: Sequence[str]
) -> dict[str, list[Path]]:
    if not classes:
        folders = [path for path in root.iterdir() if path.is_dir() and path.name[0] != "."]
        names = sort_naturally(path.name for path in folders if path.name not in without)
        if not names:
            raise DataError(f"{root}: no class folders; expected {root / 'cat' / '1.png'}")
        return {name: [root / name] for name in names}
    found: dict[str, list[Path]] = {}
    for entry in classes:
        name, _, listed = entry.rpartition("=")
        name = name or Path(listed).name
        if name in found:
            raise DataError(f"class {name!r}: there twice; write NAME=FOLDER,FOLDER once")
        found[name] = [root / part for part in listed.split(",")]
        for folder in found[name]:
            if not folder.is_dir():
                raise DataError(f"class {name!r}: {folder}: no such folder of cut-outs")
    return found


def _pictures(folders: Sequence[Path], without: Sequence[str]) -> list[Path]:
    paths: list[Path] = []
    for folder in folders:
        inner = [path.relative_to(folder) for path in folder.rglob("*")]
        names = [
            path.as_posix()
            for path in inner
            if path.suffix.lower() in _SUFFIXES
            and not path.name.startswith(".")
            and not set(path.parts[:-1]) & set(without)
        ]
        paths += [folder / name for name in sort_naturally(names)]
    return list(dict.fromkeys(paths))


def _groups(paths: Sequence[Path]) -> dict[Path, Path]:
    """For each cut-out the first that looks like it, mirrored or not: copies of one object."""
    thumbnails: list[np.ndarray] = []
    firsts: list[Path] = []
    found: dict[Path, Path] = {}
    for path in paths:
        small = _load(path)[0].resize((16, 16), Image.Resampling.BOX).convert("RGBa")
        own = np.asarray(small, np.float32)
        known = np.array(thumbnails).reshape(-1, 16, 16, 4)
        gaps = [np.abs(known - turned).mean((1, 2, 3)) for turned in (own, own[:, ::-1])]
        gap = np.minimum(*gaps)
        alike = len(gap) and gap.min() < _ALIKE
        found[path] = firsts[int(gap.argmin())] if alike else path
        thumbnails.append(own)
        firsts.append(found[path])
    return found


def _refuse_shared(root: Path, cutouts: Sequence[Cutout], classes: Sequence[str]) -> None:
    """Raise DataError where two classes have the same picture: it would be held out of one split
    by the one and be in it by the other."""
    seen: dict[bytes, Cutout] = {}
    for cutout in cutouts:
        first = seen.setdefault(_digest(root / cutout.name), cutout)
        if first.label != cutout.label:
            raise DataError(
                f"{root}: {first.name} of class {classes[first.label]} and {cutout.name} of class "
                f"{classes[cutout.label]} are the same picture; keep it in one of them"
            )


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(read_file(path), digest_size=16).digest()


def _ordered(names: Sequence[str], given: Mapping[str, Sequence[float]]) -> np.ndarray:
    points = np.zeros((len(names), 3), np.float32)
    for place, name in enumerate(names):
        if name in given:
            points[place] = [*given[name], 2][:3]
    return points


def _read_landmarks(root: Path) -> dict[str, dict[str, list[float]]]:
    path = root / "landmarks.json"
    if path.is_file():
        try:
            given = json.loads(read_text(path))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
        found: dict[str, dict[str, list[float]]] = {}
        for key, points in given.items() if isinstance(given, dict) else [("", None)]:
            if not isinstance(points, dict):
                raise DataError(f'{path}: expected {{"faces/a.png": {{"left_eye": [x, y]}}}}')
            found[key] = {name: _point(path, f"{key} {name}", xy) for name, xy in points.items()}
        return found
    path = root / "landmarks.csv"
    if not path.is_file():
        return {}
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if not {"path", "point", "x", "y"} <= set(rows.fieldnames or ()):
        raise DataError(f"{path}, row 1: expected the columns path, point, x and y")
    found = {}
    for row in rows:
        values = [row["x"], row["y"], row.get("visibility") or 2]
        where = f"row {rows.line_num}"
        found.setdefault(row["path"], {})[row["point"]] = _point(path, where, values)
    return found


def _point(path: Path, where: str, values: object) -> list[float]:
    try:
        numbers = [float(value) for value in values]  # pyright: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (2, 3) or (len(numbers) == 3 and numbers[2] not in (1, 2)):
        raise DataError(f"{path}, {where}: expected x, y and optionally 1 (hidden) or 2 (visible)")
    return numbers

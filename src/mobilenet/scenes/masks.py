"""A folder of pictures and a folder of PNG masks of class indices, of the same names.

`images/` and `masks/`, with train, val and test below or above them; `classes.txt` with a class a
line, or `classes.json` with a list or with {"name": index}. Index 0 is the background, which may be
named first as such, 255 is void.
"""

import json
from pathlib import Path

from ..data.folders import PICTURES
from ..data.listing import SPLIT_NAMES, sort_naturally
from ..errors import DataError
from ..preprocess import ImageError
from ..progress import track
from .marks import Defects, Found, build, read_text, shown_size
from .scene import VOID, Scene, check_mask

_BACKGROUND = frozenset({"background", "_background_", "__background__"})


def is_masks(root: Path) -> bool:
    return any((root / part / "masks").is_dir() for part in (".", "train", "training"))


def list_masks(root: Path, defects: Defects) -> Found:
    """Read pictures and masks. A picture without a mask, a mask without a picture and indices
    that name no class go to `defects`."""
    classes = _classes(root)
    splits: dict[str, list[Scene]] = {}
    for split, (images, masks) in _folders(root).items():
        pictures = {_stem(path, images): path for path in _files(images, PICTURES)}
        drawn = {_stem(path, masks): path for path in _files(masks, frozenset({".png"}))}
        for name in drawn.keys() - pictures.keys():
            defects.add(drawn[name], f"no picture {images / name}.* for it; remove it")
        splits[split] = []
        for name in track(sort_naturally(pictures), total=len(pictures), desc=f"masks {split}"):
            image, mask = pictures[name], drawn.get(name)
            if mask is None:
                defects.add(image, f"no mask {masks / name}.png; draw it, all 0 where it is empty")
                continue
            try:
                width, height, _ = shown_size(image)
                check_mask(mask, width, height, len(classes))
            except ImageError as error:
                defects.add(error.name or image, error.reason)
                continue
            except DataError as error:
                defects.listed.append(str(error))
                continue
            splits[split].append(build(image, (width, height), [], defects, mask=mask))
    return Found(kind="masks", classes=classes, splits=splits)


def _classes(root: Path) -> tuple[str, ...]:
    if (root / "classes.txt").is_file():
        names = [line.strip() for line in read_text(root / "classes.txt").splitlines()]
        names = [name for name in names if name]
    elif (root / "classes.json").is_file():
        names = _json_names(root / "classes.json")
    else:
        raise DataError(f"{root}: no names of the classes; expected classes.txt, a class a line")
    if names and names[0].lower() in _BACKGROUND:
        names = names[1:]
    if not names or len(set(names)) < len(names) or len(names) >= VOID:
        raise DataError(f"{root}: expected 1 to 254 classes, each once, found {names[:10]}")
    return tuple(names)


def _json_names(path: Path) -> list[str]:
    try:
        given = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    if isinstance(given, dict) and all(isinstance(value, int) for value in given.values()):
        by_index = {index: str(name) for name, index in given.items() if index != VOID}
        first = 0 if 0 in by_index else 1
        if sorted(by_index) == list(range(first, first + len(by_index))):
            return [by_index[index] for index in sorted(by_index)]
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return given
    raise DataError(f'{path}: expected ["cat", "dog"], or {{"cat": 1, "dog": 2}} without gaps')


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """(pictures, masks) of each split."""
    found: dict[str, tuple[Path, Path]] = {}
    for name, split in SPLIT_NAMES.items():
        for images, masks in (
            (root / "images" / name, root / "masks" / name),
            (root / name / "images", root / name / "masks"),
        ):
            if masks.is_dir() and images.is_dir():
                if split in found:
                    raise DataError(f"{root}: two folders are the {split} split; keep one of them")
                found[split] = (images, masks)
    if found:
        return found
    if not (root / "images").is_dir():
        raise DataError(f"{root}: masks, but no folder images beside them")
    return {"all": (root / "images", root / "masks")}


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    paths = [path for path in folder.rglob("*") if path.suffix.lower() in suffixes]
    return [path for path in paths if not path.name.startswith(".")]


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()

"""A folder of class folders, with or without train, val and test above them."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .listing import SPLIT_NAMES, Item, Listing, class_name, sort_naturally
from .splits import IgnoredFile

PICTURES = frozenset(
    {".avif", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
# What people keep beside their pictures. Anything else in a class folder counts as a picture, so
# that one of another kind (.heic) is reported as unreadable and never silently missing.
_BESIDE = frozenset(
    {".cfg", ".csv", ".db", ".html", ".ini", ".ipynb", ".json", ".jsonl", ".lnk", ".log", ".md"}
    | {".parquet", ".py", ".toml", ".tsv", ".txt", ".url", ".xml", ".yaml", ".yml"}
)
_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "icon\r"})

_Identity = tuple[int, int]  # device and inode


def list_folder(root: Path) -> Listing:
    """List a folder of class folders. Raises DataError where it is none, saying what is missing."""
    folders = _entries(root)[0]
    parts = _split_folders(folders) or {root: "all"}
    splits: dict[str, list[Item]] = {}
    counts: Counter[str] = Counter()
    ignored: list[IgnoredFile] = []
    for folder, split in parts.items():
        if split in splits:
            raise DataError(f"{root}: two folders are the {split} split; keep one of them")
        splits[split] = []
        class_folders, files = _entries(folder)
        for class_folder in class_folders:
            items, beside = _list_class(class_folder, (_identity(root), _identity(folder)))
            counts[class_name(class_folder.name)] += len(items)
            splits[split] += items
            ignored += beside
        loose = [path for path in files if path.suffix.lower() in PICTURES]
        if loose and not splits[split]:
            raise DataError(
                f"{folder}: pictures ({len(loose)}), but none in class folders; {_wanted(folder)}"
            )
        ignored += [IgnoredFile(path=str(p), reason="outside the class folders") for p in loose]
    if not any(splits.values()):
        names = [folder.name for folder in folders[:5]]
        raise DataError(f"{root}: no pictures in its folders {names}; {_wanted(root)}")
    ignored += [
        IgnoredFile(path=str(folder), reason="not the folder of a split")
        for folder in folders
        if root not in parts and folder not in parts
    ]
    empty = sort_naturally(name for name, count in counts.items() if not count)
    return Listing(kind="folder", splits=splits, empty_classes=empty, ignored=ignored)


def _split_folders(folders: list[Path]) -> dict[Path, str]:
    """The folders that are splits; none where they are classes.

    "train" may be a class, of trains: a split holds folders, a class holds pictures.
    """
    named = {folder: SPLIT_NAMES.get(folder.name.lower()) for folder in folders}
    parts = {folder: split for folder, split in named.items() if split is not None}
    train = [folder for folder, split in parts.items() if split == "train"]
    if len(parts) == len(folders) or any(_entries(folder)[0] for folder in train):
        return parts
    return {}


def _list_class(folder: Path, above: tuple[_Identity, ...]) -> tuple[list[Item], list[IgnoredFile]]:
    label = class_name(folder.name)
    items: list[Item] = []
    beside: list[IgnoredFile] = []
    for path in _walk(folder, above):
        suffix = path.suffix.lower()
        if suffix in _BESIDE:
            beside.append(IgnoredFile(path=str(path), reason=f"not a picture ({suffix})"))
        else:
            within = path.relative_to(folder).as_posix()
            items.append(Item(str(path), label, class_name(f"{label}/{within}")))
    return items, beside


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """(folders, all else) in a folder, by name, without hidden files and systems' junk."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not entry.name.startswith(".") and entry.name.lower() not in _JUNK:
                (folders if _is_folder(entry) else files).append(Path(entry.path))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reading it says so
        return False


def _walk(folder: Path, above: tuple[_Identity, ...]) -> Iterator[Path]:
    """Every file at any depth; links to folders are followed, unless back to one above."""
    here = _identity(folder)
    if here in above:
        return
    folders, files = _entries(folder)
    yield from files
    for inner in folders:
        yield from _walk(inner, (*above, here))


def _identity(folder: Path) -> _Identity:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _wanted(folder: Path) -> str:
    return (
        "expected a folder for each class with its pictures inside, such as "
        f"{folder / 'cat' / '1.jpg'}, or a CSV manifest with the columns path and label"
    )

"""Opening a dataset: which kind it is, and how its pictures are split."""

from pathlib import Path

from ..errors import DataError, UsageError
from . import fashion_mnist
from .folders import PICTURES, list_folder
from .listing import Item, Listing, sort_naturally
from .manifest import list_manifest
from .splits import SPLITS, Dataset, FileSplit, Split, choose, hold_out

_MANIFESTS = (".csv", ".tsv", ".parquet", ".pq")
_ARCHIVES = (".zip", ".tgz", ".gz", ".7z", ".rar", ".xz", ".bz2")
_EXPECTED = (
    "expected a folder of class folders (with or without train, val and test above them), a CSV or "
    f"Parquet manifest, or the known name {fashion_mnist.NAME!r}"
)


def open_dataset(
    source: str | Path, *, seed: int = 0, val_fraction: float = 0.1, limit: int | None = None
) -> Dataset:
    """Find out what kind of dataset `source` is, and list and split it; no picture is read.

    A dataset without a val split has `val_fraction` of each class held out of train, at least one
    picture where there are two; 0 holds out none. `limit` keeps so many pictures of every split,
    in the classes' proportions. Both choices are functions of (seed, class, file name).
    Raises DataError where there is no dataset that classification can use, saying what to do.
    """
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction {val_fraction}: expected a share from 0 to below 1")
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: expected at least one picture")
    path = Path(source).expanduser()
    if path.exists():
        if path.is_dir() and fashion_mnist.is_idx_folder(path):
            return _fashion_mnist(path, str(source), seed, val_fraction, limit)
        return _listed(_list(path), str(source), seed, val_fraction, limit)
    if str(source) == fashion_mnist.NAME:
        found = fashion_mnist.find_or_fetch()
        return _fashion_mnist(found, str(source), seed, val_fraction, limit)
    raise DataError(f"{source}: no such file or folder; {_EXPECTED}")


def _list(path: Path) -> Listing:
    suffix = path.suffix.lower()
    if path.is_dir():
        _refuse_other_tasks(path)
        return list_folder(path)
    if suffix in _MANIFESTS:
        return list_manifest(path)
    if suffix == ".json":
        raise DataError(_other_task(path, "COCO JSON"))
    if suffix == ".tar":
        raise DataError(f"{path}: WebDataset shards cannot be read; unpack them into class folders")
    if suffix in _ARCHIVES:
        raise DataError(f"{path}: an archive; unpack it first")
    if suffix in PICTURES:
        raise DataError(f"{path}: a single picture; {_EXPECTED}")
    raise DataError(f"{path}: not a kind of dataset that is known; {_EXPECTED}")


def _refuse_other_tasks(root: Path) -> None:
    """Raise DataError where a folder is laid out for detection or segmentation, or in shards."""
    try:
        names = {path.name.lower(): path for path in root.iterdir()}
    except OSError as error:
        raise DataError(f"{root}: cannot be listed: {error.strerror or error}") from error
    folders = {name for name, path in names.items() if path.is_dir()}
    if {"annotations", "jpegimages"} <= folders:
        raise DataError(_other_task(root, "Pascal VOC"))
    if "annotations" in folders and any(names["annotations"].glob("*.json")):
        raise DataError(_other_task(root, "COCO"))
    if {"images", "labels"} <= folders and any(names["labels"].rglob("*.txt")):
        raise DataError(_other_task(root, "YOLO"))
    if not folders and any(name.endswith(".tar") for name in names):
        raise DataError(f"{root}: WebDataset shards cannot be read; unpack them into class folders")


def _other_task(path: Path, kind: str) -> str:
    return (
        f"{path}: looks like {kind}, for detection or segmentation; only classification is there. "
        f"For it, {_EXPECTED}"
    )


def _listed(
    listing: Listing, source: str, seed: int, val_fraction: float, limit: int | None
) -> Dataset:
    classes = sort_naturally({item.label for part in listing.splits.values() for item in part})
    place = {name: label for label, name in enumerate(classes)}
    parts: dict[str, tuple[Split, list[str]]] = {}
    for name, items in listing.splits.items():
        if items:
            split = "train" if name == "all" else name
            parts[split] = (_files(items, place), [item.key for item in items])
    splits, notes = _finish(parts, seed, val_fraction, limit)
    return Dataset(
        kind=listing.kind,
        source=source,
        classes=tuple(classes),
        splits=splits,
        notes=tuple(notes),
        empty_classes=tuple(listing.empty_classes),
        ignored=tuple(listing.ignored),
    )


def _files(items: list[Item], place: dict[str, int]) -> FileSplit:
    return FileSplit([item.path for item in items], [place[item.label] for item in items])


def _fashion_mnist(
    folder: Path, source: str, seed: int, val_fraction: float, limit: int | None
) -> Dataset:
    parts: dict[str, tuple[Split, list[str]]] = {
        name: (split, [str(row) for row in range(len(split))])
        for name, split in fashion_mnist.read_fashion_mnist(folder).items()
    }
    splits, notes = _finish(parts, seed, val_fraction, limit)
    return Dataset(
        kind=fashion_mnist.NAME,
        source=source,
        classes=fashion_mnist.CLASSES,
        splits=splits,
        notes=(f"read from {folder}", *notes),
    )


def _finish(
    parts: dict[str, tuple[Split, list[str]]], seed: int, val_fraction: float, limit: int | None
) -> tuple[dict[str, Split], list[str]]:
    """Hold out val where there is none, then keep no more than `limit` of each split.

    `parts`: each split with its pictures' keys.
    """
    notes: list[str] = []
    if "val" not in parts and "train" in parts and val_fraction:
        split, keys = parts["train"]
        kept, held = hold_out(split.labels, keys, fraction=val_fraction, seed=seed)
        if len(held):
            notes.append(f"val: {len(held)} of {len(split)} pictures, held out of train")
            for name, rows in (("train", kept), ("val", held)):
                parts[name] = (split.subset(rows), [keys[row] for row in rows])
    splits: dict[str, Split] = {}
    for name in SPLITS:
        if name in parts:
            split, keys = parts[name]
            if limit is not None and limit < len(split):
                notes.append(f"{name}: limited to {limit} of {len(split)} pictures")
                rows = choose(split.labels, keys, limit=limit, seed=seed)
                split = split.subset(rows)
            splits[name] = split
    return splits, notes

"""Looking at every picture of a dataset before any is trained on."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

import numpy as np

from ..errors import DataError
from ..preprocess import ImageError, decode, open_image, orientation
from ..progress import track
from .reader import in_order
from .splits import ArraySplit, Dataset, FileSplit, IgnoredFile, Split

SMALL = 32  # pixels of the shorter side; no network takes less
LONG = 4.0  # longer side / shorter side; the centre crop then drops most of the picture
_LISTED = 20


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """A picture that cannot be decoded, and why."""

    path: str
    split: str
    index: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One of several files with the same content."""

    path: str
    split: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Files with the same content. "labels": under different classes; "splits": one class, but in
    several splits, so that the numbers measured on one are too good."""

    conflict: Literal["labels", "splits"]
    copies: tuple[Copy, ...]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Widths and heights in pixels, as stored. `small`: pictures whose shorter side is below 32;
    `long`: those more than four times as long as wide."""

    min_width: int
    median_width: float
    max_width: int
    min_height: int
    median_height: float
    max_height: int
    small: int
    long: int


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """What a dataset holds. `counts`: pictures by split and class. `modes` and `formats` are
    Pillow's names; `rotated` counts pictures that their EXIF turns, `animated` those of which only
    the first frame is taken. `imbalance`: the largest class of train over the smallest that has
    any. `missing`: classes without a picture, by split. `repeated`: further copies of a picture
    in its own split and class."""

    kind: str
    source: str
    classes: tuple[str, ...]
    images: int
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    ignored: tuple[IgnoredFile, ...]
    duplicates: tuple[Duplicate, ...]
    repeated: int
    modes: dict[str, int]
    formats: dict[str, int]
    rotated: int
    animated: int
    sizes: Sizes | None
    imbalance: float
    empty_classes: tuple[str, ...]
    missing: dict[str, tuple[str, ...]]

    def refuse_unreadable(self) -> None:
        """Raise DataError naming the pictures that cannot be read, where there are any."""
        if self.unreadable:
            named = [f"  {bad.path}: {bad.reason}" for bad in self.unreadable[:_LISTED]]
            more = len(self.unreadable) - len(named)
            raise DataError(
                f"{self.source}: {len(self.unreadable)} of {self.images} pictures cannot be read; "
                "mend or remove them, or leave them out with --skip-bad\n"
                + "\n".join(named)
                + (f"\n  and {more} more (mobilenet doctor lists all)" if more else "")
            )


@dataclass(frozen=True, slots=True)
class _Seen:
    """One picture: `reason` where it is unreadable, else what it is."""

    digest: bytes | None = None
    reason: str | None = None
    mode: str = ""
    format: str = ""
    size: tuple[int, int] = (0, 0)
    rotated: bool = False
    animated: bool = False


def scan(dataset: Dataset, *, workers: int = 2) -> ScanReport:
    """Read, hash and decode every picture of every split, by `workers` threads."""
    seen: dict[str, list[_Seen]] = {}
    for name, split in dataset.splits.items():
        looks = in_order(
            lambda index, split=split: _look(split, index),
            range(len(split)),
            workers=workers if isinstance(split, FileSplit) else 0,
            ahead=8 * max(workers, 1),
        )
        seen[name] = list(track(looks, total=len(split), desc=f"checking {name}"))
    every = [look for looks in seen.values() for look in looks]
    good = [look for look in every if look.reason is None]
    duplicates, repeated = _duplicates(dataset, seen)
    counts = {name: split.counts(dataset.classes) for name, split in dataset.splits.items()}
    largest = [count for count in counts.get("train", {}).values() if count]
    return ScanReport(
        kind=dataset.kind,
        source=dataset.source,
        classes=dataset.classes,
        images=len(every),
        counts=counts,
        notes=dataset.notes,
        unreadable=tuple(
            Unreadable(
                path=dataset.splits[name].name(index), split=name, index=index, reason=look.reason
            )
            for name, looks in seen.items()
            for index, look in enumerate(looks)
            if look.reason is not None
        ),
        ignored=dataset.ignored,
        duplicates=duplicates,
        repeated=repeated,
        modes=_tally(look.mode for look in good),
        formats=_tally(look.format for look in good),
        rotated=sum(look.rotated for look in good),
        animated=sum(look.animated for look in good),
        sizes=_sizes([look.size for look in good]),
        imbalance=max(largest) / min(largest) if largest else 1.0,
        empty_classes=dataset.empty_classes,
        missing={
            name: tuple(label for label, count in by_class.items() if not count)
            for name, by_class in counts.items()
            if not all(by_class.values())
        },
    )


def without_bad(dataset: Dataset, report: ScanReport) -> Dataset:
    """The dataset without the pictures that its report lists as unreadable.

    The others stay in their splits. A class that no picture of train is left of is left out of
    all splits, as an empty folder is, and noted. Raises DataError where a split is left empty.
    """
    bad: dict[str, list[int]] = defaultdict(list)
    for unreadable in report.unreadable:
        bad[unreadable.split].append(unreadable.index)
    splits = {
        name: split.subset(np.setdiff1d(np.arange(len(split)), bad[name]))
        for name, split in dataset.splits.items()
    }
    lost: tuple[str, ...] = ()
    if "train" in splits:
        before, after = (set(part["train"].labels.tolist()) for part in (dataset.splits, splits))
        gone = sorted(before - after)
        lost = tuple(dataset.classes[label] for label in gone)
        new = np.cumsum(~np.isin(np.arange(len(dataset.classes)), gone)) - 1
        for name, split in splits.items():
            splits[name] = split.subset(np.flatnonzero(~np.isin(split.labels, gone)))
            splits[name].labels = new[splits[name].labels]
    for name, split in splits.items():
        if not len(split):
            raise DataError(f"{dataset.source}: none of the pictures of split {name} can be read")
    return replace(
        dataset,
        classes=tuple(label for label in dataset.classes if label not in lost),
        splits=splits,
        notes=(*dataset.notes, *(f"class {name}: left out, no picture to read" for name in lost)),
        empty_classes=(*dataset.empty_classes, *lost),
    )


def _look(split: Split, index: int) -> _Seen:
    try:
        content = split.content(index)
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if isinstance(split, ArraySplit):
            height, width = split.images.shape[1:3]
            mode = "L" if split.images.ndim == 3 else "RGB"
            return _Seen(digest=digest, mode=mode, format="array", size=(width, height))
        name = split.name(index)
        header = open_image(content, name)
        mode, size = header.mode, header.size
        if header.has_transparency_data and "A" not in mode.upper():
            mode += " with transparency"
        decode(header, name=name)
        return _Seen(
            digest=digest,
            mode=mode,
            format=header.format or "",
            size=size,
            rotated=orientation(header) != 1,
            animated=header.format != "MPO" and _is_animated(header),
        )
    except ImageError as error:
        return _Seen(reason=error.reason)


def _is_animated(image: object) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the frames behind the first may be damaged; they are not used
        return False


def _duplicates(
    dataset: Dataset, seen: dict[str, list[_Seen]]
) -> tuple[tuple[Duplicate, ...], int]:
    """Groups that conflict, and how many harmless repeats there are."""
    groups: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    for name, looks in seen.items():
        for index, look in enumerate(looks):
            if look.digest is not None:
                groups[look.digest].append((name, index))
    conflicts: list[Duplicate] = []
    repeated = 0
    for group in groups.values():
        if len(group) == 1:
            continue
        copies = tuple(_copy(dataset, name, index) for name, index in group)
        repeated += len(copies) - len({(copy.split, copy.label) for copy in copies})
        if len({copy.label for copy in copies}) > 1:
            conflicts.append(Duplicate(conflict="labels", copies=copies))
        elif len({copy.split for copy in copies}) > 1:
            conflicts.append(Duplicate(conflict="splits", copies=copies))
    return tuple(conflicts), repeated


def _copy(dataset: Dataset, name: str, index: int) -> Copy:
    split = dataset.splits[name]
    label = dataset.classes[split.labels[index]]
    return Copy(path=split.name(index), split=name, label=label)


def _tally(names: Iterable[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())


def _sizes(sizes: list[tuple[int, int]]) -> Sizes | None:
    if not sizes:
        return None
    widths, heights = zip(*sizes, strict=True)
    return Sizes(
        min_width=min(widths),
        median_width=median(widths),
        max_width=max(widths),
        min_height=min(heights),
        median_height=median(heights),
        max_height=max(heights),
        small=sum(min(size) < SMALL for size in sizes),
        long=sum(max(size) > LONG * min(size) for size in sizes),
    )

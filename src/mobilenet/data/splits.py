"""What a dataset is: classes, and splits of labelled pictures that are read one at a time."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..preprocess import decode, read_file
from .picture import Picture

SPLITS = ("train", "val", "test")


class Split(ABC):
    """Labelled pictures in a fixed order. `labels`: int64 (N,), positions in `Dataset.classes`."""

    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self, classes: Sequence[str]) -> dict[str, int]:
        """Pictures by class."""
        counted = np.bincount(self.labels, minlength=len(classes)).tolist()
        return dict(zip(classes, counted, strict=True))

    @abstractmethod
    def name(self, index: int) -> str:
        """The picture's path, or its place in an array."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """The decoded picture, mode RGB, exactly as the contract says. Raises ImageError."""

    @abstractmethod
    def picture(self, index: int) -> Picture:
        """The picture for a training transform, decoded when cropped. Raises ImageError."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """What the picture is stored as, to tell exact duplicates. Raises ImageError."""

    @abstractmethod
    def subset(self, indices: Sequence[int] | np.ndarray) -> "Split":
        """The pictures at these positions, in this order."""


class FileSplit(Split):
    """Pictures in files."""

    def __init__(self, paths: Sequence[str], labels: Sequence[int] | np.ndarray) -> None:
        self.paths = tuple(paths)
        self.labels = np.asarray(labels, np.int64)
        assert len(self.paths) == len(self.labels)

    def name(self, index: int) -> str:
        return self.paths[index]

    def read(self, index: int) -> Image.Image:
        return decode(self.content(index), name=self.paths[index])

    def picture(self, index: int) -> Picture:
        return Picture(self.content(index), self.paths[index])

    def content(self, index: int) -> bytes:
        return read_file(self.paths[index])

    def subset(self, indices: Sequence[int] | np.ndarray) -> "FileSplit":
        return FileSplit([self.paths[index] for index in indices], self.labels[indices])


class ArraySplit(Split):
    """Pictures in one array in memory, uint8 (M, H, W) or (M, H, W, 3).

    `rows`: which of them are in this split, and in which order; the array is shared, not copied.
    """

    def __init__(
        self, source: str, images: np.ndarray, labels: np.ndarray, rows: np.ndarray | None = None
    ) -> None:
        self.source = source
        self.images = images
        self.rows = np.arange(len(images)) if rows is None else np.asarray(rows, np.int64)
        self.labels = np.asarray(labels, np.int64)
        assert len(self.rows) == len(self.labels)

    def name(self, index: int) -> str:
        return f"{self.source}[{self.rows[index]}]"

    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[self.rows[index]]).convert("RGB")

    def picture(self, index: int) -> Picture:
        return Picture.from_image(self.read(index))

    def content(self, index: int) -> bytes:
        return self.images[self.rows[index]].tobytes()

    def subset(self, indices: Sequence[int] | np.ndarray) -> "ArraySplit":
        indices = np.asarray(indices, np.int64)
        return ArraySplit(self.source, self.images, self.labels[indices], self.rows[indices])


@dataclass(frozen=True, kw_only=True)
class IgnoredFile:
    """A file in the dataset's folder that is not taken for a picture, and why."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Classes in label order, and the splits there are: of "train", "val" and "test".

    `kind`: "folder", "csv", "parquet" or "fashion-mnist". `notes`: what was decided on opening,
    in words. `empty_classes`: class folders without a picture; they are not classes.
    """

    kind: str
    source: str
    classes: tuple[str, ...]
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()
    empty_classes: tuple[str, ...] = ()
    ignored: tuple[IgnoredFile, ...] = ()


def hold_out(
    labels: np.ndarray, keys: Sequence[str], *, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (kept, held out), stratified: in each class the nearest to `fraction`, at least
    one held out where there are two, and always at least one kept.

    Which ones is a function of (seed, key) alone, so that adding pictures moves no more of the
    others than the class's new count asks for.
    """
    held = np.zeros(len(labels), bool)
    for members in _by_class(labels, keys, f"hold out\0{seed}"):
        count = min(max(round(fraction * len(members)), 1), len(members) - 1) if fraction else 0
        held[members[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def choose(labels: np.ndarray, keys: Sequence[str], *, limit: int, seed: int) -> np.ndarray:
    """Positions of `limit` pictures, each class in proportion (largest remainders), in order.

    Which ones is a function of (seed, key), as in `hold_out`.
    """
    if limit >= len(labels):
        return np.arange(len(labels))
    classes = _by_class(labels, keys, f"limit\0{seed}")
    shares = np.array([len(members) for members in classes]) * limit / len(labels)
    quotas = np.floor(shares).astype(int)
    largest = np.argsort(quotas - shares, kind="stable")
    quotas[largest[: limit - quotas.sum()]] += 1
    chosen = [members[:quota] for members, quota in zip(classes, quotas, strict=True)]
    return np.sort(np.concatenate(chosen))


def _by_class(labels: np.ndarray, keys: Sequence[str], salt: str) -> list[np.ndarray]:
    """The positions of each class, in the order of a hash of (salt, key)."""
    start = hashlib.blake2b(f"{salt}\0".encode(), digest_size=8)
    hashes = np.empty(len(keys), np.uint64)
    for position, key in enumerate(keys):
        state = start.copy()
        state.update(key.encode("utf-8", "surrogateescape"))
        hashes[position] = int.from_bytes(state.digest(), "little")
    order = np.lexsort((hashes, labels))
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(order) else []

"""What every kind of dataset on disk is listed as, before it is split: labelled file names."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from .splits import IgnoredFile

# Common names of the splits, in lower case
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class Item:
    """One picture. `key` names it within the dataset, the same wherever that is copied to."""

    path: str
    label: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The pictures of a dataset. `splits`: those that it names; else all under "all"."""

    kind: str
    splits: dict[str, list[Item]]
    empty_classes: list[str] = field(default_factory=list)
    ignored: list[IgnoredFile] = field(default_factory=list)


def class_name(text: str) -> str:
    """A class's name, composed: the same on disks that store accents apart (macOS)."""
    return unicodedata.normalize("NFC", text)


def sort_naturally(names: Iterable[str]) -> list[str]:
    """Sorted with numbers by value and letters regardless of case: cat2 before cat10."""

    def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"(\d+)", name.casefold())
        return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p], name

    return sorted(names, key=key)

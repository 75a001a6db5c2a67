"""FlatBuffers' tables, read where they lie and never outside the file.

https://flatbuffers.dev/internals: a table starts with the distance back to its vtable, which says
where each field is; strings, vectors and tables are stored as distances forward.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

_POINTER = "<I"


class FlatbufferError(ValueError):
    """A distance or a length that leads out of the file."""


@dataclass(frozen=True)
class Table:
    """A table at a place of a file; fields are told by their number in the schema."""

    data: bytes
    at: int

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A number of a `struct` kind, such as "i"."""
        place = self._place(field)
        return default if place is None else _read(self.data, f"<{kind}", place)

    def table(self, field: int) -> "Table | None":
        """A table, None where there is none."""
        place = self._place(field)
        return None if place is None else Table(self.data, _follow(self.data, place))

    def tables(self, field: int) -> "tuple[Table, ...]":
        """A vector of tables."""
        start, length = self._vector(field, 4)
        places = range(start, start + 4 * length, 4)
        return tuple(Table(self.data, _follow(self.data, place)) for place in places)

    def numbers(self, field: int, kind: Any) -> np.ndarray:
        """A vector of numbers of a NumPy type, not copied."""
        size = np.dtype(kind).itemsize
        start, length = self._vector(field, size)
        return np.frombuffer(self.data, kind, count=length, offset=start)

    def text(self, field: int) -> str:
        """A string; "" where there is none."""
        return bytes(self.numbers(field, np.uint8)).decode("utf-8", errors="replace")

    def _place(self, field: int) -> int | None:
        vtable = self.at - _read(self.data, "<i", self.at)
        entry = 4 + 2 * field
        if entry + 2 > _read(self.data, "<H", vtable):
            return None
        distance = _read(self.data, "<H", vtable + entry)
        return self.at + distance if distance else None

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Where a vector's elements start, and how many there are."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = _follow(self.data, place)
        length = _read(self.data, _POINTER, start)
        if start + 4 + size * length > len(self.data):
            raise FlatbufferError(f"a vector of {length} elements at byte {start} is cut short")
        return start + 4, length


def root(data: bytes) -> Table:
    """The table that a file is."""
    return Table(data, _follow(data, 0))


def _follow(data: bytes, place: int) -> int:
    return place + _read(data, _POINTER, place)


def _read(data: bytes, kind: str, place: int) -> int:
    if not 0 <= place <= len(data) - struct.calcsize(kind):
        raise FlatbufferError(f"byte {place} is outside the file")
    return struct.unpack_from(kind, data, place)[0]

"""Reading what may be damaged, of another version or hostile: every fault is a CheckpointError."""

import json
import math
import re
import stat
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NoReturn

from ..errors import CheckpointError

_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DEPTH = 100  # far from Python's own limit, which differs with what is done to the data


def read_file(path: Path, *, limit: int) -> bytes:
    """The bytes of an ordinary file of at most `limit` bytes. Raises CheckpointError for anything
    else."""
    try:
        size = _checked_size(path, limit)
        with path.open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise _unreadable(path, error) from None


def map_file(path: Path, *, limit: int) -> mmap:
    """The same bytes, mapped: they are read as they are needed, and processes share them."""
    try:
        if _checked_size(path, limit) == 0:
            raise CheckpointError(f"{path}: the file is empty (0 bytes)")
        with path.open("rb") as file:
            return mmap(file.fileno(), 0, access=ACCESS_READ)
    except OSError as error:
        raise _unreadable(path, error) from None


def _checked_size(path: Path, limit: int) -> int:
    """A link could lead out of the folder, a pipe would never end."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{path}: a link, folder or device; put the file itself in its place")
    if status.st_size > limit:
        raise CheckpointError(
            f"{path}: {status.st_size} bytes, expected at most {limit}: not the file it should be"
        )
    return status.st_size


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    return CheckpointError(f"{path}: cannot be read: {error.strerror or error}")


def parse_json(data: bytes, file: Path) -> "Section":
    """The JSON object that `data`, read from `file`, holds. Raises CheckpointError."""
    try:
        parsed = json.loads(data.decode(), parse_constant=_refuse, parse_float=_finite)
        _check_depth(parsed)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: damaged or no JSON: {error}") from None
    if type(parsed) is not dict:
        raise CheckpointError(f"{file}: expected a JSON object, found {_name(type(parsed))}")
    return Section(file=file, name="", data=parsed)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _check_depth(parsed: Any) -> None:
    level = [parsed]
    for _ in range(_DEPTH):
        parts = [list(p.values()) if isinstance(p, dict) else p for p in level]
        level = [part for p in parts if isinstance(p, list) for part in p]
    if level:
        raise ValueError(f"nested more than {_DEPTH} deep")


def _name(kind: type) -> str:
    return _JSON_NAMES[kind]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A JSON object of `file`, read field by field; every error names the file and the field."""

    file: Path
    name: str
    data: dict[str, Any]

    def take(self, field: str, *kinds: type) -> Any:
        """The value of `field`, which has exactly one of the types `kinds` (true is no integer)."""
        if field not in self.data:
            raise self.error(field, "is missing")
        value = self.data[field]
        if type(value) not in kinds:
            expected = " or ".join(_name(kind) for kind in kinds)
            raise self.error(field, f"expected {expected}, found {_name(type(value))}")
        return value

    def section(self, field: str) -> "Section":
        """The object under `field`."""
        return Section(file=self.file, name=self._path(field), data=self.take(field, dict))

    def take_sha256(self, field: str) -> str:
        """The 64 lower-case hexadecimal digits under `field`."""
        value = self.take(field, str)
        if not _SHA256.fullmatch(value):
            raise self.error(field, "expected the 64 digits of a sha256")
        return value

    def error(self, field: str, problem: str) -> CheckpointError:
        """What to raise about `field`; a hostile file's values are cut short."""
        return CheckpointError(f"{self.file}: field {self._path(field)[:100]!r}: {problem[:300]}")

    def _path(self, field: str) -> str:
        return f"{self.name}.{field}" if self.name else field

"""The engine's model file, written and read."""

from .checksum import checksum, file_checksum, xxh64
from .layouts import from_bfloat16, to_bfloat16
from .read import read_engine
from .records import UNSUPPORTED_RESIZE, Card, EngineFile
from .write import write_engine

__all__ = [
    "UNSUPPORTED_RESIZE",
    "Card",
    "EngineFile",
    "checksum",
    "file_checksum",
    "from_bfloat16",
    "read_engine",
    "to_bfloat16",
    "write_engine",
    "xxh64",
]

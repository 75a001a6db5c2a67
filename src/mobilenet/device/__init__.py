"""Another device: a small static program, a model and pictures are pushed there and run there, and
the answers pulled back. Names are imported when they are first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .connection import Connection, DeviceError, connect
    from .remote import DeviceReport, Remote, open_remote

__all__ = ["Connection", "DeviceError", "DeviceReport", "Remote", "connect", "open_remote"]

_OF_CONNECTION = ("Connection", "DeviceError", "connect")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "connection" if name in _OF_CONNECTION else "remote"
    return getattr(import_module(f".{home}", __name__), name)

"""Run an exported model on arrays or pictures. Never imports torch."""

from typing import TYPE_CHECKING, Any

from .artifact import ENGINE_HEADER, ArtifactFile, is_artifact, read_artifact, read_hashed
from .model import Model, Prediction, load, load_scene
from .pack import list_sha256, pack, unpack
from .sessions import (
    FORMATS,
    PINNED,
    RUNTIMES,
    Data,
    Floats,
    Opener,
    Precision,
    Session,
    usable_cores,
)

if TYPE_CHECKING:
    from .machine import Machine, inspect_machine

__all__ = [
    "ENGINE_HEADER",
    "FORMATS",
    "PINNED",
    "RUNTIMES",
    "ArtifactFile",
    "Data",
    "Floats",
    "Machine",
    "Model",
    "Opener",
    "Precision",
    "Prediction",
    "Session",
    "inspect_machine",
    "is_artifact",
    "list_sha256",
    "load",
    "load_scene",
    "pack",
    "read_artifact",
    "read_hashed",
    "unpack",
    "usable_cores",
]


def __getattr__(name: str) -> Any:
    """What a model that only answers does not need."""
    if name not in ("Machine", "inspect_machine"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import machine

    return getattr(machine, name)

"""Run an exported model on arrays or pictures. Never imports torch."""

from .artifact import ArtifactFile, is_artifact, read_artifact, read_hashed
from .machine import Machine, inspect_machine
from .model import Model, Prediction, load
from .sessions import FORMATS, RUNTIMES, Floats, Opener, Precision, Session, usable_cores

__all__ = [
    "FORMATS",
    "RUNTIMES",
    "ArtifactFile",
    "Floats",
    "Machine",
    "Model",
    "Opener",
    "Precision",
    "Prediction",
    "Session",
    "inspect_machine",
    "is_artifact",
    "load",
    "read_artifact",
    "read_hashed",
    "usable_cores",
]

"""Pretrained weights: where they come from, finding, reading and fitting them to a network."""

from .catalogue import CATALOGUE, DEFAULTS, RemoteFile, WeightsEntry, resolve_weights
from .find import find_weights
from .fit import to_torchvision
from .load import Inspection, Pretrained, inspect_weights, load_pretrained
from .read import WeightsFile, detect_kind, read_weights

__all__ = [
    "CATALOGUE",
    "DEFAULTS",
    "Inspection",
    "Pretrained",
    "RemoteFile",
    "WeightsEntry",
    "WeightsFile",
    "detect_kind",
    "find_weights",
    "inspect_weights",
    "load_pretrained",
    "read_weights",
    "resolve_weights",
    "to_torchvision",
]

"""Saving and loading: a run's model (safetensors and model.json) and its training checkpoints.

Names are imported when they are first used: reading an exported folder needs little of this.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import describe_model, read_model_json, write_model_json
    from .model import LoadedModel, LoadedNetwork, load_model, load_network, save_model
    from .state import flatten_state, unflatten_state
    from .store import CheckpointStore, Saved
    from .strict import read_file
    from .tensors import file_sha256, state_sha256

__all__ = [
    "CheckpointStore",
    "LoadedModel",
    "LoadedNetwork",
    "Saved",
    "describe_model",
    "file_sha256",
    "flatten_state",
    "load_model",
    "load_network",
    "read_file",
    "read_model_json",
    "save_model",
    "state_sha256",
    "unflatten_state",
    "write_model_json",
]

_HOMES = {
    "describe_model": "contract",
    "read_model_json": "contract",
    "write_model_json": "contract",
    "LoadedModel": "model",
    "LoadedNetwork": "model",
    "load_model": "model",
    "load_network": "model",
    "save_model": "model",
    "flatten_state": "state",
    "unflatten_state": "state",
    "CheckpointStore": "store",
    "Saved": "store",
    "read_file": "strict",
    "file_sha256": "tensors",
    "state_sha256": "tensors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

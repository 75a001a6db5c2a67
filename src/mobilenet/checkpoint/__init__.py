"""Saving and loading: a run's model (safetensors and model.json) and its training checkpoints."""

from .contract import describe_model, read_model_json, write_model_json
from .model import LoadedModel, load_model, save_model
from .state import flatten_state, unflatten_state
from .store import CheckpointStore, Saved
from .strict import read_file
from .tensors import file_sha256, state_sha256

__all__ = [
    "CheckpointStore",
    "LoadedModel",
    "Saved",
    "describe_model",
    "file_sha256",
    "flatten_state",
    "load_model",
    "read_file",
    "read_model_json",
    "save_model",
    "state_sha256",
    "unflatten_state",
    "write_model_json",
]

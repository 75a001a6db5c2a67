"""Nested state, such as an optimizer's, taken apart into tensors and JSON, and put together again.

In the JSON a list is a list; what JSON lacks is an object with one key that says what it is:
{"dict": [[key, value], ...]}, {"tuple": [...]}, {"float": "inf"}, {"tensor": name},
{"array": name}.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


def flatten_state(state: Any) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """Nested dicts, lists and tuples of tensors, NumPy arrays, numbers, texts and None as
    (tensors by name, JSON object).

    The tensors share memory with those of the state. Raises CheckpointError, naming the place,
    for any other type, also for subclasses, which would come back as something else.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, {"state": _take_apart(state, "", tensors)}


def unflatten_state(tensors: "Mapping[str, Tensor]", scalars: Mapping[str, Any]) -> Any:
    """The inverse of `flatten_state`; ordered dicts come back as dicts.

    Raises CheckpointError for anything that `flatten_state` does not give.
    """
    try:
        return _put_together(scalars["state"], tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"saved state: not as flatten_state writes it ({error!r}): of another version?"
        ) from None


def _take_apart(value: Any, path: str, tensors: "dict[str, Tensor]") -> Any:
    import numpy as np
    import torch

    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if kind is list:
        return [_take_apart(part, f"{path}/{i}", tensors) for i, part in enumerate(value)]
    if kind is tuple:
        return {"tuple": _take_apart(list(value), path, tensors)}
    if kind in (dict, OrderedDict):
        for key in value:
            if key is not None and type(key) not in (bool, int, float, str):
                raise CheckpointError(f"state{path}: a key of type {type(key).__name__}")
        return {
            "dict": [
                [_take_apart(key, path, tensors), _take_apart(part, f"{path}/{key}", tensors)]
                for key, part in value.items()
            ]
        }
    if isinstance(value, torch.Tensor):
        return {"tensor": _add(value.detach(), path, tensors)}
    if kind is np.ndarray and value.dtype.isnative and value.dtype.kind in "biufc":
        return {"array": _add(torch.from_numpy(np.ascontiguousarray(value)), path, tensors)}
    raise CheckpointError(f"state{path}: a value of type {kind.__name__} cannot be saved")


def _add(tensor: "Tensor", path: str, tensors: "dict[str, Tensor]") -> str:
    name = path.removeprefix("/") or "state"
    while name in tensors or name == "__metadata__":  # keys 0 and "0", or a key with a slash
        name += "'"
    tensors[name] = tensor
    return name


def _put_together(value: Any, tensors: "Mapping[str, Tensor]") -> Any:
    if isinstance(value, list):
        return [_put_together(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "float":
            return float(content)
        case "tuple":
            return tuple(_put_together(content, tensors))
        case "dict":
            return {_put_together(k, tensors): _put_together(v, tensors) for k, v in content}
        case "tensor":
            return tensors[content]
        case "array":
            return tensors[content].numpy()
    raise ValueError(kind)

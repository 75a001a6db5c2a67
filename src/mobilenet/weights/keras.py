"""Keras' HDF5 files, read without Keras or TensorFlow.

Two layouts: the one of Keras 1 and 2 (`layer_names` and `weight_names` attributes, also what
Keras 3 writes as .h5) and Keras 3's own (`layers/<class>_<n>/vars/<i>`; inside a .keras archive, or
alone as .weights.h5). Kernels are turned into PyTorch's layouts: HWIO to OIHW, depthwise HWC1 to
C1HW, dense (in, out) to (out, in, 1, 1).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingDependency, WeightsError
from .read import LIMIT

if TYPE_CHECKING:
    from torch import Tensor

_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_NUMBERED = {  # the order of a layer's variables in Keras 3
    "conv2d": ("kernel", "bias"),
    "depthwise_conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": tuple(_NORM),
}
_COUNTED = re.compile(r"(?P<kind>[a-z0-9_]*[a-z]\w*?)(?:_(?P<count>\d+))?")

Variables = Mapping[str, np.ndarray]


def read_keras(source: Path | IO[bytes], path: Path) -> dict[str, "Tensor"]:
    """Every layer's tensors as `<conv|depthwise|norm>:<layer>.<part>`, in the order of the network.

    `path` is the file to name in errors: WeightsError, or MissingDependency without h5py.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependency("h5py", "keras", "reading Keras weights") from None
    import torch

    tensors: dict[str, Tensor] = {}
    try:
        with h5py.File(source, "r") as file:
            for layer, variables in _layers(_Reader(file)):
                for name, array in _as_torch(layer, variables):
                    tensors[name] = torch.from_numpy(np.ascontiguousarray(array))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: cannot be read as Keras weights: {error}") from None
    if not tensors:
        raise WeightsError(
            f"{path}: an HDF5 file without Keras layers at its top (a network nested inside "
            "another is not read: save the inner one)"
        )
    return tensors


class _Reader:
    """Datasets of one file, whose links stay inside it and whose sizes are bounded."""

    def __init__(self, file: Any) -> None:
        self.root = file.get("model_weights", file)  # a whole model saved as .h5
        self.read = 0

    def group(self, *names: str) -> Any:
        """A subgroup; KeyError where it is missing or a link to another file."""
        import h5py

        found = self.root
        for name in "/".join(names).split("/"):
            if not isinstance(found, h5py.Group) or not isinstance(
                found.get(name, getlink=True), h5py.HardLink
            ):
                raise KeyError(f"{'/'.join(names)} is missing")
            found = found[name]
        return found

    def array(self, *names: str) -> np.ndarray:
        """A dataset's values; ValueError for one that is elsewhere or too large."""
        import h5py

        found = self.group(*names)
        if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
            raise ValueError(f"{'/'.join(names)} is not a dataset of this file")
        self.read += found.nbytes
        if self.read > LIMIT:
            raise ValueError("larger than any MobileNet")
        return np.asarray(found[()])


def _layers(reader: _Reader) -> Iterator[tuple[str, Variables]]:
    if "layer_names" in reader.root.attrs:
        yield from _by_attributes(reader)
    elif "layers" in reader.root:
        yield from _by_count(reader)


def _by_attributes(reader: _Reader) -> Iterator[tuple[str, Variables]]:
    """Keras 1 and 2: attributes list the layers, and each layer's variables."""
    for layer in _texts(reader.root.attrs["layer_names"]):
        variables = {}
        for name in _texts(reader.group(layer).attrs["weight_names"]):
            part = name.rpartition("/")[2].partition(":")[0].removeprefix("depthwise_")
            variables[part] = reader.array(layer, name)
        yield layer, variables


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _by_count(reader: _Reader) -> Iterator[tuple[str, Variables]]:
    """Keras 3: layers are counted within their class, in the order of the network."""
    found: list[tuple[str, int, str]] = []
    for name in reader.group("layers"):
        match = _COUNTED.fullmatch(name)
        if match and match["kind"] in _NUMBERED:
            found.append((match["kind"], int(match["count"] or 0), name))
    for kind, _, name in sorted(found):
        group = reader.group("layers", name, "vars")
        title = group.attrs.get("name", name)
        parts = zip(_NUMBERED[kind], sorted(group, key=int), strict=False)
        yield (
            str(title),
            {part: reader.array("layers", name, "vars", index) for part, index in parts},
        )


def _as_torch(layer: str, variables: Variables) -> Iterator[tuple[str, np.ndarray]]:
    if "moving_mean" in variables:
        for part, array in variables.items():
            if part not in _NORM:
                raise ValueError(f"{layer} has a variable {part!r}")
            yield f"norm:{layer}.{_NORM[part]}", array
        return
    for part, array in variables.items():
        if part == "bias":
            yield f"conv:{layer}.bias", array
        elif part == "kernel" and array.ndim == 2:
            yield f"conv:{layer}.weight", array.T[:, :, None, None]
        elif part == "kernel" and array.ndim == 4 and array.shape[0] > 1 == array.shape[3]:
            yield f"depthwise:{layer}.weight", array.transpose(2, 3, 0, 1)
        elif part == "kernel" and array.ndim == 4:
            yield f"conv:{layer}.weight", array.transpose(3, 2, 0, 1)
        else:
            raise ValueError(f"{layer} has a variable {part!r} of shape {array.shape}")

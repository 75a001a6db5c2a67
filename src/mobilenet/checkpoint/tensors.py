"""Tensors to safetensors bytes and back, and the hashes that name them."""

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, MissingDependency

if TYPE_CHECKING:
    from torch import Tensor

# those that safetensors both writes and reads back
# fmt: off
_STORABLE = frozenset((
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "bfloat16", "float32", "float64", "complex64",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
))
# fmt: on


def require_torch(purpose: str) -> None:
    """Raises MissingDependency where torch or safetensors is not installed."""
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingDependency(package, "train", purpose)


def encode_tensors(tensors: "Mapping[str, Tensor]") -> bytes:
    """Safetensors bytes, the same for equal tensors whatever their order, strides or sharing.

    Raises CheckpointError for a tensor that the format cannot hold.
    """
    require_torch("saving weights")
    import torch
    from safetensors import torch as safetensors

    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _STORABLE or tensor.layout != torch.strided or tensor.is_meta:
            raise CheckpointError(
                f"tensor {name!r}: {dtype} {tensor.layout} on {tensor.device} cannot be saved; "
                "convert it to a plain dense type first"
            )
        # a copy of its own: safetensors takes neither strides nor shared memory
        packed[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    if "__metadata__" in packed:
        raise CheckpointError("tensor '__metadata__': the format keeps this name for itself")
    try:
        return safetensors.save(packed)
    except UnicodeEncodeError as error:
        raise CheckpointError(f"tensor {error.object!r}: its name is not valid Unicode") from None


def decode_tensors(data: bytes, file: Path) -> "dict[str, Tensor]":
    """The tensors in safetensors bytes that were read from `file`. Raises CheckpointError."""
    require_torch("loading weights")
    from safetensors import SafetensorError
    from safetensors import torch as safetensors

    try:
        return safetensors.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise CheckpointError(f"{file}: damaged or no safetensors file: {error}") from None


def state_sha256(state: "Mapping[str, Tensor]") -> str:
    """A hash of names, types, shapes and bits: equal exactly where two states are."""
    require_torch("hashing weights")
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        shape = "x".join(map(str, tensor.shape))
        digest.update(f"{len(name)}:{name} {tensor.dtype} {shape}\n".encode())
        bits = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(bits.numpy().data)
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal. Raises OSError."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

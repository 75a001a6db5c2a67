"""An int8 network in a run folder: its whole numbers as safetensors, named in model.json.

The run's own weights stay beside it in float32, to be compared with. What the network is made of
follows from those; the file holds, for every filter, `STEP.NAME.weight` int8, `.scale` float64 and
`.bias` int32, and `ranges.scale` float64, `ranges.zero` and `ranges.largest` int64 in the order of
`places`. A wide network has int16 weights where it is wide.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import LoadedNetwork, load_network, read_file
from ..checkpoint.tensors import decode_tensors, encode_tensors
from ..errors import CheckpointError
from ..networks import network_program
from ..program import Filter, Program
from .scheme import (
    Affine,
    IntegerFilter,
    QuantisedProgram,
    largest_weight,
    places,
    stages,
    weight_type,
    wide_of,
)

if TYPE_CHECKING:
    from torch import Tensor

_LIMIT = 1 << 30  # bytes


def encode_quantised(quantised: QuantisedProgram) -> bytes:
    """The file's bytes."""
    import torch

    tensors: dict[str, Tensor] = {}
    for index, filters in enumerate(quantised.filters):
        for name, filter in filters.items():
            for part in ("weight", "scale", "bias"):
                array = np.ascontiguousarray(getattr(filter, part))
                tensors[f"{index}.{name}.{part}"] = torch.from_numpy(array)
    ranges = [quantised.ranges[place] for place in places(quantised.program)]
    tensors["ranges.scale"] = torch.tensor([r.scale for r in ranges], dtype=torch.float64)
    tensors["ranges.zero"] = torch.tensor([r.zero for r in ranges], dtype=torch.int64)
    tensors["ranges.largest"] = torch.tensor([r.largest for r in ranges], dtype=torch.int64)
    return encode_tensors(tensors)


def load_quantised(folder: str | Path) -> QuantisedProgram:
    """The int8 network of a run folder that `quantize` wrote.

    Raises CheckpointError where there is none, or anything is missing or damaged.
    """
    return quantised_of(Path(folder), load_network(folder))


def quantised_of(folder: Path, loaded: LoadedNetwork) -> QuantisedProgram:
    """The int8 network beside a model that was loaded from `folder`."""
    if loaded.quantised is None:
        raise CheckpointError(f"{folder}: no int8 network there; mobilenet quantize makes one")
    file = folder / loaded.quantised["file"]
    data = read_file(file, limit=_LIMIT)
    found = hashlib.sha256(data).hexdigest()
    if found != loaded.quantised["sha256"]:
        raise CheckpointError(
            f"{file}: its sha256 is {found[:16]}…, but model.json names "
            f"{loaded.quantised['sha256'][:16]}…: damaged; quantize the run again"
        )
    tensors = {name: tensor.numpy() for name, tensor in decode_tensors(data, file).items()}
    try:
        return _decode(network_program(loaded.module()), tensors)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{file}: not of this network: {error}") from None


def _decode(program: Program, tensors: dict[str, np.ndarray]) -> QuantisedProgram:
    wanted = places(program)
    scales, zeros = tensors.pop("ranges.scale"), tensors.pop("ranges.zero")
    most = tensors.pop("ranges.largest")
    if not len(wanted) == len(scales) == len(zeros) == len(most):
        raise ValueError(f"{len(scales)} ranges for {len(wanted)} tensors")
    ranges = {
        place: Affine(scale=float(scale), zero=int(zero), largest=int(largest))
        for place, scale, zero, largest in zip(wanted, scales, zeros, most, strict=True)
    }
    wide = wide_of(ranges)
    steps, filters = [], []
    for index, step in enumerate(program.steps):
        found = {
            stage.name: _filter(
                tensors,
                f"{index}.{stage.name}",
                step.filters[stage.name],
                most=largest_weight(stage.name, stage.source, wide=wide),
            )
            for stage in stages(program, index)
        }
        real = {
            stage.name: found[stage.name].real(ranges[stage.source].scale)
            for stage in stages(program, index)
        }
        filters.append(found)
        steps.append(replace(step, **real))
    if tensors:
        raise ValueError(f"unknown tensors {sorted(tensors)[:3]}")
    return QuantisedProgram(
        program=replace(program, steps=tuple(steps)), filters=tuple(filters), ranges=ranges
    )


def _filter(tensors: dict[str, np.ndarray], name: str, of: Filter, *, most: int) -> IntegerFilter:
    parts: dict[str, Any] = {}
    for part, shape, dtype in (
        ("weight", of.weight.shape, weight_type(most)),
        ("scale", of.bias.shape, np.float64),
        ("bias", of.bias.shape, np.int32),
    ):
        array = tensors.pop(f"{name}.{part}")
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{name}.{part}: {array.dtype} {array.shape}, expected {shape}")
        parts[part] = array
    if not (np.isfinite(parts["scale"]).all() and (parts["scale"] > 0).all()):
        raise ValueError(f"{name}.scale: expected numbers above 0")
    return IntegerFilter(**parts)

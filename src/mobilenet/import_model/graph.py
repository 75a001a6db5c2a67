"""A file's graph boiled down to its convolutions, and the network that they are of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import WeightsError
from ..models import MODELS, ModelSpec, Padding
from ..program import Floats
from ..weights.fit import RULES, WIDTHS
from ..weights.names import NORM, Layer, layers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundNorm:
    """A batch norm behind a convolution, each array (O,)."""

    weight: Floats
    bias: Floats
    running_mean: Floats
    running_var: Floats
    eps: float


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundConv:
    """A convolution or a matrix product of a graph: `weight` (O, I / groups, k, k), `bias` (O,).

    `pads` are the rows of zeros above and below, None where the file says SAME and no numbers.
    """

    name: str
    weight: Floats
    bias: Floats | None
    groups: int
    stride: int
    pads: tuple[int, int] | None
    norm: FoundNorm | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundGraph:
    """What a graph computes: `convs` in their order; the first reads `scale` * image + `offset`,
    each (3,). `size` is None where the file leaves it open."""

    convs: tuple[FoundConv, ...]
    size: int | None
    scale: Floats
    offset: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """The network whose shapes and strides a graph's convolutions have, and its state.

    `folded`: the file has no batch norms, theirs do nothing; `facts` say what was read.
    """

    spec: ModelSpec
    state: "dict[str, Tensor]"
    folded: bool
    facts: tuple[str, ...]


def match(path: Path, graph: FoundGraph) -> Match:
    """Find the network. Raises WeightsError where it is none of these, saying what is nearest."""
    if not graph.convs:
        raise WeightsError(f"{path}: has no convolution: not a MobileNet")
    reasons = []
    for model in MODELS.values():
        reason = _outline_differs(model, graph.convs)
        if reason is not None:
            reasons.append(f"{model.name}: {reason}")
            continue
        for candidate in _scaled(model, graph.convs):
            if _shapes_differ(candidate, graph.convs) is None:
                return _matched(path, candidate, graph)
        reasons.append(f"{model.name}: its channels are of no width multiplier")
    raise WeightsError(
        f"{path}: {len(graph.convs)} convolutions that are of none of the networks here; "
        + "; ".join(reasons)
    )


def _outline_differs(model: ModelSpec, convs: Sequence[FoundConv]) -> str | None:
    """What tells the graph from a network, whatever the width of either; None: nothing."""
    wanted = list(layers(model.network()))
    if len(wanted) != len(convs):
        return f"{len(wanted)} convolutions"
    strides = _strides(model)
    for layer, conv in zip(wanted, convs, strict=True):
        depthwise = layer.name.endswith("depthwise")
        if depthwise != (conv.groups > 1) or layer.weight[2:] != conv.weight.shape[2:]:
            kind = "depthwise " if conv.groups > 1 else ""
            shape = "x".join(map(str, conv.weight.shape[2:]))
            return f"{conv.name!r} is a {kind}{shape} convolution where {layer.name} should be"
        if strides.get(layer.name, 1) != conv.stride:
            return f"{conv.name!r} has stride {conv.stride}, expected {strides.get(layer.name, 1)}"
    return None


def _strides(spec: ModelSpec) -> dict[str, int]:
    """The strides of the convolutions that may have another than 1."""
    found = {}
    for index, block in enumerate(spec.network().blocks):
        part = "conv" if block.kind == "conv" else "depthwise"
        found[f"backbone.blocks.{index}.{part}"] = block.stride
    return found


def _scaled(model: ModelSpec, convs: Sequence[FoundConv]) -> Iterator[ModelSpec]:
    classes = len(convs[-1].weight)
    for width in WIDTHS:
        for rule in RULES:
            candidate = replace(model, width=width, width_rule=rule, classes=classes)
            if candidate.network().blocks[0].out_channels == len(convs[0].weight):
                yield candidate


def _shapes_differ(spec: ModelSpec, convs: Sequence[FoundConv]) -> str | None:
    for layer, conv in zip(layers(spec.network()), convs, strict=True):
        if conv.weight.shape != layer.weight:
            return f"{conv.name!r} has shape {conv.weight.shape}, expected {layer.weight}"
    return None


def _matched(path: Path, spec: ModelSpec, graph: FoundGraph) -> Match:
    import torch

    norms = [conv.norm for conv in graph.convs if conv.norm is not None]
    eps = {norm.eps for norm in norms}
    if len(eps) > 1:
        raise WeightsError(f"{path}: batch norms with several epsilons, {sorted(eps)}")
    padding = _padding(path, graph.convs)
    spec = replace(spec, padding=padding, bn_eps=eps.pop() if eps else spec.bn_eps)
    state: dict[str, Tensor] = {}
    for layer, conv in zip(layers(spec.network()), graph.convs, strict=True):
        for name, array in _tensors(path, spec, layer, conv).items():
            if not np.isfinite(array).all():
                raise WeightsError(f"{path}: {conv.name!r} holds NaN or infinity")
            state[f"{layer.name}.{name}"] = torch.from_numpy(np.array(array, np.float32))
        if layer.norm:
            state[f"{layer.name}.norm.num_batches_tracked"] = torch.zeros((), dtype=torch.int64)
    facts = [f"padding {padding!r}, from the graph"]
    if norms:
        facts.append(f"BN epsilon {spec.bn_eps:g}, from the graph")
    return Match(spec=spec, state=state, folded=not norms, facts=tuple(facts))


def _padding(path: Path, convs: Sequence[FoundConv]) -> Padding:
    """The rule by which strided convolutions are padded."""
    found: set[Padding] = set()
    for conv in convs:
        side = conv.weight.shape[2] // 2
        if conv.stride == 1 or side == 0:
            continue
        if conv.pads == (side, side):
            found.add("torch")
        elif conv.pads in (None, (side - 1, side)):
            found.add("same")
        else:
            raise WeightsError(
                f"{path}: {conv.name!r} is padded by {conv.pads}, which is neither PyTorch's "
                f"{(side, side)} nor TensorFlow's SAME"
            )
    # on odd sizes SAME is symmetric too, so that one asymmetric convolution decides
    return "same" if "same" in found else "torch"


def _tensors(path: Path, spec: ModelSpec, layer: Layer, conv: FoundConv) -> dict[str, Floats]:
    """A layer's tensors by the last part of their names."""
    bias = np.zeros(len(conv.weight), np.float32) if conv.bias is None else conv.bias
    if not layer.norm:
        if conv.norm is not None:
            raise WeightsError(f"{path}: a batch norm follows {conv.name!r}, which has none here")
        return {"weight": conv.weight, "bias": bias}
    if conv.norm is None:  # folded in: a norm that changes nothing but adds the bias
        one = np.ones_like(bias)
        arrays = (one, bias, 0 * one, one - np.float32(spec.bn_eps))
    else:
        norm = conv.norm
        arrays = (norm.weight, norm.bias, norm.running_mean - bias, norm.running_var)
    parts = {f"norm.{part}": array for part, array in zip(NORM, arrays, strict=True)}
    return {"conv.weight": conv.weight, **parts}

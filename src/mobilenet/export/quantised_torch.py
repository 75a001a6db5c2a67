"""`QuantisedClassifier`: an int8 network in torch as PT2E writes them, with its own whole numbers.

Every rounding is a pair of quantise and dequantise nodes of torch's `quantized_decomposed`
operators, which converters of PT2E programs fuse with the float operators between them into integer
kernels. Their int8 is our uint8 less 128. Such kernels want every tensor rounded: beside what the
exact arithmetic rounds the arguments and gates of curves, what a residual is added to, the logits.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ExportError
from ..integer import LARGEST_WEIGHT, Affine, Place, QuantisedProgram, Stage, stages
from ..program import IMAGE, Activation, BlockStep, ConvStep, Floats, Padding, PoolStep
from ..program.geometry import pads
from ..quantize.calibrate import affine_of
from .artifact import Reference
from .litert_int8 import GATES, before_hard_swish, projected_place

_OPERATORS = torch.ops.quantized_decomposed
_UNSIGNED = 128  # our zero less theirs
_SLOPE = affine_of((-3.0, 3.0))  # where a hard sigmoid is neither 0 nor 1


class Whole(NamedTuple):
    """A tensor in eight bits, which stands for scale * (values - zero)."""

    values: Tensor
    affine: Affine

    def real(self) -> Tensor:
        """What it stands for; a node for every reader, as PT2E writes them."""
        return _OPERATORS.dequantize_per_tensor.default(self.values, *_unit(self.affine))


def rounded_to(x: Tensor, affine: Affine) -> Whole:
    """As eight bits hold it."""
    return Whole(_OPERATORS.quantize_per_tensor.default(x, *_unit(affine)), affine)


def _unit(affine: Affine) -> tuple[float, int, int, int, torch.dtype]:
    return affine.scale, affine.zero - _UNSIGNED, -128, 127, torch.int8


class QuantisedClassifier(nn.Module):
    """Images (N, 3, H, W) float32 to logits (N, classes).

    `extra` is what `litert_ranges` found. `gated`: a hard-swish is its argument times rounded
    gates, as our .tflite files have it. Raises ExportError for a network with ten bits somewhere,
    or that is no classifier.
    """

    def __init__(
        self, network: QuantisedProgram, extra: Mapping[Place, Affine], *, gated: bool
    ) -> None:
        super().__init__()
        self.ranges = {**extra, **network.ranges}
        self.gated = gated
        if network.wide:
            raise ExportError(
                "ten bits where the format has eight: quantize the run again with --portable"
            )
        self.network = network
        ((_, self.output),) = network.program.outputs
        for index, step in enumerate(network.program.steps):
            if not isinstance(step, ConvStep | BlockStep | PoolStep):
                raise ExportError(f"step {index}: a {type(step).__name__} is of no classifier")
            for stage in stages(network.program, index):
                filter, source = network.filters[index][stage.name], network.ranges[stage.source]
                whole = torch.from_numpy(filter.weight)
                self.register_buffer(_name(stage, "weight"), whole)
                self.register_buffer(
                    _name(stage, "scale"), torch.from_numpy(filter.scale.astype(np.float32))
                )
                zeros = torch.zeros(len(whole), dtype=torch.int64)
                self.register_buffer(_name(stage, "zeros"), zeros)
                bias = (filter.bias * (filter.scale * source.scale)).astype(np.float32)
                self.register_buffer(_name(stage, "bias"), torch.from_numpy(bias))

    def forward(self, images: Tensor) -> Tensor:
        image = Place.of(IMAGE)
        maps = {image: self.rounded(images, image)}
        for index, step in enumerate(self.network.program.steps):
            out, x = Place.of(index + 1), maps[Place.of(step.sources[0])]
            match step:
                case ConvStep():
                    (stage,) = stages(self.network.program, index)
                    y = self.convolve(stage, x, step.stride, step.dilation, step.padding)
                    maps[out] = self.activated(y, step.activation, out)
                case BlockStep():
                    maps[out] = self.block(index, step, x)
                case _:
                    maps[out] = self.rounded(x.real().mean((2, 3), keepdim=True), out)
        return maps[Place.of(self.output)].real().flatten(1)

    def block(self, index: int, step: BlockStep, given: Whole) -> Whole:
        x = depthwise = given
        for stage in stages(self.network.program, index):
            match stage.name:
                case "depthwise":
                    y = self.convolve(stage, x, step.stride, step.dilation, step.padding)
                    depthwise = x = self.activated(y, stage.activation, Place(index, "depthwise"))
                case "reduce":
                    pooled = self.rounded(depthwise.real().mean((2, 3), keepdim=True), stage.source)
                    y = self.convolve(stage, pooled)
                    x = self.activated(y, stage.activation, Place(index, "squeezed"))
                case "excite":
                    y = self.convolve(stage, x)
                    y = y if self.gated else rounded_to(y, _SLOPE).real()
                    gates = rounded_to(F.hardsigmoid(y), GATES)
                    x = self.rounded(depthwise.real() * gates.real(), Place(index, "gated"))
                case "project" if step.residual:
                    y = self.rounded(self.convolve(stage, x), projected_place(index))
                    x = self.rounded(y.real() + given.real(), Place(index, "out"))
                case "project":
                    y = self.convolve(stage, x)
                    x = self.activated(y, stage.activation, Place(index, "out"))
                case _:
                    x = self.activated(
                        self.convolve(stage, x), stage.activation, Place(index, "expanded")
                    )
        return x

    def activated(self, y: Tensor, activation: Activation, place: Place) -> Whole:
        match activation:
            case "hard_swish":
                argument = rounded_to(y, before_hard_swish(self.ranges[place]))
                if not self.gated:
                    return self.rounded(F.hardswish(argument.real()), place)
                gates = rounded_to(F.hardsigmoid(argument.real()), GATES)
                return self.rounded(argument.real() * gates.real(), place)
            case "relu":
                return self.rounded(F.relu(y), place)
            case "relu6":
                return self.rounded(F.relu6(y), place)
            case "none":
                return self.rounded(y, place)
        raise ExportError(f"{place}: no int8 form of {activation}")

    def rounded(self, x: Tensor, place: Place) -> Whole:
        return rounded_to(x, self.ranges[place])

    def convolve(
        self,
        stage: Stage,
        x: Whole,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
    ) -> Tensor:
        whole, scale, zeros, bias = (
            self.get_buffer(_name(stage, part)) for part in ("weight", "scale", "zeros", "bias")
        )
        weight = _OPERATORS.dequantize_per_channel.default(
            whole, scale, zeros, 0, -LARGEST_WEIGHT, LARGEST_WEIGHT, torch.int8
        )
        before, after = pads(x.values.shape[2], whole.shape[2], stride, dilation, padding)
        real, around = x.real(), before
        if before != after:
            real, around = F.pad(real, (before, after, before, after)), 0
        groups = len(whole) if stage.name == "depthwise" else 1
        return F.conv2d(real, weight, bias, stride, around, dilation, groups)


def _name(stage: Stage, part: str) -> str:
    return f"{stage.name}_{stage.step}_{part}"


def reference_of(network: QuantisedClassifier) -> Reference:
    """What it answers in eager torch, as a function of images."""

    def reference(images: Floats) -> Floats:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).numpy()

    return reference

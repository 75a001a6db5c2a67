"""The exact int8 arithmetic in torch: `run_integer` to the bit, as fast as torch convolves, and
with gradients, so that what is repaired and trained is what runs.

Whole numbers are kept as float32. A rounding passes gradients through as if it were none (Bengio,
Léonard and Courville 2013, arXiv 1308.3432); where a result is clipped the gradient is zero.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..program import (
    IMAGE,
    Activation,
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConcatStep,
    ConvStep,
    Floats,
    MultiplyStep,
    Padding,
    PoolStep,
    Program,
    ResizeStep,
    Step,
)
from ..program.geometry import bilinear, pads
from .scheme import Affine, Place, QuantisedProgram, Stage, result_scale, stages

Observer = Callable[[Place, Tensor], None]

_EXACT = 2.0**24  # up to here every whole number is a float32, and so is every partial sum
_UNIT = Affine(scale=1.0, zero=0)  # of results that stay float32


class Map(NamedTuple):
    """A tensor's values minus its zero, whole numbers as float32 (N, C, H, W), and its range."""

    centred: Tensor
    affine: Affine

    @property
    def real(self) -> Tensor:
        """What the values stand for."""
        return self.centred * self.affine.scale

    def in_units_of(self, target: Affine) -> Tensor:
        """The values in steps of another scale."""
        return self.centred * _single(self.affine.scale / target.scale)


class SimulatedFilter(NamedTuple):
    """`weight` (O, I, k, k) float32 and `bias` (O,) float64, whole numbers both."""

    weight: Tensor
    bias: Tensor


Key = tuple[int, str]  # the step, and the filter's name in it


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """A quantised program in torch. `filters` and `ranges` are used as they are at each call, so
    that whoever repairs the network may replace them; `scales` are the weights', float64 (O,).
    Where it is not `exact`, sums are of float32 however large they are: off by a rounding now and
    then, and several times as fast, for learning."""

    program: Program
    filters: dict[Key, SimulatedFilter]
    scales: Mapping[Key, np.ndarray]
    ranges: Mapping[Place, Affine]
    exact: bool = True

    @classmethod
    def of(cls, quantised: QuantisedProgram) -> "Simulation":
        """The simulation of a finished network."""
        filters, scales = {}, {}
        for index, step in enumerate(quantised.filters):
            for name, filter in step.items():
                filters[index, name] = SimulatedFilter(
                    weight=torch.from_numpy(filter.weight.astype(np.float32)),
                    bias=torch.from_numpy(filter.bias.astype(np.float64)),
                )
                scales[index, name] = filter.scale
        return cls(
            program=quantised.program, filters=filters, scales=scales, ranges=quantised.ranges
        )

    def __call__(self, images: Tensor, *, observe: Observer | None = None) -> dict[str, Tensor]:
        """The outputs, float32 (N, C, H, W), for preprocessed images float32 (N, 3, H, W).

        `observe` is shown the values minus zero of every tensor that has a range.
        """
        run = _Run(self, observe)
        run.start(images)
        last_use = _last_uses(self.program)
        for index, step in enumerate(self.program.steps):
            run.step(index, step)
            for value in last_use.get(index, ()):
                run.forget(Place.of(value))
        return {name: run.output(Place.of(value)) for name, value in self.program.outputs}

    def run_step(self, index: int, inputs: list[Tensor]) -> Tensor:
        """What step `index` makes of its sources, given as values minus zero, and given back so;
        the image as itself. An output that has no range is real numbers."""
        run = _Run(self, None)
        step = self.program.steps[index]
        for source, x in zip(step.sources, inputs, strict=True):
            run.maps[Place.of(source)] = Map(x, self.ranges[Place.of(source)])
        run.step(index, step)
        out = Place.of(index + 1)
        return run.floats[out] if out in run.floats else run.maps[out].centred

    def image(self, images: Tensor) -> Tensor:
        """Preprocessed images as values minus zero."""
        run = _Run(self, None)
        run.start(images)
        return run.maps[Place.of(IMAGE)].centred


def simulate(quantised: QuantisedProgram, images: Floats, *, batch: int = 8) -> dict[str, Floats]:
    """`run_integer`, the same bits, through torch: outputs float32 (N, C, H, W)."""
    simulation = Simulation.of(quantised)
    parts: dict[str, list[Floats]] = {name: [] for name, _ in quantised.program.outputs}
    with torch.inference_mode():
        for start in range(0, len(images), batch):
            part = torch.from_numpy(images[start : start + batch])
            found = simulation(part.contiguous(memory_format=torch.channels_last))
            for name, values in found.items():
                parts[name].append(values.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def round_through(x: Tensor) -> Tensor:
    """To whole numbers, halves to even; the gradient passes through."""
    return x + (torch.round(x) - x).detach() if x.requires_grad else torch.round(x)


def _last_uses(program: Program) -> dict[int, list[int]]:
    """The values that no step behind the given one reads, nor are outputs."""
    last = {source: index for index, step in enumerate(program.steps) for source in step.sources}
    kept = {value for _, value in program.outputs}
    found: dict[int, list[int]] = {}
    for value, index in last.items():
        if value not in kept:
            found.setdefault(index, []).append(value)
    return found


class _Run:
    """The tensors of one run; `floats` are the results that no step reads."""

    def __init__(self, simulation: Simulation, observe: Observer | None) -> None:
        self.simulation = simulation
        self.ranges = simulation.ranges
        self.observe = observe
        self.maps: dict[Place, Map] = {}
        self.floats: dict[Place, Tensor] = {}

    def start(self, images: Tensor) -> None:
        place = Place.of(IMAGE)
        self.write(place, images * _single(1 / self.ranges[place].scale))

    def forget(self, place: Place) -> None:
        self.maps.pop(place, None)

    def output(self, place: Place) -> Tensor:
        return self.floats[place] if place in self.floats else self.maps[place].in_units_of(_UNIT)

    def target(self, place: Place | None) -> Affine:
        return _UNIT if place is None else self.ranges.get(place, _UNIT)

    def write(self, place: Place, v: Tensor, activation: Activation = "none") -> None:
        """Keep results in units of the target's scale: rounded, or as they are."""
        if place not in self.ranges:
            low, high = {"relu": (0, None), "relu6": (0, 6)}.get(activation, (None, None))
            self.floats[place] = v if low is None and high is None else v.clamp(low, high)
            return
        self.keep(place, _rounded(v, self.ranges[place], activation))

    def keep(self, place: Place, centred: Tensor) -> None:
        if self.observe is not None:
            self.observe(place, centred)
        self.maps[place] = Map(centred, self.ranges[place])

    def step(self, index: int, step: Step) -> None:
        inputs = [self.maps[Place.of(source)] for source in step.sources]
        x, out = inputs[0], Place.of(index + 1)
        target = self.target(out)
        match step:
            case ConvStep():
                (stage,) = stages(self.simulation.program, index)
                y = self.convolve(stage, step.stride, step.dilation, step.padding)
                self.write(out, _activated(y, step.activation, target), step.activation)
            case BlockStep():
                self.block(index, step)
            case PoolStep():
                self.write(out, _mean(x, target))
            case AddStep():
                total = x.in_units_of(target) + inputs[1].in_units_of(target)
                self.write(out, total, step.activation)
            case MultiplyStep():
                scale = _single(x.affine.scale * inputs[1].affine.scale / target.scale)
                self.write(out, (x.centred * inputs[1].centred) * scale)
            case ConcatStep():
                self.concat(out, inputs)
            case ResizeStep():
                height, width = inputs[1].centred.shape[2:]
                scale = _single(x.affine.scale / target.scale)
                self.write(out, _resized(x.centred, height, width) * scale)
            case AveragePoolStep():
                sums = F.avg_pool2d(
                    x.centred.double(), step.kernel, step.stride, divisor_override=1
                )
                scale = _single(x.affine.scale / (target.scale * step.kernel**2))
                self.write(out, sums.float() * scale)
            case _:
                raise AssertionError(step)

    def block(self, index: int, step: BlockStep) -> None:
        out = Place.of(index + 1)
        for stage in stages(self.simulation.program, index):
            match stage.name:
                case "depthwise":
                    y = self.convolve(stage, step.stride, step.dilation, step.padding)
                case "reduce":
                    depthwise = self.maps[Place(index, "depthwise")]
                    self.write(stage.source, _mean(depthwise, self.target(stage.source)))
                    y = self.convolve(stage)
                case "excite":
                    self.gate(index, _activated(self.convolve(stage), "hard_sigmoid", _UNIT))
                    continue
                case _:
                    y = self.convolve(stage)
            target = self.target(stage.target)
            y = _activated(y, stage.activation, target)
            if stage.name == "project" and step.residual:
                y = y + self.maps[Place.of(step.sources[0])].in_units_of(target)
            self.write(stage.target or out, y, stage.activation)
        for name in ("expanded", "depthwise", "pooled", "squeezed", "gated"):
            self.forget(Place(index, name))

    def gate(self, index: int, gates: Tensor) -> None:
        """Squeeze-excite's last part: `gates` (N, C, 1, 1) from 0 to 1."""
        depthwise, gated = self.maps[Place(index, "depthwise")], Place(index, "gated")
        ratio = _single(depthwise.affine.scale / self.target(gated).scale)
        self.write(gated, depthwise.centred * (gates * ratio))

    def concat(self, out: Place, inputs: list[Map]) -> None:
        target = self.target(out)
        if out not in self.ranges:
            self.floats[out] = torch.cat([x.in_units_of(target) for x in inputs], dim=1)
            return
        parts = [  # rounding is exact where the scales agree
            x.centred if x.affine == target else _rounded(x.in_units_of(target), target)
            for x in inputs
        ]
        self.keep(out, torch.cat(parts, dim=1))

    def convolve(
        self, stage: Stage, stride: int = 1, dilation: int = 1, padding: Padding = "symmetric"
    ) -> Tensor:
        """The sums of products and the bias, as float32, times the multiplier."""
        key = (stage.step, stage.name)
        weight, bias = self.simulation.filters[key]
        x, affine = self.maps[stage.source]
        groups = len(weight) if stage.name == "depthwise" else 1
        # sums that float32 holds exactly, in whatever order, need no float64
        enough = not self.simulation.exact or _most(weight, bias, affine) < _EXACT
        kind = torch.float32 if enough else torch.float64
        top, bottom = pads(x.shape[2], weight.shape[2], stride, dilation, padding)
        left, right = pads(x.shape[3], weight.shape[3], stride, dilation, padding)
        around = (top, left)
        if (top, left) != (bottom, right):
            x, around = F.pad(x, (left, right, top, bottom)), (0, 0)
        sums = F.conv2d(
            x.to(kind),
            weight.to(kind),
            bias.to(kind),
            stride=stride,
            padding=around,
            dilation=dilation,
            groups=groups,
        )
        real = (
            self.ranges[stage.source].scale
            * self.simulation.scales[key]
            / result_scale(self.ranges, stage)
        )
        return sums.float() * torch.from_numpy(real.astype(np.float32))[:, None, None]


def _most(weight: Tensor, bias: Tensor, affine: Affine) -> float:
    """What no part of the sums of an output exceeds, whichever of its inputs there are."""
    weight = weight.detach().flatten(1)
    above, below = weight.clamp(min=0).sum(1), -weight.clamp(max=0).sum(1)
    low, high = affine.zero, affine.largest - affine.zero
    part = torch.maximum(above * high + below * low, above * low + below * high)
    return float((part + bias.detach().abs()).max())


def _single(value: float) -> float:
    """A constant of the arithmetic: computed in float64, cast once."""
    return float(np.float32(value))


def _activated(y: Tensor, activation: Activation, target: Affine) -> Tensor:
    """A curve's result in units of the target's scale; the others are bounds, see `_rounded`."""
    after = _single(1 / (6 * target.scale))
    match activation:
        case "hard_swish":
            return (y * (y + 3).clamp(0, 6)) * after
        case "hard_sigmoid":
            return (y + 3).clamp(0, 6) * after
    return y


def _rounded(v: Tensor, affine: Affine, activation: Activation = "none") -> Tensor:
    """Results in units of the scale to the nearest values of the tensor, minus its zero."""
    low = 0 if activation in ("relu", "relu6") else -affine.zero
    high = affine.largest - affine.zero
    if activation == "relu6":
        high = min(high, round(6 / affine.scale))
    return round_through(v.clamp(low, high))


def _mean(x: Map, target: Affine) -> Tensor:
    pixels = x.centred.shape[2] * x.centred.shape[3]
    sums = x.centred.double().sum((2, 3), keepdim=True).float()
    return sums * _single(x.affine.scale / (target.scale * pixels))


def _resized(x: Tensor, height: int, width: int) -> Tensor:
    top, bottom, down = (torch.from_numpy(part) for part in bilinear(x.shape[2], height))
    left, right, across = (torch.from_numpy(part) for part in bilinear(x.shape[3], width))
    down = down[:, None]

    def between(rows: Tensor) -> Tensor:
        return rows[..., left] * (1 - across) + rows[..., right] * across

    return between(x[:, :, top]) * (1 - down) + between(x[:, :, bottom]) * down

"""The exact int8 arithmetic: `run_integer` defines what every runtime must compute, to the bit.

Sums of products are whole numbers, and a padded pixel adds 0 to them. Everything behind them is
float32: single IEEE operations in the order written here, never fused; constants are computed in
float64 and cast once; rint rounds halves to even.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

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
    ResizeStep,
)
from ..program.geometry import bilinear, windows
from .scheme import (
    LARGEST,
    Affine,
    Int32,
    Place,
    QuantisedProgram,
    Stage,
    Values,
    multiplier,
    stages,
)

Observer = Callable[[Place, Values], None]

_F = np.float32
_UNIT = Affine(scale=1.0, zero=0)  # of results that stay float32


def run_integer(
    quantised: QuantisedProgram, images: Floats, *, observe: Observer | None = None
) -> dict[str, Floats]:
    """The outputs, float32 (N, C, H, W), for preprocessed images float32 (N, 3, H, W).

    A value that no step reads is not rounded: its results are float32. `observe` is shown every
    tensor that has a range, as uint8, or uint16 where it is wide, (N, C, H, W).
    """
    run = _Run(quantised, observe)
    image = Place.of(IMAGE)
    run.write(image, images * _F(1 / quantised.ranges[image].scale))
    for index in range(len(quantised.program.steps)):
        run.step(index)
    return {name: run.output(Place.of(value)) for name, value in quantised.program.outputs}


@dataclass(frozen=True, eq=False)
class _Tensor:
    q: Values
    affine: Affine

    @property
    def centred(self) -> Int32:
        """q - zero: what the padding's 0 stands beside."""
        return self.q.astype(np.int32) - np.int32(self.affine.zero)

    def in_units_of(self, target: Affine) -> np.ndarray:
        """The values in steps of another scale."""
        return self.centred.astype(_F) * _F(self.affine.scale / target.scale)


class _Run:
    """The tensors of one run; `floats` are the results that no step reads."""

    def __init__(self, quantised: QuantisedProgram, observe: Observer | None) -> None:
        self.quantised = quantised
        self.observe = observe
        self.tensors: dict[Place, _Tensor] = {}
        self.floats: dict[Place, Floats] = {}

    def output(self, place: Place) -> Floats:
        if place in self.floats:
            return self.floats[place]
        return self.tensors[place].in_units_of(_UNIT)

    def target(self, place: Place | None) -> Affine:
        return _UNIT if place is None else self.quantised.ranges.get(place, _UNIT)

    def write(self, place: Place, v: np.ndarray, activation: Activation = "none") -> None:
        """Keep float32 results in units of the target's scale: rounded, or as they are."""
        assert v.dtype == _F
        if place not in self.quantised.ranges:
            low, high = {"relu": (0, np.inf), "relu6": (0, 6)}.get(activation, (-np.inf, np.inf))
            self.floats[place] = np.clip(v, _F(low), _F(high))
            return
        self.keep(place, _rounded(v, self.quantised.ranges[place], activation))

    def keep(self, place: Place, q: Values) -> None:
        if self.observe is not None:
            self.observe(place, q)
        self.tensors[place] = _Tensor(q, self.quantised.ranges[place])

    def step(self, index: int) -> None:
        step = self.quantised.program.steps[index]
        inputs = [self.tensors[Place.of(source)] for source in step.sources]
        x, out = inputs[0], Place.of(index + 1)
        target = self.target(out)
        match step:
            case ConvStep():
                (stage,) = stages(self.quantised.program, index)
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
                scale = _F(x.affine.scale * inputs[1].affine.scale / target.scale)
                product = x.centred.astype(_F) * inputs[1].centred.astype(_F)
                self.write(out, product * scale)
            case ConcatStep():
                self.concat(out, inputs)
            case ResizeStep():
                height, width = inputs[1].q.shape[2:]
                scale = _F(x.affine.scale / target.scale)
                self.write(out, _resized(x.centred.astype(_F), height, width) * scale)
            case AveragePoolStep():
                size = (step.kernel, step.kernel)
                view = np.lib.stride_tricks.sliding_window_view(x.centred, size, axis=(2, 3))
                sums = view[:, :, :: step.stride, :: step.stride].sum((4, 5), dtype=np.int32)
                scale = _F(x.affine.scale / (target.scale * step.kernel**2))
                self.write(out, sums.astype(_F) * scale)
            case _:
                raise AssertionError(step)

    def block(self, index: int, step: BlockStep) -> None:
        out = Place.of(index + 1)
        for stage in stages(self.quantised.program, index):
            match stage.name:
                case "depthwise":
                    y = self.convolve(stage, step.stride, step.dilation, step.padding)
                case "reduce":
                    pooled = _mean(
                        self.tensors[Place(index, "depthwise")], self.target(stage.source)
                    )
                    self.write(stage.source, pooled)
                    y = self.convolve(stage)
                case "excite":
                    self.gate(index, _activated(self.convolve(stage), "hard_sigmoid", _UNIT))
                    continue
                case _:
                    y = self.convolve(stage)
            target = self.target(stage.target)
            y = _activated(y, stage.activation, target)
            if stage.name == "project" and step.residual:
                y = y + self.tensors[Place.of(step.sources[0])].in_units_of(target)
            self.write(stage.target or out, y, stage.activation)

    def gate(self, index: int, gates: np.ndarray) -> None:
        """Squeeze-excite's last part: `gates` (N, C, 1, 1) from 0 to 1."""
        depthwise, gated = self.tensors[Place(index, "depthwise")], Place(index, "gated")
        ratio = _F(depthwise.affine.scale / self.target(gated).scale)
        self.write(gated, depthwise.centred.astype(_F) * (gates * ratio))

    def concat(self, out: Place, inputs: list[_Tensor]) -> None:
        target = self.target(out)
        if out not in self.quantised.ranges:
            self.floats[out] = np.concatenate([x.in_units_of(target) for x in inputs], axis=1)
            return
        parts = [  # rounding is exact where the scales agree
            x.q if x.affine == target else _rounded(x.in_units_of(target), target) for x in inputs
        ]
        self.keep(out, np.concatenate(parts, axis=1))

    def convolve(
        self, stage: Stage, stride: int = 1, dilation: int = 1, padding: Padding = "symmetric"
    ) -> np.ndarray:
        """The sums of products and the bias, as float32, times the multiplier."""
        filter = self.quantised.filters[stage.step][stage.name]
        x, kernel = self.tensors[stage.source].centred, filter.weight.shape[2]
        dot = _depthwise if stage.name == "depthwise" else _dense
        sums = np.zeros((), np.int32)
        for row, column, window in windows(x, kernel, stride, dilation, padding):
            sums = sums + dot(filter.weight[:, :, row, column], window)
        sums = sums + filter.bias[:, None, None]
        assert sums.dtype == np.int32
        return sums.astype(_F) * multiplier(self.quantised, stage)[:, None, None]


def _depthwise(weight: np.ndarray, x: Int32) -> Int32:
    return weight[:, :, None].astype(np.int32) * x


def _dense(weight: np.ndarray, x: Int32) -> Int32:
    """Of (O, I) and (N, I, H, W), by a matrix product in float64, which is exact below 2^53."""
    columns = x.reshape(*x.shape[:2], -1).astype(np.float64)
    sums = np.matmul(weight.astype(np.float64), columns)
    return sums.astype(np.int32).reshape(len(x), len(weight), *x.shape[2:])


def _activated(y: np.ndarray, activation: Activation, target: Affine) -> np.ndarray:
    """A curve's result in units of the target's scale; the others are bounds, see `_rounded`."""
    after = _F(1 / (6 * target.scale))
    match activation:
        case "hard_swish":
            return (y * np.clip(y + _F(3), _F(0), _F(6))) * after
        case "hard_sigmoid":
            return np.clip(y + _F(3), _F(0), _F(6)) * after
    return y


def _rounded(v: np.ndarray, affine: Affine, activation: Activation = "none") -> Values:
    """Results in units of the scale to the nearest values of the tensor, halves to even."""
    low = 0 if activation in ("relu", "relu6") else -affine.zero
    high = affine.largest - affine.zero
    if activation == "relu6":
        high = min(high, round(6 / affine.scale))
    q = np.rint(np.clip(v, _F(low), _F(high))).astype(np.int32) + affine.zero
    return q.astype(np.uint8 if affine.largest == LARGEST else np.uint16)


def _mean(x: _Tensor, target: Affine) -> np.ndarray:
    pixels = x.q.shape[2] * x.q.shape[3]
    sums = x.centred.sum((2, 3), keepdims=True, dtype=np.int32)
    return sums.astype(_F) * _F(x.affine.scale / (target.scale * pixels))


def _resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    top, bottom, down = bilinear(x.shape[2], height)
    left, right, across = bilinear(x.shape[3], width)
    down = down[:, None]
    one = _F(1)

    def between(rows: np.ndarray) -> np.ndarray:
        return rows[..., left] * (one - across) + rows[..., right] * across

    return between(x[:, :, top]) * (one - down) + between(x[:, :, bottom]) * down

"""What an int8 network is: a program with whole-number weights and a range for every tensor.

A tensor's value q in 0...255 stands for scale * (q - zero); weights are whole numbers in
-127...127 times one scale an output channel; biases are int32 in units of scale in * weight scale.
Scales are float32 numbers; what is derived from them is computed in float64 and cast once.

A network may be wide inside: ten bits for what never becomes a map in the native engine, which is
the image and the expanded tensors, and for the weights that meet the image or are depthwise. The
engine holds these few rows and weights as float32 numbers in any case, whose sums of products are
exact below 2^24, so the two bits more cost it no time. Or it is wide everywhere: maps have ten bits
too, in 16, which costs nothing where the engine multiplies numbers of 16 bits (AVX2), and its
fastest products where there are dot products of bytes (VNNI, AMX, NEON).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..program import IMAGE, Activation, BlockStep, ConvStep, Filter, Floats, Program

Weights = NDArray[np.int8 | np.int16]
Int32 = NDArray[np.int32]
Values = NDArray[np.uint8 | np.uint16]
Doubles = NDArray[np.float64]

LARGEST = 255  # of a tensor's value
LARGEST_WEIGHT = 127
LARGEST_FOUR_BITS = 7
LARGEST_WIDE = 1023
LARGEST_WIDE_WEIGHT = 511


class Wide(IntEnum):
    """Where a network has ten bits instead of eight; the numbers are those of the engine's file."""

    NOWHERE = 0
    INSIDE = 1  # in what never becomes a map
    EVERYWHERE = 2


class Place(NamedTuple):
    """A tensor of a program: `name` within `step`.

    "out" is what the step writes; inside a block there are "expanded", "depthwise" (behind its
    activation), and with squeeze-excite "pooled", "squeezed" and "gated". The image is `of(0)`.
    """

    step: int
    name: str

    @classmethod
    def of(cls, value: int) -> "Place":
        """Where a value of the program is written."""
        return cls(value - 1, "out")


@dataclass(frozen=True, kw_only=True)
class Affine:
    """q in 0...largest stands for scale * (q - zero); scale is a float32 number above 0."""

    scale: float
    zero: int
    largest: int = LARGEST

    def __post_init__(self) -> None:
        if not (self.scale > 0 and float(np.float32(self.scale)) == self.scale):
            raise ValueError(f"scale {self.scale!r}: expected a float32 number above 0")
        if not 0 <= self.zero <= self.largest:
            raise ValueError(f"zero {self.zero!r}: expected 0 to {self.largest}")


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerFilter:
    """A filter in whole numbers: weight (O, I, k, k) int8, or int16 where it is wide, scale float64
    (O,), bias int32 (O,)."""

    weight: Weights
    scale: Doubles
    bias: Int32

    @property
    def largest(self) -> int:
        """What weights are at most; that of four bits where all weights have room in those."""
        if self.weight.dtype != np.int8:
            return LARGEST_WIDE_WEIGHT
        found = np.abs(self.weight).max(initial=0)
        return LARGEST_WEIGHT if found > LARGEST_FOUR_BITS else LARGEST_FOUR_BITS

    def real(self, scale_in: float) -> Filter:
        """The filter that the whole numbers stand for, where its input's scale is `scale_in`."""
        weight = self.weight * self.scale[:, None, None, None]
        bias = self.bias * (self.scale * scale_in)
        return Filter(weight=weight.astype(np.float32), bias=bias.astype(np.float32))


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantisedProgram:
    """An int8 network: `filters[step]` by the names of `Step.filters`, and the range of every
    tensor of `places(program)`. The program's own weights are those that were quantised."""

    program: Program
    filters: tuple[Mapping[str, IntegerFilter], ...]
    ranges: Mapping[Place, Affine]

    @property
    def wide(self) -> Wide:
        """Where it has ten bits."""
        return wide_of(self.ranges)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A convolution of a step, from tensor to tensor; `target` None: its result stays float32."""

    step: int
    name: str
    source: Place
    target: Place | None
    activation: Activation


def stages(program: Program, index: int) -> Iterator[Stage]:
    """The convolutions of step `index`, in order."""
    step = program.steps[index]
    source = Place.of(step.sources[0])
    out = Place.of(index + 1) if index + 1 in program.read() else None

    def stage(name: str, source: Place, target: Place | None, activation: Activation) -> Stage:
        return Stage(step=index, name=name, source=source, target=target, activation=activation)

    if isinstance(step, ConvStep):
        yield stage("project", source, out, step.activation)
    if not isinstance(step, BlockStep):
        return
    depthwise = Place(index, "depthwise")
    if step.expand is not None:
        expanded = Place(index, "expanded")
        yield stage("expand", source, expanded, step.activation)
        source = expanded
    yield stage("depthwise", source, depthwise, step.activation)
    source = depthwise
    if step.reduce is not None:
        pooled, squeezed = Place(index, "pooled"), Place(index, "squeezed")
        yield stage("reduce", pooled, squeezed, "relu")
        yield stage("excite", squeezed, None, "hard_sigmoid")
        source = Place(index, "gated")
    yield stage("project", source, out, step.out_activation)


def places(program: Program) -> tuple[Place, ...]:
    """Every tensor that has a range: the image, and all but outputs that no step reads."""
    read = program.read()
    found = [Place.of(IMAGE)]
    for index, step in enumerate(program.steps):
        if isinstance(step, BlockStep):
            names = ["expanded"] if step.expand is not None else []
            names += ["depthwise"]
            names += ["pooled", "squeezed", "gated"] if step.reduce is not None else []
            found += [Place(index, name) for name in names]
        if index + 1 in read:
            found.append(Place.of(index + 1))
    return tuple(found)


def wide_of(ranges: Mapping[Place, Affine]) -> Wide:
    """Where a network of these ranges has ten bits; ValueError where that is no such place."""
    for wide in Wide:
        if all(one.largest == largest_at(place, wide=wide) for place, one in ranges.items()):
            return wide
    raise ValueError("ten bits in some maps and not in others")


def largest_at(place: Place, *, wide: Wide) -> int:
    """The largest value of a tensor there."""
    inside = place == Place.of(IMAGE) or place.name == "expanded"
    return LARGEST_WIDE if wide is Wide.EVERYWHERE or (wide and inside) else LARGEST


def largest_weight(name: str, source: Place, *, wide: Wide, four_bits: bool = False) -> int:
    """The largest weight of the filter `name` that reads `source`. `four_bits` are of all others
    than those few that are depthwise or meet the image."""
    if name == "depthwise" or source == Place.of(IMAGE):
        return LARGEST_WIDE_WEIGHT if wide else LARGEST_WEIGHT
    return LARGEST_FOUR_BITS if four_bits else LARGEST_WEIGHT


def weight_type(largest: int) -> type[np.int8] | type[np.int16]:
    """How weights of at most that are kept."""
    return np.int8 if largest <= LARGEST_WEIGHT else np.int16


def result_scale(ranges: Mapping[Place, Affine], stage: Stage) -> float:
    """The unit of what follows the multiplier: the target's scale; 1 where the activation is a
    curve, which takes real numbers, or the result stays float32."""
    curved = stage.activation in ("hard_swish", "hard_sigmoid")
    return 1.0 if stage.target is None or curved else ranges[stage.target].scale


def multiplier(quantised: QuantisedProgram, stage: Stage) -> Floats:
    """What a stage's sums of products are multiplied by, float32 (O,)."""
    filter, ranges = quantised.filters[stage.step][stage.name], quantised.ranges
    real = ranges[stage.source].scale * filter.scale / result_scale(ranges, stage)
    return real.astype(np.float32)

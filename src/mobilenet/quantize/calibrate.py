"""Post-training calibration: the ranges of a program's tensors, measured on pictures, and its
weights rounded to them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from ..integer.scheme import (
    LARGEST,
    LARGEST_FOUR_BITS,
    LARGEST_WEIGHT,
    LARGEST_WIDE,
    Affine,
    Doubles,
    IntegerFilter,
    Place,
    QuantisedProgram,
    Stage,
    Wide,
    largest_at,
    largest_weight,
    places,
    stages,
    weight_type,
)
from ..program import IMAGE, Activation, AddStep, BlockStep, Filter, Floats, Program

if TYPE_CHECKING:
    from torch import Tensor

Range = tuple[float, float]

HARD_SWISH_LEAST = -0.375  # at -1.5

_ALLOWED = frozenset(("none", "relu", "relu6", "hard_swish", "hard_sigmoid"))
_ADDED = frozenset(("none", "relu", "relu6"))  # behind a sum
_TINY = 1e-20  # scales below are of a tensor or channel that is zero but for rounding
EXACT = 2**24  # up to here the sums of float32 whole numbers are exact
_PARTS = np.linspace(1, 0.5, 11)  # of a channel's largest weight
_LARGEST_BIAS = 2.0**30  # leaves the sums of products room in 32 bits
_SAMPLE = 2**16  # numbers of a tensor that a percentile is taken of, for each batch


def quantise_program(
    program: Program, batches: Iterable[Floats], *, percentile: float = 100.0
) -> QuantisedProgram:
    """Calibrate on batches of images (N, 3, H, W) and round; see `observe_ranges`, `quantise`."""
    return quantise(program, observe_ranges(program, batches, percentile=percentile))


def observe_ranges(
    program: Program, batches: Iterable[Floats], *, percentile: float = 100.0
) -> dict[Place, Range]:
    """The least and greatest number of every tensor that has a range, over all batches.

    `percentile` below 100 leaves out as much at either end, measured batch by batch on a sample,
    and takes the mean over the batches. Raises UsageError without a batch, or where a number is
    not finite.
    """
    from .trace import run_float

    _activations(program)  # refuses what int8 does not have before anything is computed
    if not 50 < percentile <= 100:
        raise UsageError(f"percentile {percentile}: expected above 50, at most 100")
    wanted = set(places(program))
    found: dict[Place, list[Range]] = {place: [] for place in wanted}

    def observe(place: Place, x: "Tensor") -> None:
        if place in wanted:
            found[place].append(_extremes(x, percentile))

    for images in batches:
        run_float(program, images, observe=observe)
    if not found[Place.of(IMAGE)]:
        raise UsageError("no pictures to calibrate with")
    ranges = {place: _over_batches(seen, percentile) for place, seen in found.items()}
    for place, (low, high) in ranges.items():
        if not np.isfinite([low, high]).all():
            raise UsageError(f"{place}: not a number: the weights are damaged, or overflow")
    return ranges


def _extremes(x: "Tensor", percentile: float) -> Range:
    if percentile == 100:
        low, high = x.aminmax()
        return low.item(), high.item()
    sample = x.flatten()[:: max(1, x.numel() // _SAMPLE)].numpy()
    low, high = np.percentile(sample, (100 - percentile, percentile))
    return float(low), float(high)


def _over_batches(seen: list[Range], percentile: float) -> Range:
    lows, highs = zip(*seen, strict=True)
    if percentile == 100:
        return min(lows), max(highs)
    return float(np.mean(lows)), float(np.mean(highs))


def quantise(
    program: Program,
    ranges: Mapping[Place, Range],
    *,
    wide: Wide = Wide.NOWHERE,
    four_bits: bool = False,
) -> QuantisedProgram:
    """Round a program to whole numbers, given the (least, greatest) number of each of its places;
    with ten bits where it is to be `wide`, and most weights of `four_bits` if so.

    Raises UsageError for activations that int8 does not have, and for filters too large for ten
    bits.
    """
    affines = {
        place: affine_of(seen, largest_at(place, wide=wide))
        for place, seen in bounded_ranges(program, ranges).items()
    }

    def filter_of(stage: Stage) -> IntegerFilter:
        filter = program.steps[stage.step].filters[stage.name]
        most = largest_weight(stage.name, stage.source, wide=wide, four_bits=four_bits)
        products = filter.weight[0].size
        if most > LARGEST_WEIGHT and products * LARGEST_WIDE * (most + 1) > EXACT:
            raise UsageError(
                f"step {stage.step}, {stage.name}: sums of {products} products of ten bits each "
                "are not exact in float32"
            )
        return quantise_filter(filter, affines[stage.source].scale, most)

    filters = tuple(
        {stage.name: filter_of(stage) for stage in stages(program, index)}
        for index in range(len(program.steps))
    )
    return QuantisedProgram(program=program, filters=filters, ranges=affines)


def bounded_ranges(program: Program, ranges: Mapping[Place, Range]) -> dict[Place, Range]:
    """What was seen at each place, within what the activation in front of it can give.

    Raises UsageError for activations that int8 does not have.
    """
    return {
        place: _bounded(ranges[place], activation)
        for place, activation in _activations(program).items()
    }


def affine_of(bounds: Range, largest: int = LARGEST) -> Affine:
    """The scale and zero whose values up to `largest` cover `bounds` and stand for 0 exactly."""
    low, high = min(bounds[0], 0.0), max(bounds[1], 0.0)
    scale = float(np.float32((high - low) / largest))
    if not scale > _TINY:
        return Affine(scale=1.0, zero=0, largest=largest)
    zero = min(max(round(-low / scale), 0), largest)
    return Affine(scale=scale, zero=zero, largest=largest)


def quantise_filter(filter: Filter, scale_in: float, most: int = LARGEST_WEIGHT) -> IntegerFilter:
    """Weights and biases in whole numbers, for inputs of that scale.

    The largest weight of an output channel becomes `most`, or in four bits what makes the squared
    error of its weights least; unless its bias is so large beside it that it would leave 32 bits.
    """
    weight, bias = filter.weight.astype(np.float64), filter.bias.astype(np.float64)
    largest = np.abs(weight).max((1, 2, 3)) * (_clipped(weight) if most < LARGEST_WEIGHT else 1)
    scale = np.maximum(largest / most, np.abs(bias) / (scale_in * _LARGEST_BIAS))
    scale = np.where(scale > _TINY, scale.astype(np.float32).astype(np.float64), 1.0)
    rounded = np.rint(weight / scale[:, None, None, None])
    return IntegerFilter(
        weight=np.clip(rounded, -most, most).astype(weight_type(most)),
        scale=scale,
        bias=np.rint(bias / (scale_in * scale)).astype(np.int32),
    )


def _clipped(weight: Doubles) -> Doubles:
    """The part of each output's largest weight (O,) at which to clip, for four bits."""
    whole = np.abs(weight).max((1, 2, 3), keepdims=True)
    best, least = np.ones_like(whole), np.full_like(whole, np.inf)
    for part in _PARTS:
        unit = np.maximum(part * whole / LARGEST_FOUR_BITS, _TINY)
        near = np.clip(np.rint(weight / unit), -LARGEST_FOUR_BITS, LARGEST_FOUR_BITS) * unit
        error = ((near - weight) ** 2).sum((1, 2, 3), keepdims=True)
        best = np.where(error < least, part, best)
        least = np.minimum(error, least)
    return best[:, 0, 0, 0]


def _activations(program: Program) -> dict[Place, Activation]:
    """The activation behind which each place lies. Raises UsageError where int8 has none such."""
    found: dict[Place, Activation] = dict.fromkeys(places(program), "none")
    for index, step in enumerate(program.steps):
        own: dict[Place, Activation] = {
            stage.target: stage.activation for stage in stages(program, index) if stage.target
        }
        if isinstance(step, AddStep):
            own[Place.of(index + 1)] = step.activation
        if isinstance(step, BlockStep) and step.activation in ("relu", "relu6"):
            # a mean, and a gate from 0 to 1, leave what is not negative so
            own |= {Place(index, "pooled"): step.activation, Place(index, "gated"): step.activation}
        allowed = _ADDED if isinstance(step, AddStep) else _ALLOWED
        if refused := {*own.values(), getattr(step, "activation", "none")} - allowed:
            raise UsageError(f"step {index}: int8 has no {', '.join(sorted(refused))} here")
        found |= {place: activation for place, activation in own.items() if place in found}
    return found


def _bounded(seen: Range, activation: Activation) -> Range:
    """What was seen, within what the activation can give."""
    low, high = seen
    match activation:
        case "relu":
            return 0.0, high
        case "relu6":
            return 0.0, min(high, 6.0)
        case "hard_swish":
            return HARD_SWISH_LEAST, high
        case "hard_sigmoid":
            return 0.0, 1.0
    return low, high

"""Cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721): channels with small numbers are
scaled up in front of an activation and down behind it, so that one range fits them all.

    relu(g x) = g relu(x),  g > 0

Weights have a scale for every output channel, so what a channel's own filter is multiplied by costs
nothing: in front of a depthwise convolution the scaling is free. In front of a dense one it spreads
the weights of a row, so how far to go is tried out. A channel is scaled at most to the top of its
tensor as it was met; ReLU6's bound moves with it and lies there or above, so that what was met is
never clipped, and the float function is the same on it.

Linear bottlenecks are equalised as well, V3's too, with all blocks that add to one stream: their
channels are scaled together and moved to be centred around 0, which the biases behind make up for
(as bias absorption does); 1x1 convolutions have no border where that would show.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..integer.scheme import Doubles, Place, Wide, largest_at, largest_weight
from ..program import (
    BlockStep,
    ConvStep,
    Filter,
    Floats,
    PoolStep,
    Program,
    Step,
)
from ..progress import track
from .calibrate import Range, affine_of, quantise_filter
from .choose import FloatRun, chunks_of
from .observe import Statistics

Key = tuple[int, str]  # the step, and the filter's name in it
Reduce = Callable[[Doubles], float]

STRENGTHS = (0.0, 0.25, 0.5, 1.0)  # exponents of what would make all channels equal
_DEAD = 1e-4  # of the widest channel: one below it is as good as unused
_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Filters around one tensor, or a stream of them: the rows of `producers` are multiplied, the
    columns of `consumers`, the channels of depthwise ones, divided. `places` are all tensors that
    change. Behind a `linear` bottleneck channels may be moved too, in the first producer's bias."""

    producers: tuple[Key, ...]
    consumers: tuple[Key, ...]
    places: tuple[Place, ...]
    linear: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What x becomes, channel by channel: factors * (x - shifts), both (C,)."""

    factors: Doubles
    shifts: Doubles


def pairs(program: Program) -> Iterator[Pair]:
    """Every place where channels may be changed, in order: behind ReLU and ReLU6 where nothing else
    reads the tensor, and the streams of linear bottlenecks."""
    for index, step in enumerate(program.steps):
        if isinstance(step, BlockStep) and step.activation in ("relu", "relu6"):
            yield from _within(index, step)
        if isinstance(step, BlockStep) and step.reduce is not None:
            yield Pair(
                producers=((index, "reduce"),),
                consumers=((index, "excite"),),
                places=(Place(index, "squeezed"),),
            )
        pair = _behind(program, index, step) or _stream(program, index, step)
        if pair is not None:
            yield pair


def _within(index: int, step: BlockStep) -> Iterator[Pair]:
    if step.expand is not None:
        yield Pair(
            producers=((index, "expand"),),
            consumers=((index, "depthwise"),),
            places=(Place(index, "expanded"),),
        )
    gate = step.reduce is not None
    yield Pair(
        producers=((index, "depthwise"),),
        consumers=((index, "project"), (index, "reduce"))[: 1 + gate],
        places=tuple(
            Place(index, name) for name in ("depthwise", "pooled", "gated")[: 1 + 2 * gate]
        ),
    )


def _behind(program: Program, index: int, step: Step) -> Pair | None:
    """The pair around what a step writes, where there is one."""
    activation = {ConvStep: "activation", BlockStep: "out_activation"}.get(type(step))
    if activation is None or getattr(step, activation) not in ("relu", "relu6"):
        return None
    places, value = [], index + 1
    while True:
        places.append(Place.of(value))
        readers = [i for i, later in enumerate(program.steps) if value in later.sources]
        if len(readers) != 1 or any(value == out for _, out in program.outputs):
            return None
        (reader,) = readers
        if not isinstance(program.steps[reader], PoolStep):
            break
        value = reader + 1
    match program.steps[reader]:
        case ConvStep():
            name = "project"
        case BlockStep(residual=False, expand=None):
            name = "depthwise"
        case BlockStep(residual=False):
            name = "expand"
        case _:
            return None
    return Pair(producers=((index, "project"),), consumers=((reader, name),), places=tuple(places))


def _stream(program: Program, index: int, step: Step) -> Pair | None:
    """The pair around a bottleneck that step `index` begins and later blocks add to."""
    if not isinstance(step, BlockStep) or step.residual or step.out_activation != "none":
        return None
    producers, consumers, places = [(index, "project")], [], []
    value: int | None = index + 1
    while value is not None:
        if any(value == out for _, out in program.outputs):
            return None
        places.append(Place.of(value))
        following = None
        for reader, later in enumerate(program.steps):
            if value not in later.sources:
                continue
            match later:
                case BlockStep(expand=Filter()):
                    consumers.append((reader, "expand"))
                case ConvStep(project=Filter(kernel=1)):
                    consumers.append((reader, "project"))
                case _:
                    return None
            if isinstance(later, BlockStep) and later.residual:
                if following is not None:
                    return None
                producers.append((reader, "project"))
                following = reader + 1
        value = following
    return Pair(
        producers=tuple(producers), consumers=tuple(consumers), places=tuple(places), linear=True
    )


def change_channels(program: Program, pair: Pair, change: Change) -> Program:
    """The program with a pair's tensors changed, and all else left. Factors must be above 0, shifts
    0 unless the pair is linear."""
    steps = list(program.steps)

    def put(key: Key, weight: Doubles, bias: Doubles) -> None:
        index, name = key
        filter = Filter(weight=weight.astype(np.float32), bias=bias.astype(np.float32))
        steps[index] = replace(steps[index], **{name: filter})

    factors, shifts = change.factors, change.shifts
    for number, key in enumerate(pair.producers):
        filter = steps[key[0]].filters[key[1]]
        moved = filter.bias - shifts if number == 0 else filter.bias
        put(key, filter.weight * factors[:, None, None, None], moved * factors)
    for key in pair.consumers:
        filter = steps[key[0]].filters[key[1]]
        if key[1] == "depthwise":
            put(key, filter.weight / factors[:, None, None, None], filter.bias.astype(np.float64))
        else:
            made_up = (filter.weight.sum((2, 3), dtype=np.float64) @ shifts) + filter.bias
            put(key, filter.weight / factors[:, None, None], made_up)
    return replace(program, steps=tuple(steps))


def equalising(seen: Mapping[Place, Statistics], pair: Pair, strength: float) -> Change:
    """What brings channels of those extremes nearer to the widest: factors are 1 and above."""
    lows = np.stack([seen[place].lows.mean(0) for place in pair.places])
    highs = np.stack([seen[place].highs.mean(0) for place in pair.places])
    if pair.linear:
        shifts, widths = ((lows + highs) / 2).mean(0), highs - lows
    else:
        shifts = np.zeros(lows.shape[1])
        widths = np.stack([seen[place].highs.max(0) for place in pair.places])
    # a channel's width beside the widest, at the place where it is greatest
    part = (widths / np.maximum(widths.max(1, keepdims=True), _TINY)).max(0)
    alive = part > _DEAD
    factors = np.where(alive, 1 / np.where(alive, part, 1), 1.0) ** strength
    return Change(factors=factors, shifts=shifts)


def equalise(
    program: Program,
    seen: Mapping[Place, Statistics],
    images: Floats,
    *,
    wide: Wide = Wide.NOWHERE,
    four_bits: bool = False,
) -> tuple[Program, dict[Pair, float | None]]:
    """The program with its pairs changed, each as far as makes the squared error of the outputs for
    images (N, 3, H, W) least when its tensors and the filters behind it are rounded, to ten bits
    where a `wide` network is, to `four_bits` where most weights are; and how far, None where that
    is not at all.

    The function in float32 is the same for all that was `seen`.
    """
    runs = [FloatRun(program, part) for part in chunks_of(images)]
    changed, strengths = program, {}
    for pair in track(tuple(pairs(program)), desc="equalising", unit="place"):
        channels = len(seen[pair.places[0]].lows[0])
        none = Change(factors=np.ones(channels), shifts=np.zeros(channels))
        offered = {s: equalising(seen, pair, s) for s in STRENGTHS if s or pair.linear}
        errors = {
            strength: _error(program, runs, seen, pair, change, wide=wide, four_bits=four_bits)
            for strength, change in ((None, none), *offered.items())
        }
        best = min(errors, key=errors.__getitem__)
        strengths[pair] = best
        if best is not None:
            changed = change_channels(changed, pair, offered[best])
    return changed, strengths


def _error(
    program: Program,
    runs: list[FloatRun],
    seen: Mapping[Place, Statistics],
    pair: Pair,
    change: Change,
    *,
    wide: Wide,
    four_bits: bool,
) -> float:
    """That of the outputs with the pair changed, its tensors rounded in the better of two ranges:
    to the greatest numbers met, and to the mean batch's greatest."""
    moved = change_channels(program, pair, change)
    changed = _with_rounded(moved, pair, wide=wide, four_bits=four_bits)
    start = min(index for index, _ in pair.producers)
    return min(
        sum(run.error(changed, ranges, start) for run in runs)
        for ranges in (
            {
                place: affine_of(_ends(seen[place], change, *how), largest_at(place, wide=wide))
                for place in pair.places
            }
            for how in ((np.min, np.max), (np.mean, np.mean))
        )
    )


def _ends(seen: Statistics, change: Change, lowest: Reduce, highest: Reduce) -> Range:
    lows = ((seen.lows - change.shifts) * change.factors).min(1)
    highs = ((seen.highs - change.shifts) * change.factors).max(1)
    return float(lowest(lows)), float(highest(highs))


def _with_rounded(program: Program, pair: Pair, *, wide: Wide, four_bits: bool) -> Program:
    """The program with the weights of the pair's consumers as int8 would have them."""
    steps = list(program.steps)
    for index, name in pair.consumers:
        filter = steps[index].filters[name]
        most = largest_weight(name, pair.places[-1], wide=wide, four_bits=four_bits)
        found = quantise_filter(filter, 1.0, most)
        weight = found.weight * found.scale[:, None, None, None]
        steps[index] = replace(
            steps[index], **{name: replace(filter, weight=weight.astype(np.float32))}
        )
    return replace(program, steps=tuple(steps))

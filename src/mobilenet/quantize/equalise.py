"""Cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721): channels with small numbers are
scaled up in front of an activation and down behind it, so that one range fits them all.

    relu(g x) = g relu(x),  g > 0

Weights have a scale for every output channel, so what a channel's own filter is multiplied by costs
nothing: in front of a depthwise convolution the scaling is free. In front of a dense one it spreads
the weights of a row, so how far to go is tried out. A channel is scaled at most to the top of its
tensor as it was met; ReLU6's bound moves with it and lies there or above, so that what was met is
never clipped, and the float function is the same on it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..integer.scheme import Affine, Doubles, Place
from ..program import (
    BlockStep,
    ConvStep,
    Filter,
    Floats,
    PoolStep,
    Program,
    Step,
)
from .calibrate import affine_of, quantise_filter
from .choose import FloatRun, chunks_of
from .observe import Statistics

Key = tuple[int, str]  # the step, and the filter's name in it
Advance = Callable[[int], None]

STRENGTHS = (0.0, 0.25, 0.5, 1.0)  # exponents of what would make all channels equal
_DEAD = 1e-4  # of the tensor's top: a channel below it is as good as unused


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Filters around one tensor: the rows of `producer` are multiplied, the columns of
    `consumers`, the channels of depthwise ones, divided. `places` are all tensors that scale."""

    producer: Key
    consumers: tuple[Key, ...]
    places: tuple[Place, ...]


def pairs(program: Program) -> Iterator[Pair]:
    """Every place where channels may be scaled, in order: behind ReLU and ReLU6, where nothing
    else reads the tensor."""
    for index, step in enumerate(program.steps):
        if isinstance(step, BlockStep) and step.activation in ("relu", "relu6"):
            yield from _within(index, step)
        if isinstance(step, BlockStep) and step.reduce is not None:
            yield Pair(
                producer=(index, "reduce"),
                consumers=((index, "excite"),),
                places=(Place(index, "squeezed"),),
            )
        pair = _behind(program, index, step)
        if pair is not None:
            yield pair


def _within(index: int, step: BlockStep) -> Iterator[Pair]:
    if step.expand is not None:
        yield Pair(
            producer=(index, "expand"),
            consumers=((index, "depthwise"),),
            places=(Place(index, "expanded"),),
        )
    gate = step.reduce is not None
    yield Pair(
        producer=(index, "depthwise"),
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
    return Pair(producer=(index, "project"), consumers=((reader, name),), places=tuple(places))


def scale_channels(program: Program, pair: Pair, factors: Doubles) -> Program:
    """The program with a pair's tensor multiplied by `factors` (C,), above 0, and all else left."""
    steps = list(program.steps)

    def put(key: Key, filter: Filter) -> None:
        steps[key[0]] = replace(steps[key[0]], **{key[1]: filter})

    index, name = pair.producer
    filter = steps[index].filters[name]
    put(pair.producer, _filter(filter, factors[:, None, None, None], factors))
    for index, name in pair.consumers:
        filter = steps[index].filters[name]
        across = factors[:, None, None, None] if name == "depthwise" else factors[:, None, None]
        put((index, name), _filter(filter, 1 / across, np.ones(filter.outputs)))
    return replace(program, steps=tuple(steps))


def _filter(filter: Filter, weight: Doubles, bias: Doubles) -> Filter:
    return Filter(
        weight=(filter.weight * weight).astype(np.float32),
        bias=(filter.bias * bias).astype(np.float32),
    )


def equalising(seen: Statistics, strength: float) -> Doubles:
    """The factors (C,), 1 and above, that bring channels of those extremes nearer to the top."""
    highs = seen.highs.max(0)
    top = highs.max()
    alive = highs > _DEAD * top
    return np.where(alive, (top / np.where(alive, highs, 1)) ** strength, 1.0)


def equalise(
    program: Program,
    seen: Mapping[Place, Statistics],
    images: Floats,
    *,
    advance: Advance = lambda pair: None,
) -> tuple[Program, dict[Pair, float]]:
    """The program with its pairs scaled, each as far as makes the squared error of the outputs for
    images (N, 3, H, W) least when its tensors and the filters behind it are rounded; and how far.

    The function in float32 is the same for all that was `seen`.
    """
    runs = [FloatRun(program, part) for part in chunks_of(images)]
    changed, strengths = program, {}
    for number, pair in enumerate(pairs(program)):
        errors = {}
        for strength in STRENGTHS:
            factors = equalising(seen[pair.places[0]], strength)
            scaled = _with_rounded(scale_channels(program, pair, factors), pair)
            errors[strength] = min(
                sum(run.error(scaled, ranges, pair.producer[0]) for run in runs)
                for ranges in _ranges(seen, pair, factors)
            )
        strengths[pair] = min(errors, key=errors.__getitem__)
        factors = equalising(seen[pair.places[0]], strengths[pair])
        changed = scale_channels(changed, pair, factors)
        advance(number)
    return changed, strengths


def _ranges(
    seen: Mapping[Place, Statistics], pair: Pair, factors: Doubles
) -> list[dict[Place, Affine]]:
    """Ranges of the scaled tensors: to the greatest number, and to the mean batch's greatest."""
    highs = {place: (seen[place].highs * factors).max(1) for place in pair.places}
    return [
        {place: affine_of((0.0, float(found(high)))) for place, high in highs.items()}
        for found in (np.max, np.mean)
    ]


def _with_rounded(program: Program, pair: Pair) -> Program:
    """The program with the weights of the pair's dense consumers as int8 would have them."""
    steps = list(program.steps)
    for index, name in pair.consumers:
        filter = steps[index].filters[name]
        found = quantise_filter(filter, 1.0)
        weight = found.weight * found.scale[:, None, None, None]
        steps[index] = replace(
            steps[index], **{name: replace(filter, weight=weight.astype(np.float32))}
        )
    return replace(program, steps=tuple(steps))

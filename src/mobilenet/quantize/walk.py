"""Through an int8 network step by step, the float network beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..integer import Affine, IntegerFilter, Place, QuantisedProgram
from ..integer.simulate import SimulatedFilter, Simulation
from ..program import IMAGE, Floats
from .trace import run_step

_CHUNK = 8  # pictures at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Visit:
    """A step that has filters: what the int8 network gives it (values minus zero; the image's
    too), and what it should answer in float32, both (N, C, H, W). The latter within the range of
    the step's output: what that clips is not to be had back, and to aim at it would spoil the rest.
    Whoever visits may replace `simulation.filters` of the step; the walk goes on with them."""

    simulation: Simulation
    index: int
    inputs: list[Tensor]
    target: Tensor


def walk(quantised: QuantisedProgram, images: Floats) -> Iterator[Visit]:
    """Every step that has filters, in order, for images (N, 3, H, W)."""
    program, simulation = quantised.program, Simulation.of(quantised)
    read = program.read()
    real = {IMAGE: torch.from_numpy(images)}
    given = {IMAGE: in_chunks(simulation.image, [real[IMAGE]])}
    for index, step in enumerate(program.steps):
        target = in_chunks(
            lambda *x, step=step: run_step(step, list(x), lambda _, y: y),
            [real[source] for source in step.sources],
        )
        inputs = [given[source] for source in step.sources]
        if step.filters:
            held = _within(target, quantised.ranges.get(Place.of(index + 1)))
            yield Visit(simulation=simulation, index=index, inputs=inputs, target=held)
        if index + 1 in read:
            real[index + 1] = target
            given[index + 1] = in_chunks(
                lambda *x, index=index: simulation.run_step(index, list(x)), inputs
            )
        for source in set(step.sources):
            if all(source not in later.sources for later in program.steps[index + 1 :]):
                del real[source], given[source]


def _within(target: Tensor, range_: Affine | None) -> Tensor:
    if range_ is None:
        return target
    ends = (-range_.zero * range_.scale, (range_.largest - range_.zero) * range_.scale)
    return target.clamp(*ends)


def simulated(filter: IntegerFilter) -> SimulatedFilter:
    """A filter as the simulation takes it."""
    return SimulatedFilter(
        weight=torch.from_numpy(filter.weight.astype(np.float32)),
        bias=torch.from_numpy(filter.bias.astype(np.float64)),
    )


def in_chunks(function: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    """`function` of all pictures, a few at a time, without gradients."""
    with torch.no_grad():
        parts = zip(*(x.split(_CHUNK) for x in inputs), strict=True)
        return torch.cat([function(*part) for part in parts])

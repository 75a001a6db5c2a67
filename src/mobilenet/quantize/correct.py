"""Bias correction (Nagel et al. 2019, arXiv 1906.04721, 4.2), empirical: rounding moves the mean of
every channel; the bias moves it back."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..integer import IntegerFilter, Place, QuantisedProgram, stages
from ..integer.scheme import Doubles
from ..program import Floats
from .walk import Visit, in_chunks, simulated, walk

Advance = Callable[[int], None]

_LARGEST_BIAS = 2.0**30
_LAST = "project"  # the filter whose bias moves what a step writes


def correct_biases(
    quantised: QuantisedProgram,
    images: Floats,
    *,
    advance: Advance = lambda step: None,
) -> QuantisedProgram:
    """The same network with the mean of every step's channels as in float32, given images (N, 3, H,
    W): step by step, each given what the int8 network in front of it answers."""
    filters = [dict(step) for step in quantised.filters]
    for visit in walk(quantised, images):
        filter = filters[visit.index][_LAST]
        moved = _moved(quantised, visit, filter)
        filters[visit.index][_LAST] = moved
        visit.simulation.filters[visit.index, _LAST] = simulated(moved)
        advance(visit.index)
    return replace(quantised, filters=tuple(filters))


def _moved(quantised: QuantisedProgram, visit: Visit, filter: IntegerFilter) -> IntegerFilter:
    """The filter with the mean error of its step taken off its bias."""
    found = in_chunks(lambda *x: visit.simulation.run_step(visit.index, list(x)), visit.inputs)
    place = Place.of(visit.index + 1)
    unit = quantised.ranges[place].scale if place in quantised.ranges else 1.0
    error: Doubles = (found.double() * unit - visit.target).mean((0, 2, 3)).numpy()
    (source,) = (s.source for s in stages(quantised.program, visit.index) if s.name == _LAST)
    step = quantised.ranges[source].scale * filter.scale
    bias = np.clip(np.rint(filter.bias - error / step), -_LARGEST_BIAS, _LARGEST_BIAS)
    return replace(filter, bias=bias.astype(np.int32))

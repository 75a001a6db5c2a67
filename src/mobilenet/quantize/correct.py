"""Bias correction (Nagel et al. 2019, arXiv 1906.04721, 4.2), empirical: rounding moves the mean of
every channel; the bias moves it back."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from ..integer import IntegerFilter, Place, QuantisedProgram, stages
from ..integer.scheme import Doubles
from ..program import Floats
from ..progress import track
from .walk import Visit, in_chunks, simulated, walk

_LARGEST_BIAS = 2.0**30
_LAST = "project"  # the filter whose bias moves what a step writes


def correct_biases(quantised: QuantisedProgram, images: Floats) -> QuantisedProgram:
    """The same network with the mean of every step's channels as in float32, given images (N, 3, H,
    W): step by step, each given what the int8 network in front of it answers. Steps whose squared
    error does not fall stay as they are: where a range clips rare large numbers, their mean is not
    to be had back from all others."""
    filters = [dict(step) for step in quantised.filters]
    steps = len(quantised.program.steps)
    for visit in track(walk(quantised, images), total=steps, desc="biases", unit="step"):
        key, filter = (visit.index, _LAST), filters[visit.index][_LAST]
        error = _error(quantised, visit)
        moved = _moved(quantised, visit, filter, error)
        visit.simulation.filters[key] = simulated(moved)
        if float((_error(quantised, visit) ** 2).mean()) < float((error**2).mean()):
            filters[visit.index][_LAST] = moved
        else:
            visit.simulation.filters[key] = simulated(filter)
    return replace(quantised, filters=tuple(filters))


def _error(quantised: QuantisedProgram, visit: Visit) -> Tensor:
    """Of what the step answers as it is now (N, C, H, W)."""
    found = in_chunks(lambda *x: visit.simulation.run_step(visit.index, list(x)), visit.inputs)
    place = Place.of(visit.index + 1)
    unit = quantised.ranges[place].scale if place in quantised.ranges else 1.0
    return found.double() * unit - visit.target


def _moved(
    quantised: QuantisedProgram, visit: Visit, filter: IntegerFilter, error: Tensor
) -> IntegerFilter:
    """The filter with the mean error of its step taken off its bias."""
    mean: Doubles = error.mean((0, 2, 3)).numpy()
    (source,) = (s.source for s in stages(quantised.program, visit.index) if s.name == _LAST)
    step = quantised.ranges[source].scale * filter.scale
    bias = np.clip(np.rint(filter.bias - mean / step), -_LARGEST_BIAS, _LARGEST_BIAS)
    return replace(filter, bias=bias.astype(np.int32))

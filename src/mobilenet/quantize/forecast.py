"""How long a network will take in the native engine: its work, by kind, at the rates at which the
engine does that kind of work in other networks on this machine. What is measured of the network
itself stands beside it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from statistics import median

import numpy as np

from ..flat import Card, EngineFile, write_engine
from ..models import MODELS
from ..networks import random_network
from ..program import (
    IMAGE,
    AveragePoolStep,
    BlockStep,
    ConvStep,
    PoolStep,
    Program,
    ResizeStep,
    program_of,
)
from ..program.geometry import out_size
from ..runtime import Precision
from ..runtime.engine import open_model, plan
from .calibrate import quantise_program

# name and width; between them they do every kind of work
REFERENCES = (("mobilenet_v2", 0.75), ("mobilenet_v3_large", 0.75))
_SIZE, _PROFILES, _RUNS = 160, 9, 5
_REST = "rest"  # what is no multiplication: by the numbers that are written
_KINDS = {"expand": "pointwise", "project": "pointwise", "last": "pointwise"}  # of a profile

Work = Mapping[str, float]
Rates = Mapping[str, float]


def work_of(program: Program, size: int) -> Work:
    """Multiply-adds of one image of a square `size` by kind: "stem", "pointwise" (all ordinary
    convolutions behind it), "depthwise", "squeeze-excite", "classifier"; and as "rest" the numbers
    that are written."""
    sizes = [size]
    channels = program.channels()
    work: dict[str, float] = defaultdict(float)
    for index, step in enumerate(program.steps):
        before = sizes[step.sources[0]]
        after = before
        match step:
            case ConvStep():
                after = out_size(before, step.stride)
                kind = "stem" if IMAGE in step.sources else "pointwise"
                work["classifier" if after == 1 else kind] += step.project.weight.size * after**2
            case BlockStep():
                after = out_size(before, step.stride)
                if step.expand is not None:
                    work["pointwise"] += step.expand.weight.size * before**2
                work["depthwise"] += step.depthwise.weight.size * after**2
                if step.reduce is not None and step.excite is not None:
                    work["squeeze-excite"] += step.reduce.weight.size + step.excite.weight.size
                work["pointwise"] += step.project.weight.size * after**2
            case PoolStep():
                after = 1
            case AveragePoolStep():
                after = (before - step.kernel) // step.stride + 1
            case ResizeStep():
                after = sizes[step.sources[1]]
        sizes.append(after)
        work[_REST] += channels[index + 1] * after**2
    return work


@cache
def measure_rates(precision: Precision) -> Rates:
    """Seconds of a unit of each kind of work in the native engine, one thread of this machine, as
    measured on `REFERENCES`. Raises MissingEngine."""
    seconds: dict[str, float] = defaultdict(float)
    units: dict[str, float] = defaultdict(float)
    image = np.random.default_rng(0).standard_normal((1, 3, _SIZE, _SIZE), np.float32)
    for name, width in REFERENCES:
        program = program_of(random_network(replace(MODELS[name], width=width), _SIZE))
        network = quantise_program(program, [image]) if precision == "int8" else program
        file = EngineFile(
            network=network, precision=precision, height=_SIZE, width=_SIZE, card=Card()
        )
        engine = plan(open_model(write_engine(file)))
        engine.profile(image, _RUNS)  # warms up
        profiles = [engine.profile(image, _RUNS) for _ in range(_PROFILES)]
        for same in zip(*profiles, strict=True):  # one line of all of them
            kind: str = same[0][1]
            seconds[_KINDS.get(kind, kind)] += median(line[2] for line in same)
        for kind, amount in work_of(program, _SIZE).items():
            units[kind] += amount
    return {kind: seconds[kind] / units[kind] for kind in units}


def forecast_ms(program: Program, size: int, precision: Precision) -> float:
    """Milliseconds of one image on one thread of this machine. Raises MissingEngine."""
    rates = measure_rates(precision)
    return 1000 * sum(units * rates[kind] for kind, units in work_of(program, size).items())

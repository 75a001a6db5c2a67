"""int8 networks: their scheme, the exact arithmetic that defines them, and calibration."""

from .calibrate import observe_ranges, quantise, quantise_program
from .reference import run_integer
from .scheme import (
    Affine,
    IntegerFilter,
    Place,
    QuantisedProgram,
    Stage,
    multiplier,
    places,
    result_scale,
    stages,
)

__all__ = [
    "Affine",
    "IntegerFilter",
    "Place",
    "QuantisedProgram",
    "Stage",
    "multiplier",
    "observe_ranges",
    "places",
    "quantise",
    "quantise_program",
    "result_scale",
    "run_integer",
    "stages",
]

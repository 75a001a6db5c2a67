"""int8 networks: their scheme, and the exact arithmetic that defines them."""

from .reference import run_integer
from .scheme import (
    LARGEST,
    LARGEST_WEIGHT,
    LARGEST_WIDE,
    Affine,
    IntegerFilter,
    Place,
    QuantisedProgram,
    Stage,
    is_wide_filter,
    is_wide_place,
    multiplier,
    places,
    result_scale,
    stages,
)

__all__ = [
    "LARGEST",
    "LARGEST_WEIGHT",
    "LARGEST_WIDE",
    "Affine",
    "IntegerFilter",
    "Place",
    "QuantisedProgram",
    "Stage",
    "is_wide_filter",
    "is_wide_place",
    "multiplier",
    "places",
    "result_scale",
    "run_integer",
    "stages",
]

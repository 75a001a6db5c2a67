"""int8 networks: their scheme, and the exact arithmetic that defines them."""

from .reference import run_integer
from .scheme import (
    LARGEST,
    LARGEST_WEIGHT,
    Affine,
    IntegerFilter,
    Place,
    QuantisedProgram,
    Stage,
    Wide,
    largest_at,
    largest_weight,
    multiplier,
    places,
    result_scale,
    stages,
    weight_type,
)

__all__ = [
    "LARGEST",
    "LARGEST_WEIGHT",
    "Affine",
    "IntegerFilter",
    "Place",
    "QuantisedProgram",
    "Stage",
    "Wide",
    "largest_at",
    "largest_weight",
    "multiplier",
    "places",
    "result_scale",
    "run_integer",
    "stages",
    "weight_type",
]

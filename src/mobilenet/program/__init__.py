"""A network as a short straight program: planned from its rows, run by the engine."""

from .builder import Builder
from .evaluate import evaluate_float
from .plan import (
    LOGITS,
    append_separable,
    backbone_program,
    folded_filter,
    plain_filter,
    program_of,
)
from .steps import (
    FILTERS,
    IMAGE,
    IMAGE_CHANNELS,
    Activation,
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConcatStep,
    ConvStep,
    Filter,
    Floats,
    MultiplyStep,
    Padding,
    PoolStep,
    Program,
    ResizeStep,
    Step,
)

__all__ = [
    "FILTERS",
    "IMAGE",
    "IMAGE_CHANNELS",
    "LOGITS",
    "Activation",
    "AddStep",
    "AveragePoolStep",
    "BlockStep",
    "Builder",
    "ConcatStep",
    "ConvStep",
    "Filter",
    "Floats",
    "MultiplyStep",
    "Padding",
    "PoolStep",
    "Program",
    "ResizeStep",
    "Step",
    "append_separable",
    "backbone_program",
    "evaluate_float",
    "folded_filter",
    "plain_filter",
    "program_of",
]

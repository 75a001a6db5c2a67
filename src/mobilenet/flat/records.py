"""The records of the engine's model file, one flat file that is mapped and used where it lies.

    header | a record a step | a record an output | text and weights

Everything is little-endian and every array starts at a multiple of 64. `engine/format/format.h`
says what the fields mean.
"""

from dataclasses import dataclass

import numpy as np

from ..integer import QuantisedProgram
from ..program import (
    FILTERS,
    Activation,
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConcatStep,
    ConvStep,
    MultiplyStep,
    Padding,
    PoolStep,
    Program,
    ResizeStep,
    Step,
)
from ..runtime import Precision

MAGIC = b"MBNET\r\n\0"
VERSION = 1
NONE = 0xFFFFFFFF  # no value, where one is optional
ALIGN = 64
UNSUPPORTED_RESIZE = NONE

# places in these are the numbers that the file holds
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
# fmt: off
ACTIVATIONS: tuple[Activation, ...] = (
    "none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid",
)
# fmt: on
PADDINGS: tuple[Padding, ...] = ("symmetric", "same")
KINDS: dict[type[Step], int] = {
    ConvStep: 1,
    BlockStep: 2,
    PoolStep: 3,
    AddStep: 4,
    MultiplyStep: 5,
    ConcatStep: 6,
    ResizeStep: 7,
    AveragePoolStep: 8,
}
RANGES = ("expanded", "depthwise", "pooled", "squeezed", "gated", "out")

AFFINE = np.dtype([("scale", "<f4"), ("zero", "<i4")])
CONV = np.dtype([(name, "<u8") for name in ("weights", "bias", "multiplier", "weight_sum")])
# fmt: off
STEP = np.dtype(
    [(name, "<u4") for name in ("kind", "activation", "out_activation", "padding")]
    + [("inputs", "<u4", 4)]
    + [(name, "<u4") for name in (
        "in_channels", "expanded", "out_channels", "squeeze",
        "kernel", "stride", "dilation", "residual",
    )]
    + [(name, CONV) for name in FILTERS]
    + [(f"{name}_range", AFFINE) for name in RANGES]
)
OUTPUT = np.dtype([("value", "<u4"), ("name", "<u4")])
HEADER = np.dtype([
    ("magic", "V8"), ("version", "<u4"), ("precision", "<u4"),
    ("file_bytes", "<u8"), ("checksum", "<u8"),
    ("step_count", "<u4"), ("output_count", "<u4"), ("height", "<u4"), ("width", "<u4"),
    ("in_range", AFFINE),
    ("text", "<u8"), ("text_bytes", "<u8"), ("contract", "<u8"), ("contract_bytes", "<u8"),
    ("labels", "<u4"), ("label_count", "<u4"),
    ("mean", "<f4", 3), ("std", "<f4", 3), ("resize", "<u4"), ("filter", "<u4"),
    ("wide", "<u4"), ("reserved", "<u4", 3),
])
# fmt: on
assert (HEADER.itemsize, STEP.itemsize, OUTPUT.itemsize) == (144, 272, 8)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a file carries beside its network.

    `contract`: the text of model.json. `mean` and `std`: of RGB in 0...1. `resize`: the shorter
    side in pixels before the crop, 0 where the whole picture is squeezed, `UNSUPPORTED_RESIZE`
    where neither is the rule. `filter`: 0 bilinear, 1 bicubic.
    """

    contract: str = "{}"
    labels: tuple[str, ...] = ()
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resize: int = 0
    filter: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class EngineFile:
    """A file's content; `network` is a `QuantisedProgram` exactly where `precision` is int8."""

    network: Program | QuantisedProgram
    precision: Precision
    height: int
    width: int
    card: Card

    @property
    def program(self) -> Program:
        """The steps, whatever their precision."""
        network = self.network
        return network.program if isinstance(network, QuantisedProgram) else network

"""The steps of a program: weights in NumPy, and how values lead from one step to the next.

Value 0 is the input image (N, 3, H, W); step i writes value i + 1 and reads only earlier values.
Sizes are not part of a program: they follow from the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Activation = Literal["none", "relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid"]
Padding = Literal["symmetric", "same"]

IMAGE = 0  # the value that is the input
IMAGE_CHANNELS = 3
FILTERS = ("expand", "depthwise", "reduce", "excite", "project")  # in the order they are applied


@dataclass(frozen=True, kw_only=True, eq=False)
class Filter:
    """A convolution's weight (outputs, inputs, k, k), depthwise (channels, 1, k, k), and its bias
    (outputs,), float32; batch norms are folded in."""

    weight: Floats
    bias: Floats

    @property
    def outputs(self) -> int:
        return self.weight.shape[0]

    @property
    def inputs(self) -> int:
        return self.weight.shape[1]

    @property
    def kernel(self) -> int:
        return self.weight.shape[2]


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """`sources`: the values that it reads."""

    sources: tuple[int, ...]

    @property
    def filters(self) -> Mapping[str, Filter]:
        """Its filters by name, in the order of `FILTERS`."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: found[name] for name in FILTERS if isinstance(found.get(name), Filter)}


@dataclass(frozen=True, kw_only=True, eq=False)
class ConvStep(Step):
    """An ordinary convolution and its activation; without dilation where it reads the image."""

    project: Filter
    stride: int = 1
    dilation: int = 1
    padding: Padding = "symmetric"
    activation: Activation = "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockStep(Step):
    """[1x1 expand,] depthwise, [squeeze-excite,] 1x1 project[, plus the input].

    `activation` is that of expand and depthwise, `out_activation` that of project. Squeeze-excite
    is `reduce` and `excite`: a 1x1 convolution with ReLU, one with hard sigmoid.
    """

    expand: Filter | None = None
    depthwise: Filter
    reduce: Filter | None = None
    excite: Filter | None = None
    project: Filter
    stride: int = 1
    dilation: int = 1
    padding: Padding = "symmetric"
    activation: Activation = "none"
    out_activation: Activation = "none"
    residual: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class PoolStep(Step):
    """The mean over all pixels: a 1x1 map."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AddStep(Step):
    """The sum of two maps of one shape, then the activation."""

    activation: Activation = "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class MultiplyStep(Step):
    """The first map times the second, a 1x1 map, channel by channel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConcatStep(Step):
    """The channels of two to four maps of one size, each a multiple of 16 but the last."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResizeStep(Step):
    """The first map, bilinear with half-pixel centres, at the height and width of the second."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AveragePoolStep(Step):
    """The mean of every kernel x kernel window, without padding."""

    kernel: int
    stride: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """Steps in order, and which values are answers under which names.

    Raises ValueError for steps that do not fit together.
    """

    steps: tuple[Step, ...]
    outputs: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        self.channels()
        named = {value for _, value in self.outputs}
        if not named or not named <= set(range(1, len(self.steps) + 1)):
            raise ValueError(f"outputs {self.outputs}: expected values 1 to {len(self.steps)}")
        if unused := set(range(1, len(self.steps) + 1)) - named - self.read():
            raise ValueError(f"values {sorted(unused)} are neither read nor an output")

    def read(self) -> frozenset[int]:
        """The values that a later step reads."""
        return frozenset(source for step in self.steps for source in step.sources)

    def channels(self) -> tuple[int, ...]:
        """Channels of every value, the image's first."""
        found = [IMAGE_CHANNELS]
        for index, step in enumerate(self.steps):
            if not step.sources or not all(0 <= source <= index for source in step.sources):
                raise ValueError(f"step {index} reads {step.sources}: expected values 0 to {index}")
            if IMAGE in step.sources and not (isinstance(step, ConvStep) and step.dilation == 1):
                raise ValueError(f"step {index}: only undilated convolutions read the image")
            try:
                found.append(_channels(step, [found[source] for source in step.sources]))
            except ValueError as error:
                raise ValueError(f"step {index}: {error}") from None
        return tuple(found)


def _channels(step: Step, inputs: list[int]) -> int:
    """Channels of what a step writes. Raises ValueError where its filters or inputs do not fit."""
    expected = {AddStep: (2, 2), MultiplyStep: (2, 2), ResizeStep: (2, 2), ConcatStep: (2, 4)}
    least, most = expected.get(type(step), (1, 1))
    if not least <= len(inputs) <= most:
        raise ValueError(f"{len(inputs)} inputs: expected {least} to {most}")
    for name, filter in step.filters.items():
        _check_filter(name, filter)
    if isinstance(step, BlockStep | AddStep) and "sigmoid" in vars(step).values():
        raise ValueError("only a convolution has a sigmoid")
    match step:
        case ConvStep():
            _expect(step.project.inputs, inputs[0])
            return step.project.outputs
        case BlockStep():
            return _block_channels(step, inputs[0])
        case AddStep() | MultiplyStep():
            _expect(inputs[1], inputs[0])
        case ConcatStep():
            if any(channels % 16 for channels in inputs[:-1]):
                raise ValueError(f"channels {inputs}: all but the last must be multiples of 16")
            return sum(inputs)
    return inputs[0]


def _check_filter(name: str, filter: Filter) -> None:
    if filter.kernel % 2 == 0 or filter.weight.shape[2] != filter.weight.shape[3]:
        raise ValueError(f"{name}: kernel {filter.weight.shape[2:]}: expected odd and square")
    if filter.bias.shape != (filter.outputs,):
        raise ValueError(f"{name}: bias {filter.bias.shape} for {filter.outputs} outputs")
    for array in (filter.weight, filter.bias):
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite float32 weights")


def _block_channels(step: BlockStep, channels: int) -> int:
    if (step.reduce is None) != (step.excite is None):
        raise ValueError("squeeze-excite has two filters, reduce and excite")
    width = channels
    if step.expand is not None:
        _expect(step.expand.inputs, channels)
        width = step.expand.outputs
    _expect(step.depthwise.weight.shape[:2], (width, 1))
    if step.reduce is not None and step.excite is not None:
        _expect((step.reduce.inputs, step.excite.inputs), (width, step.reduce.outputs))
        _expect(step.excite.outputs, width)
    _expect(step.project.inputs, width)
    pointwise = (step.expand, step.reduce, step.excite, step.project)
    if any(filter is not None and filter.kernel != 1 for filter in pointwise):
        raise ValueError("only the depthwise filter of a block has a kernel above 1")
    if step.residual:
        _expect(step.project.outputs, channels)
        if step.stride != 1 or step.out_activation != "none":
            raise ValueError("a residual needs stride 1 and no activation behind project")
    return step.project.outputs


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise ValueError(f"channels {found}: expected {expected}")

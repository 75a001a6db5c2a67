"""A float program in torch: fast enough for hundreds of pictures, with every tensor shown."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..integer.scheme import Place
from ..program import (
    IMAGE,
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
from ..program.geometry import pads

Observer = Callable[[Place, Tensor], None]

_ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
}


def run_float(
    program: Program, images: Floats, *, observe: Observer | None = None
) -> dict[str, Floats]:
    """The outputs (N, C, H, W) in float32 for images (N, 3, H, W).

    `observe` is shown the image and every tensor that `Place` names, those of outputs included.
    """
    values: list[Tensor] = []

    def keep(place: Place, x: Tensor) -> Tensor:
        if observe is not None:
            observe(place, x)
        return x

    with torch.inference_mode():
        image = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        values.append(keep(Place.of(IMAGE), image))
        for index, step in enumerate(program.steps):
            inputs = [values[source] for source in step.sources]

            def inside(name: str, x: Tensor, index: int = index) -> Tensor:
                return keep(Place(index, name), x)

            values.append(inside("out", run_step(step, inputs, inside)))
        return {name: values[value].numpy() for name, value in program.outputs}


def run_step(step: Step, inputs: list[Tensor], inside: Callable[[str, Tensor], Tensor]) -> Tensor:
    """What a step makes of its sources; `inside` is given, and gives back, a block's tensors."""
    x = inputs[0]
    match step:
        case ConvStep():
            y = _conv(x, step.project, step.stride, step.dilation, step.padding)
            return _ACTIVATIONS[step.activation](y)
        case BlockStep():
            return _block(step, x, inside)
        case PoolStep():
            return x.mean((2, 3), keepdim=True)
        case AddStep():
            return _ACTIVATIONS[step.activation](x + inputs[1])
        case MultiplyStep():
            return x * inputs[1]
        case ConcatStep():
            return torch.cat(inputs, dim=1)
        case ResizeStep():
            size = inputs[1].shape[2:]
            return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        case AveragePoolStep():
            return F.avg_pool2d(x, step.kernel, step.stride)
    raise AssertionError(step)


def _block(step: BlockStep, x: Tensor, inside: Callable[[str, Tensor], Tensor]) -> Tensor:
    act = _ACTIVATIONS[step.activation]
    y = x
    if step.expand is not None:
        y = inside("expanded", act(_conv(y, step.expand)))
    y = _conv(y, step.depthwise, step.stride, step.dilation, step.padding, groups=y.shape[1])
    y = inside("depthwise", act(y))
    if step.reduce is not None and step.excite is not None:
        pooled = inside("pooled", y.mean((2, 3), keepdim=True))
        squeezed = inside("squeezed", F.relu(_conv(pooled, step.reduce)))
        y = inside("gated", y * F.hardsigmoid(_conv(squeezed, step.excite)))
    y = _ACTIVATIONS[step.out_activation](_conv(y, step.project))
    return x + y if step.residual else y


def _conv(
    x: Tensor,
    filter: Filter,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "symmetric",
    *,
    groups: int = 1,
) -> Tensor:
    top, bottom = pads(x.shape[2], filter.kernel, stride, dilation, padding)
    left, right = pads(x.shape[3], filter.kernel, stride, dilation, padding)
    if (top, left) == (bottom, right):
        around = (top, left)
    else:
        x, around = F.pad(x, (left, right, top, bottom)), (0, 0)
    weight, bias = torch.from_numpy(filter.weight), torch.from_numpy(filter.bias)
    return F.conv2d(
        x, weight, bias, stride=stride, padding=around, dilation=dilation, groups=groups
    )

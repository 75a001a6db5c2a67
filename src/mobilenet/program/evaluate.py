"""`evaluate_float`: a program in float64 NumPy, slow and plain, to test everything else against."""

import numpy as np
from numpy.typing import NDArray

from .geometry import bilinear, windows
from .steps import (
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

Doubles = NDArray[np.float64]


def evaluate_float(program: Program, images: Floats) -> dict[str, Doubles]:
    """The outputs (N, C, H, W) by name for images (N, 3, H, W)."""
    values: list[Doubles] = [images.astype(np.float64)]
    for step in program.steps:
        values.append(_run(step, [values[source] for source in step.sources]))
    return {name: values[value] for name, value in program.outputs}


def _run(step: Step, inputs: list[Doubles]) -> Doubles:
    x = inputs[0]
    match step:
        case ConvStep():
            y = _conv(x, step.project, step.stride, step.dilation, step.padding)
            return activate(y, step.activation)
        case BlockStep():
            return _block(step, x)
        case PoolStep():
            return x.mean((2, 3), keepdims=True)
        case AddStep():
            return activate(x + inputs[1], step.activation)
        case MultiplyStep():
            return x * inputs[1]
        case ConcatStep():
            return np.concatenate(inputs, axis=1)
        case ResizeStep():
            return _resize(x, *inputs[1].shape[2:])
        case AveragePoolStep():
            view = np.lib.stride_tricks.sliding_window_view(x, (step.kernel,) * 2, axis=(2, 3))
            return view[:, :, :: step.stride, :: step.stride].mean((4, 5))
    raise AssertionError(step)


def _block(step: BlockStep, x: Doubles) -> Doubles:
    y = x
    if step.expand is not None:
        y = activate(_conv(y, step.expand), step.activation)
    y = activate(_depthwise(y, step), step.activation)
    if step.reduce is not None and step.excite is not None:
        squeezed = activate(_conv(y.mean((2, 3), keepdims=True), step.reduce), "relu")
        y = y * activate(_conv(squeezed, step.excite), "hard_sigmoid")
    y = activate(_conv(y, step.project), step.out_activation)
    return x + y if step.residual else y


def _depthwise(x: Doubles, step: BlockStep) -> Doubles:
    filter = step.depthwise
    weight, y = filter.weight.astype(np.float64), np.float64(0)
    for row, column, window in windows(x, filter.kernel, step.stride, step.dilation, step.padding):
        y = y + weight[:, :, row, column, None] * window
    return y + filter.bias[:, None, None]


def _conv(
    x: Doubles,
    filter: Filter,
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "symmetric",
) -> Doubles:
    weight, y = filter.weight.astype(np.float64), np.float64(0)
    for row, column, window in windows(x, filter.kernel, stride, dilation, padding):
        y = y + np.einsum("oi,nihw->nohw", weight[:, :, row, column], window, optimize=True)
    return y + filter.bias[:, None, None]


def _resize(x: Doubles, height: int, width: int) -> Doubles:
    top, bottom, down = bilinear(x.shape[2], height)
    left, right, across = bilinear(x.shape[3], width)
    down, across = down[:, None].astype(np.float64), across.astype(np.float64)
    rows = x[:, :, top] * (1 - down) + x[:, :, bottom] * down
    return rows[..., left] * (1 - across) + rows[..., right] * across


def activate(x: Doubles, activation: Activation) -> Doubles:
    """The activation function of that name."""
    match activation:
        case "none":
            return x
        case "relu":
            return np.maximum(x, 0)
        case "relu6":
            return np.clip(x, 0, 6)
        case "hard_swish":
            return x * np.clip(x + 3, 0, 6) / 6
        case "hard_sigmoid":
            return np.clip(x + 3, 0, 6) / 6
        case "sigmoid":
            return 1 / (1 + np.exp(-x))

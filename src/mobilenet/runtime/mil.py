"""The operators of a converted Core ML program, one by one in NumPy.

Core ML itself runs on Apple's systems only. This interprets what lies in the file (the MIL
operators that a MobileNet is converted to, by Apple's description of them in coremltools), so that
its numbers can be checked anywhere: slow and plain.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError

Array = NDArray[Any]


def run_program(program: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name of coremltools' `Program` for its function "main".

    Every operator's result is rounded to its own type, sums are kept in float32 or better. Raises
    CheckpointError for an operator that no MobileNet is converted to.
    """
    main = program.functions["main"]
    values: dict[str, Any] = dict(inputs)

    def read(given: Any) -> Any:
        if given is None:
            return None
        if isinstance(given, list | tuple):
            return [read(one) for one in given]
        return given.val if given.val is not None else values[given.name]

    for operation in main.operations:
        kind = operation.op_type
        if kind == "const":
            continue
        if kind not in OPERATORS:
            raise CheckpointError(f"a Core ML program with {kind!r}, which is not understood here")
        found = OPERATORS[kind]({name: read(given) for name, given in operation.inputs.items()})
        results = found if isinstance(found, tuple) else (found,)
        for target, value in zip(operation.outputs, results, strict=True):
            values[target.name] = value
    return {output.name: read(output) for output in main.outputs}


Inputs = Mapping[str, Any]


def _conv(given: Inputs) -> Array:
    x, weight, bias = given["x"], given["weight"], given.get("bias")
    stride, dilation = (tuple(int(n) for n in given[name]) for name in ("strides", "dilations"))
    if given["pad_type"] not in ("custom", "valid"):
        raise CheckpointError(f"a Core ML convolution with padding {given['pad_type']!r}")
    around = given["pad"] if given["pad_type"] == "custom" else (0, 0, 0, 0)
    top, bottom, left, right = (int(n) for n in around)
    padded = np.pad(x.astype(np.float32), ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = weight.shape[2:]
    size = [
        (padded.shape[2 + axis] - dilation[axis] * (kernel[axis] - 1) - 1) // stride[axis] + 1
        for axis in (0, 1)
    ]
    depthwise = int(given["groups"]) == x.shape[1] == len(weight) and weight.shape[1] == 1
    if not depthwise and int(given["groups"]) != 1:
        raise CheckpointError("a Core ML convolution with groups that is not depthwise")
    y: Any = np.float32(0)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            up, along = row * dilation[0], column * dilation[1]
            window = padded[
                :,
                :,
                up : up + (size[0] - 1) * stride[0] + 1 : stride[0],
                along : along + (size[1] - 1) * stride[1] + 1 : stride[1],
            ]
            taps = weight[:, :, row, column].astype(np.float32)
            if depthwise:
                y = y + taps[:, 0, None, None] * window
            else:
                flat = window.reshape(*window.shape[:2], -1)
                y = y + (taps @ flat).reshape(len(window), len(weight), *size)
    if bias is not None:
        y = y + bias.astype(np.float32)[:, None, None]
    return y.astype(x.dtype)


def _rounded(given: Inputs) -> Array:
    """`quantize`: to the nearest, ties to even."""
    low, high = (0, 255) if str(given["output_dtype"]) == "uint8" else (-128, 127)
    zero = given.get("zero_point")
    whole = np.rint(given["input"].astype(np.float32) / np.float32(given["scale"]))
    whole = whole + np.float32(0 if zero is None else zero)
    return np.clip(whole, low, high).astype(np.uint8 if low == 0 else np.int8)


def _real(given: Inputs) -> Array:
    """`dequantize`, and weights in eight bits."""
    whole = given["input"] if "input" in given else given["quantized_data"]
    scale = np.asarray(given["scale"])
    zero = np.asarray(0 if given.get("zero_point") is None else given["zero_point"], np.float32)
    shape = [1] * whole.ndim
    if scale.ndim:
        shape[int(given["axis"])] = -1
    along = [
        each.reshape(shape) if each.ndim else each for each in (zero, scale.astype(np.float32))
    ]
    return ((whole.astype(np.float32) - along[0]) * along[1]).astype(scale.dtype)


def _cast(given: Inputs) -> Array:
    kinds = {"fp32": np.float32, "fp16": np.float16, "int32": np.int32}
    return given["x"].astype(kinds[str(given["dtype"])])


def _softmax(given: Inputs) -> Array:
    x = given["x"].astype(np.float32)
    y = np.exp(x - x.max(int(given["axis"]), keepdims=True))
    return (y / y.sum(int(given["axis"]), keepdims=True)).astype(given["x"].dtype)


def _mean(given: Inputs) -> Array:
    axes = tuple(int(axis) for axis in given["axes"])
    y = given["x"].astype(np.float32).mean(axes, keepdims=bool(given["keep_dims"]))
    return y.astype(given["x"].dtype)


def _classify(given: Inputs) -> tuple[Any, dict[str, float]]:
    scores = given["probabilities"].reshape(-1)
    labels = [str(label) for label in given["classes"]]
    return labels[int(scores.argmax())], dict(zip(labels, map(float, scores), strict=True))


def _hard_sigmoid(given: Inputs) -> Array:
    return np.clip(given["x"] * given["alpha"] + given["beta"], 0, 1).astype(given["x"].dtype)


def _kept(function: Callable[[Inputs], Any]) -> Callable[[Inputs], Array]:
    """A function whose result has the type of its argument."""
    return lambda given: np.asarray(function(given)).astype(np.asarray(given["x"]).dtype)


# fmt: off
OPERATORS: Mapping[str, Callable[[Inputs], Any]] = {
    "add": _kept(lambda given: given["x"] + given["y"]),
    "sub": _kept(lambda given: given["x"] - given["y"]),
    "mul": _kept(lambda given: given["x"] * given["y"]),
    "real_div": _kept(lambda given: given["x"] / given["y"]),
    "clip": _kept(lambda given: np.clip(given["x"], given["alpha"], given["beta"])),
    "relu": _kept(lambda given: np.maximum(given["x"], 0)),
    "relu6": _kept(lambda given: np.clip(given["x"], 0, 6)),
    "thresholded_relu": _kept(
        lambda given: np.where(given["x"] >= given["alpha"], given["x"], 0)
    ),
    "sigmoid_hard": _hard_sigmoid,
    "reduce_mean": _mean,
    "softmax": _softmax,
    "conv": _conv,
    "pad": _kept(lambda given: np.pad(
        given["x"], np.asarray(given["pad"]).reshape(-1, 2), constant_values=given["constant_val"]
    )),
    "reshape": lambda given: given["x"].reshape([int(n) for n in given["shape"]]),
    "squeeze": lambda given: given["x"].squeeze(tuple(int(axis) for axis in given["axes"])),
    "identity": lambda given: given["x"],
    "cast": _cast,
    "quantize": _rounded,
    "dequantize": _real,
    "constexpr_affine_dequantize": _real,
    "classify": _classify,
}
# fmt: on

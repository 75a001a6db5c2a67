"""The int8 arithmetic once more, pixel by pixel and number by number, in plain loops.

Written from its definition and not from `mobilenet.quantize.reference`, which it is there to test:
slow, for tiny shapes only.
"""

import math
from typing import Any

import numpy as np

from mobilenet.integer import Affine, IntegerFilter, QuantisedProgram
from mobilenet.program import (
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConcatStep,
    ConvStep,
    MultiplyStep,
    PoolStep,
    ResizeStep,
)

f32 = np.float32
Map = list[list[list[Any]]]  # [channel][row][column]


def clip(v: np.float32, low: float, high: float) -> np.float32:
    return min(max(v, f32(low)), f32(high))


def rounded(v: np.float32, to: Affine | None, activation: str = "none") -> Any:
    """v in units of the scale to q; without a range the float32 number itself."""
    assert isinstance(v, np.float32)
    at_zero = activation in ("relu", "relu6")
    if to is None:
        v = max(v, f32(0)) if at_zero else v
        return min(v, f32(6)) if activation == "relu6" else v
    low = 0 if at_zero else -to.zero
    high = 255 - to.zero
    if activation == "relu6":
        high = min(high, int(np.rint(6 / to.scale)))
    return int(np.rint(clip(v, low, high))) + to.zero


def finished(
    total: int, b: int, s_in: float, s_w: float, to: Affine | None, activation: str,
    added: np.float32 | None = None,
) -> Any:  # fmt: skip
    """A sum of products, with its bias, as its target takes it."""
    s_out = 1.0 if to is None else to.scale
    y = f32(total + b)
    if activation in ("hard_swish", "hard_sigmoid"):
        y = y * f32(s_in * s_w)
        gate = clip(y + f32(3), 0, 6)
        after = f32(1 / (6 * s_out))
        return rounded((y * gate) * after if activation == "hard_swish" else gate * after, to)
    v = y * f32(s_in * s_w / s_out)
    return rounded(v if added is None else v + added, to, activation)


def before(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """Pixels of padding before the first, and of the output."""
    out = math.ceil(size / stride)
    if padding == "symmetric":
        return dilation * (kernel - 1) // 2, out
    return max((out - 1) * stride + dilation * (kernel - 1) + 1 - size, 0) // 2, out


def convolution(
    x: Map, of: Affine, filter: IntegerFilter, step: Any, to: Affine | None, activation: str, *,
    depthwise: bool = False, residual: Map | None = None, residual_of: Affine | None = None,
) -> Map:  # fmt: skip
    kernel = filter.weight.shape[2]
    stride, dilation, padding = (1, 1, "symmetric")
    if step is not None:
        stride, dilation, padding = step.stride, step.dilation, step.padding
    top, height = before(len(x[0]), kernel, stride, dilation, padding)
    left, width = before(len(x[0][0]), kernel, stride, dilation, padding)
    result: Map = []
    for o in range(len(filter.weight)):
        plane = []
        for i in range(height):
            row = []
            for j in range(width):
                total = 0
                for c in [o] if depthwise else range(len(x)):
                    for ky in range(kernel):
                        for kx in range(kernel):
                            y = i * stride - top + ky * dilation
                            z = j * stride - left + kx * dilation
                            if 0 <= y < len(x[0]) and 0 <= z < len(x[0][0]):
                                w = filter.weight[o, 0 if depthwise else c, ky, kx]
                                total += (x[c][y][z] - of.zero) * int(w)
                added = None
                if residual is not None and residual_of is not None:
                    s_out = 1.0 if to is None else to.scale
                    added = f32(residual[o][i][j] - residual_of.zero) * f32(
                        residual_of.scale / s_out
                    )
                bias, scale = int(filter.bias[o]), float(filter.scale[o])
                row.append(finished(total, bias, of.scale, scale, to, activation, added))
            plane.append(row)
        result.append(plane)
    return result


def mean(x: Map, of: Affine, to: Affine | None) -> Map:
    n = len(x[0]) * len(x[0][0])
    s_out = 1.0 if to is None else to.scale
    factor = f32(of.scale / (s_out * n))
    return [[[rounded(f32(sum(q - of.zero for r in c for q in r)) * factor, to)]] for c in x]


def block(step: BlockStep, index: int, x: Map, of: Affine, net: QuantisedProgram) -> Map:
    filters, own = net.filters[index], {p.name: a for p, a in net.ranges.items() if p.step == index}
    y, s = x, of
    if step.expand is not None:
        y = convolution(y, s, filters["expand"], None, own["expanded"], step.activation)
        s = own["expanded"]
    y = convolution(
        y, s, filters["depthwise"], step, own["depthwise"], step.activation, depthwise=True
    )
    s = own["depthwise"]
    if step.reduce is not None:
        z = mean(y, s, own["pooled"])
        z = convolution(z, own["pooled"], filters["reduce"], None, own["squeezed"], "relu")
        g = convolution(z, own["squeezed"], filters["excite"], None, None, "hard_sigmoid")
        ratio = f32(s.scale / own["gated"].scale)
        y = [
            [
                [rounded(f32(q - s.zero) * (g[c][0][0] * ratio), own["gated"]) for q in row]
                for row in plane
            ]
            for c, plane in enumerate(y)
        ]
        s = own["gated"]
    return convolution(
        y, s, filters["project"], None, own.get("out"), step.out_activation,
        residual=x if step.residual else None, residual_of=of,
    )  # fmt: skip


def resized(x: Map, of: Affine, height: int, width: int, to: Affine | None) -> Map:
    scale = f32(of.scale / (1.0 if to is None else to.scale))

    def position(i: int, size: int, out: int) -> tuple[int, int, np.float32]:
        p = max((i + 0.5) * size / out - 0.5, 0)
        return int(p), min(int(p) + 1, size - 1), f32(p - int(p))

    result: Map = []
    for plane in x:
        rows = []
        for i in range(height):
            t, b, fy = position(i, len(plane), height)
            row = []
            for j in range(width):
                l, r, fx = position(j, len(plane[0]), width)  # noqa: E741
                p = {(y, z): f32(plane[y][z] - of.zero) for y in (t, b) for z in (l, r)}
                upper = p[t, l] * (f32(1) - fx) + p[t, r] * fx
                lower = p[b, l] * (f32(1) - fx) + p[b, r] * fx
                row.append(rounded((upper * (f32(1) - fy) + lower * fy) * scale, to))
            rows.append(row)
        result.append(rows)
    return result


def run(net: QuantisedProgram, image: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs (C, H, W) for one image (3, H, W)."""
    ranges = {p.step + 1: a for p, a in net.ranges.items() if p.name == "out"}
    inverse = f32(1 / ranges[0].scale)
    values: list[Map] = [
        [[[rounded(v * inverse, ranges[0]) for v in row] for row in plane] for plane in image]
    ]
    for index, step in enumerate(net.program.steps):
        inputs = [(values[source], ranges[source]) for source in step.sources]
        (x, of), to = inputs[0], ranges.get(index + 1)
        s_out = 1.0 if to is None else to.scale

        match step:
            case ConvStep():
                filter = net.filters[index]["project"]
                y = convolution(x, of, filter, step, to, step.activation)
            case BlockStep():
                y = block(step, index, x, of, net)
            case PoolStep():
                y = mean(x, of, to)
            case AddStep():
                (other, of2) = inputs[1]
                act = step.activation
                ra, rb = f32(of.scale / s_out), f32(of2.scale / s_out)
                y = [
                    [
                        [
                            rounded(f32(p - of.zero) * ra + f32(q - of2.zero) * rb, to, act)
                            for p, q in zip(*rows, strict=True)
                        ]
                        for rows in zip(*planes, strict=True)
                    ]
                    for planes in zip(x, other, strict=True)
                ]
            case MultiplyStep():
                (gate, of2) = inputs[1]
                factor = f32(of.scale * of2.scale / s_out)
                y = [
                    [
                        [
                            rounded((f32(q - of.zero) * f32(gate[c][0][0] - of2.zero)) * factor, to)
                            for q in row
                        ]
                        for row in plane
                    ]
                    for c, plane in enumerate(x)
                ]
            case ConcatStep():
                y = [
                    [
                        [
                            q if a == to else rounded(f32(q - a.zero) * f32(a.scale / s_out), to)
                            for q in row
                        ]
                        for row in plane
                    ]
                    for m, a in inputs
                    for plane in m
                ]
            case ResizeStep():
                like = inputs[1][0]
                y = resized(x, of, len(like[0]), len(like[0][0]), to)
            case AveragePoolStep():
                k, s = step.kernel, step.stride
                factor = f32(of.scale / (s_out * k * k))
                y = [
                    [
                        [
                            rounded(
                                f32(
                                    sum(
                                        plane[i + a][j + b] - of.zero
                                        for a in range(k)
                                        for b in range(k)
                                    )
                                )
                                * factor,
                                to,
                            )
                            for j in range(0, len(plane[0]) - k + 1, s)
                        ]
                        for i in range(0, len(plane) - k + 1, s)
                    ]
                    for plane in x
                ]
            case _:
                raise AssertionError(step)
        values.append(y)
    found = {}
    for name, value in net.program.outputs:
        a = ranges.get(value)
        found[name] = np.array(
            [
                [[v if a is None else f32(v - a.zero) * f32(a.scale) for v in row] for row in plane]
                for plane in values[value]
            ],
            np.float32,
        )
    return found

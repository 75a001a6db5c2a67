"""A float .tflite file of a classifier, written by the published schema."""

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from mobilenet.program import (
    IMAGE,
    LOGITS,
    BlockStep,
    ConvStep,
    Filter,
    PoolStep,
    Program,
)

ADD, CONV, DEPTHWISE, DEQUANTIZE, MUL, SOFTMAX, MEAN, HARD_SWISH = 0, 3, 4, 6, 18, 25, 40, 117
# members of the union
OPTIONS = {CONV: 1, DEPTHWISE: 2, SOFTMAX: 9, ADD: 11, MUL: 21, MEAN: 27}
FUSED = {"none": 0, "relu": 1, "relu6": 3}
FLOAT32, FLOAT16, INT32 = 0, 1, 2

Value = tuple[int, int, int]  # tensor, pixels of a side, channels


class _Graph:
    """Tensors, buffers and operators while they are collected."""

    def __init__(self, half: bool) -> None:
        self.half = half
        self.buffers: list[bytes] = [b""]
        self.tensors: list[tuple[str, tuple[int, ...], int, int]] = []
        self.operators: list[tuple[int, list[int], list[int], Mapping[int, tuple[str, Any]]]] = []

    def tensor(self, name: str, shape: Sequence[int], kind: int = FLOAT32, buffer: int = 0) -> int:
        self.tensors.append((name, tuple(shape), kind, buffer))
        return len(self.tensors) - 1

    def constant(self, name: str, value: np.ndarray) -> int:
        if self.half and value.dtype == np.float32:
            stored = self._stored(f"{name}_half", value.astype(np.float16), FLOAT16)
            return self.operate(DEQUANTIZE, [stored], value.shape, {}, name)
        return self._stored(name, value, INT32 if value.dtype == np.int32 else FLOAT32)

    def _stored(self, name: str, value: np.ndarray, kind: int) -> int:
        self.buffers.append(value.tobytes())
        return self.tensor(name, value.shape, kind, len(self.buffers) - 1)

    def operate(
        self,
        code: int,
        inputs: list[int],
        shape: Sequence[int],
        options: Mapping[int, tuple[str, Any]],
        name: str,
    ) -> int:
        output = self.tensor(name, shape)
        self.operators.append((code, inputs, [output], options))
        return output


def litert_file(program: Program, size: int, *, softmax: bool = False, half: bool = False) -> bytes:
    """SAME padding throughout, NHWC, batch 1; `half` keeps the weights in float16."""
    graph = _Graph(half)
    source = graph.tensor("image", (1, size, size, 3))
    values: dict[int, Value] = {IMAGE: (source, size, 3)}
    for index, step in enumerate(program.steps, start=1):
        value = values[step.sources[0]]
        match step:
            case ConvStep():
                value = _conv(graph, value, step.project, step.activation, step.stride)
            case PoolStep():
                value = _pooled(graph, value)
            case BlockStep():
                value = _block(graph, value, step)
        values[index] = value
    output, _, classes = values[dict(program.outputs)[LOGITS]]
    if softmax:
        options = {0: ("float", 1.0)}
        output = graph.operate(SOFTMAX, [output], (1, 1, 1, classes), options, "scores")
    return _written(graph, source, output)


def _pooled(graph: _Graph, value: Value) -> Value:
    axes = graph.constant(f"axes{len(graph.tensors)}", np.array([1, 2], np.int32))
    shape = (1, 1, 1, value[2])
    return graph.operate(MEAN, [value[0], axes], shape, {0: ("bool", 1)}, "mean"), 1, value[2]


def _block(graph: _Graph, value: Value, step: BlockStep) -> Value:
    found = value
    if step.expand is not None:
        found = _conv(graph, found, step.expand, step.activation)
    found = _conv(graph, found, step.depthwise, step.activation, step.stride)
    if step.reduce is not None and step.excite is not None:
        gate = _conv(graph, _pooled(graph, found), step.reduce, "relu")
        gate = _hard_sigmoid(graph, _conv(graph, gate, step.excite, "none"))
        found = _binary(graph, MUL, found, gate[0])
    found = _conv(graph, found, step.project, step.out_activation)
    return _binary(graph, ADD, found, value[0]) if step.residual else found


def _binary(graph: _Graph, code: int, value: Value, other: int, fused: str = "none") -> Value:
    source, side, channels = value
    options = {0: ("int8", FUSED[fused])}
    shape = (1, side, side, channels)
    return graph.operate(code, [source, other], shape, options, "both"), side, channels


def _hard_sigmoid(graph: _Graph, value: Value) -> Value:
    three = graph.constant(f"three{len(graph.tensors)}", np.array(3, np.float32))
    sixth = graph.constant(f"sixth{len(graph.tensors)}", np.array(1 / 6, np.float32))
    return _binary(graph, MUL, _binary(graph, ADD, value, three, "relu6"), sixth)


def _conv(graph: _Graph, value: Value, filter: Filter, activation: str, stride: int = 1) -> Value:
    source, side, channels = value
    weight = filter.weight  # (O, I / groups, k, k)
    depthwise = weight.shape[1] == 1 and weight.shape[2] > 1
    laid_out = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    name = f"conv{len(graph.tensors)}"
    inputs = [
        source,
        graph.constant(f"{name}/w", np.ascontiguousarray(laid_out)),
        graph.constant(f"{name}/b", filter.bias),
    ]
    side, channels = -(-side // stride), len(weight)
    steps, fused = ("int32", stride), ("int8", FUSED.get(activation, 0))
    options = {0: ("int8", 0), 1: steps, 2: steps}
    options |= {3: ("int32", 1), 4: fused} if depthwise else {3: fused}
    code = DEPTHWISE if depthwise else CONV
    shape = (1, side, side, channels)
    found = graph.operate(code, inputs, shape, options, name)
    if activation == "hard_swish":
        found = graph.operate(HARD_SWISH, [found], shape, {}, f"{name}/act")
    return found, side, channels


def _written(graph: _Graph, source: int, output: int) -> bytes:
    b = flatbuffers.Builder(1 << 20)
    buffers = _tables(b, [{0: ("bytes", data)} if data else {} for data in graph.buffers])
    tensors = _tables(
        b,
        [
            {0: ("ints", shape), 1: ("int8", kind), 2: ("uint32", buffer), 3: ("text", name)}
            for name, shape, kind, buffer in graph.tensors
        ],
    )
    codes = sorted({code for code, *_ in graph.operators})
    operators = []
    for code, inputs, outputs, options in graph.operators:
        fields: dict[int, tuple[str, Any]] = {
            0: ("uint32", codes.index(code)),
            1: ("ints", inputs),
            2: ("ints", outputs),
        }
        if code in OPTIONS:
            fields |= {3: ("uint8", OPTIONS[code]), 4: ("table", options)}
        operators.append(fields)
    graphs = _tables(
        b,
        [
            {
                0: ("at", tensors),
                1: ("ints", [source]),
                2: ("ints", [output]),
                3: ("at", _tables(b, operators)),
            }
        ],
    )
    versions = {CONV: 1, DEPTHWISE: 1, DEQUANTIZE: 3}
    made = [{0: ("int8", c), 2: ("int32", versions.get(c, 1)), 3: ("int32", c)} for c in codes]
    model = _table(
        b,
        {
            0: ("uint32", 3),
            1: ("at", _tables(b, made)),
            2: ("at", graphs),
            3: ("text", "a test"),
            4: ("at", buffers),
        },
    )
    b.Finish(model, b"TFL3")
    return bytes(b.Output())


def _tables(b: flatbuffers.Builder, all_fields: Sequence[Mapping[int, tuple[str, Any]]]) -> int:
    places = [_table(b, fields) for fields in all_fields]
    b.StartVector(4, len(places), 4)
    for place in reversed(places):
        b.PrependUOffsetTRelative(place)
    return b.EndVector()


def _table(b: flatbuffers.Builder, fields: Mapping[int, tuple[str, Any]]) -> int:
    placed = {slot: _placed(b, kind, value) for slot, (kind, value) in fields.items()}
    b.StartObject(8)
    for slot, (kind, value) in placed.items():
        if kind == "at":
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            add = {
                "int8": b.PrependInt8Slot,
                "uint8": b.PrependUint8Slot,
                "bool": b.PrependBoolSlot,
                "int32": b.PrependInt32Slot,
                "uint32": b.PrependUint32Slot,
                "float": b.PrependFloat32Slot,
            }[kind]
            add(slot, value, 0)
    return b.EndObject()


def _placed(b: flatbuffers.Builder, kind: str, value: Any) -> tuple[str, Any]:
    """What a table refers to, written before it."""
    match kind:
        case "text":
            return "at", b.CreateString(value)
        case "table":
            return "at", _table(b, value)
        case "ints":
            return "at", b.CreateNumpyVector(np.array(value, np.int32))
        case "bytes":
            b.StartVector(1, len(value), 16)  # data is aligned at 16
            b.head = b.head - len(value)
            b.Bytes[b.head : b.head + len(value)] = value
            return "at", b.EndVector()
        case _:
            return kind, value

"""What is done to a .tflite file that litert-torch made: its ends named, any batch, metadata, and
weights in float16."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ExportError
from .litert_int8 import AlignedBuffer

_DEQUANTIZE_VERSION = 3  # the first that takes float16
_KEPT = "min_runtime_version"  # of the converter's metadata


def named(data: bytes, *, half: bool) -> bytes:
    """A file of litert-torch with an input "image" and an output "logits" of any batch.

    `half`: the weights of its convolutions are kept in float16, which a runtime makes float32 when
    it opens the file. Raises ExportError for a file of another form than a classifier is given.
    """
    schema, model = _read(data)
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    _take_any_batch(schema, model)
    if half:
        _halve(schema, model)
    for number, tensor in enumerate(graph.tensors):  # each has the path of its module, twice
        tensor.name = str(number)
    for (index,), (entry,), name in (
        (graph.inputs, signature.inputs, "image"),
        (graph.outputs, signature.outputs, "logits"),
    ):
        graph.tensors[index].name = entry.name = name
    model.description = "mobilenet"
    model.metadata = [entry for entry in model.metadata or [] if _text(entry.name) == _KEPT]
    return _written(schema, model)


def from_pixels(data: bytes, mean: Sequence[float], std: Sequence[float]) -> bytes:
    """The file with an input "image" of uint8 pixels, which are normalised before all else."""
    schema, model = _read(data)
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    (image,), (entry,) = graph.inputs, signature.inputs
    graph.tensors[image].name = b"normalised"
    shape = list(graph.tensors[image].shape)

    def tensor(name: str, kind: str, shape: list[int], buffer: int = 0) -> int:
        made = schema.TensorT()
        made.name, made.shape, made.hasRank = name, shape, True
        made.type, made.buffer = getattr(schema.TensorType, kind), buffer
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def constant(name: str, values: Sequence[float]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.array(values, "<f4").tobytes(), np.uint8)
        model.buffers.append(buffer)
        return tensor(name, "FLOAT32", [1, 1, 1, len(values)], len(model.buffers) - 1)

    value = source = tensor("image", "UINT8", shape)
    made = []
    for code, options, name, numbers in (
        ("CAST", "CastOptions", "pixels", None),
        ("DIV", "DivOptions", "unit", (255.0,)),
        ("SUB", "SubOptions", "centred", mean),
        ("DIV", "DivOptions", "normalised", std),
    ):
        given = [value] if numbers is None else [value, constant(f"{name}_by", numbers)]
        value = image if name == "normalised" else tensor(name, "FLOAT32", shape)
        made.append(_operator(schema, _code(schema, model, code, 1), options, given, value))
    made[0].builtinOptions.inDataType = schema.TensorType.UINT8
    made[0].builtinOptions.outDataType = schema.TensorType.FLOAT32
    graph.operators = [*made, *graph.operators]
    graph.inputs, entry.tensorIndex = [source], source
    return _written(schema, model)


def with_metadata(data: bytes, metadata: Mapping[str, bytes]) -> bytes:
    """The file with entries of metadata added."""
    schema, model = _read(data)
    model.metadata = list(model.metadata or [])
    for name, value in metadata.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(value, np.uint8)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    return _written(schema, model)


def metadata_of(data: bytes) -> dict[str, bytes]:
    """Every entry of a file's metadata by its name."""
    _, model = _read(data)
    return {
        _text(entry.name): bytes(model.buffers[entry.buffer].data) for entry in model.metadata or []
    }


def _read(data: bytes) -> tuple[Any, Any]:
    from ai_edge_litert import schema_py_generated  # pyright: ignore[reportMissingImports]

    return schema_py_generated, schema_py_generated.ModelT.InitFromPackedBuf(data, 0)


def _written(schema: Any, model: Any) -> bytes:
    from flatbuffers import Builder

    model.buffers = [
        AlignedBuffer(schema, b"" if buffer.data is None else bytes(buffer.data))
        for buffer in model.buffers
    ]
    builder = Builder(sum(len(buffer.data) for buffer in model.buffers) + 2**16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _code(schema: Any, model: Any, name: str, version: int) -> int:
    """The index of an operator's code, which is added."""
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _operator(schema: Any, code: int, options: str, inputs: list[int], output: int) -> Any:
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = code, inputs, [output]
    made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
    made.builtinOptions = getattr(schema, f"{options}T")()
    return made


def _take_any_batch(schema: Any, model: Any) -> None:
    """In place: the last operator, which flattens (1, 1, 1, classes) to a shape with the batch in
    it, leaves the batch alone."""
    (graph,) = model.subgraphs
    last = graph.operators[-1]
    kind = model.operatorCodes[last.opcodeIndex].builtinCode
    shape = graph.tensors[last.inputs[0]].shape
    if kind != schema.BuiltinOperator.RESHAPE or len(shape) != 4 or list(shape[1:3]) != [1, 1]:
        raise ExportError("litert-torch gave the file another end than this version knows")
    code = _code(schema, model, "SQUEEZE", 1)
    squeeze = _operator(schema, code, "SqueezeOptions", [last.inputs[0]], last.outputs[0])
    squeeze.builtinOptions.squeezeDims = [1, 2]
    graph.operators[-1] = squeeze


def _halve(schema: Any, model: Any) -> None:
    """In place."""
    (graph,) = model.subgraphs
    kinds = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D}
    weights = {
        operator.inputs[1]
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode in kinds
    }
    code = _code(schema, model, "DEQUANTIZE", _DEQUANTIZE_VERSION)
    made = []
    for index in sorted(weights):
        tensor = graph.tensors[index]
        values = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "<f4")
        kept = schema.TensorT()
        kept.name, kept.shape, kept.hasRank = "", tensor.shape, True
        kept.type, kept.buffer = schema.TensorType.FLOAT16, len(model.buffers)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.astype("<f2").tobytes(), np.uint8)
        model.buffers.append(buffer)
        model.buffers[tensor.buffer].data = None
        tensor.buffer = 0
        graph.tensors.append(kept)
        made.append(_operator(schema, code, "DequantizeOptions", [len(graph.tensors) - 1], index))
    graph.operators = [*made, *graph.operators]

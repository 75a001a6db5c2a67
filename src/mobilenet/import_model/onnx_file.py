"""ONNX files: the convolutions of their graph, and ONNX Runtime to run them.

The order of the nodes is that of the computation (the format demands it). What activations there
are is not read: the logits show it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, MissingDependency, UsageError, WeightsError
from ..preprocess import Preprocess
from ..program import IMAGE_CHANNELS, Floats
from .built_in import as_fed, preprocessing
from .graph import FoundConv, FoundGraph, FoundNorm, match
from .source import SIZE, Original, Source

if TYPE_CHECKING:
    import onnx

_LIMIT = 2**31 - 1  # bytes; what a protobuf can hold
_PASSED = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Dropout")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_COMPUTED = (*_ARITHMETIC, "Sqrt", "Concat", "Slice", "Gather", "Constant", "ConstantOfShape")
_FOLDABLE = (*_PASSED, *_COMPUTED)
_LARGEST = 1 << 26  # elements of a constant
_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "QLinearMatMul")
_SOFTMAX = ("Softmax", "LogSoftmax")


def is_onnx(path: Path, head: bytes) -> bool:
    """Whether a file may be ONNX, which has no magic number: a protobuf that starts with the
    version of its format."""
    return path.suffix == ".onnx" or (len(head) > 2 and head[0] == 8 and head[1] < 32)


def read_onnx(path: Path) -> Source:
    """Read a float network. Raises WeightsError for what is damaged, quantised or none of these
    networks, MissingDependency without onnx and onnxruntime."""
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise MissingDependency(str(error.name), "onnx", "importing an ONNX file") from None
    model = _load(path)
    quantised = next((node.op_type for node in model.graph.node if node.op_type in _QUANTISED), "")
    if quantised:
        raise WeightsError(
            f"{path}: quantised ({quantised}); import the float file it was made of, then "
            "mobilenet quantize"
        )
    walked = _Walk(path, model.graph, _computed_pads(path, model))
    graph = walked.graph()
    found = match(path, graph)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    rules, facts, assumed = preprocessing(
        graph, keras=walked.channels_last, producer=model.producer_name or "an unknown producer"
    )
    labels = None
    if own := _own_contract(path, metadata):
        rules, labels = own
        facts, assumed = ["preprocessing and labels, from the file's metadata"], []
    if found.folded:
        assumed.append(
            "the file has no batch norms, they are folded into the convolutions: those of the run "
            "change nothing, and have no statistics to train on with"
        )
    output = walked.before_softmax(model.graph.output[0].name)
    model.graph.output.append(
        onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
    )
    size = graph.size or rules.size
    return Source(
        kind="onnx",
        publisher=f"{model.producer_name} {model.producer_version}".strip() or "unknown",
        spec=found.spec,
        state=found.state,
        preprocess=rules,
        labels=labels,
        facts=(*found.facts, *facts),
        assumed=tuple(assumed),
        original=Original(
            name=f"onnxruntime {onnxruntime.__version__}",
            size=size,
            answer=_Run(
                path=path,
                data=model.SerializeToString(),
                output=output,
                graph=graph,
                channels_last=walked.channels_last,
            ),
        ),
        unchecked=None,
    )


def _load(path: Path) -> "onnx.ModelProto":
    """The model with its weights, which may lie in another file of the same folder."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import load_external_data_for_model

    if path.stat().st_size > _LIMIT:
        raise WeightsError(f"{path}: larger than any MobileNet; not read")
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read as ONNX: {error}") from None
    if not model.graph.node or not model.graph.output:
        raise WeightsError(f"{path}: cannot be read as ONNX: there is no graph in it")
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            named = {entry.key: entry.value for entry in tensor.external_data}
            _check_beside(path, named.get("location", ""))
    try:
        load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, OSError) as error:
        raise WeightsError(f"{path}: damaged ONNX: {_first_line(error)}") from None
    return model


def _check_beside(path: Path, location: str) -> None:
    """Weights outside the model are in a plain file beside it, or not read."""
    beside = path.parent / location
    if Path(location).name != location or beside.is_symlink():
        raise WeightsError(f"{path}: refused: its weights are said to lie in {location!r}")
    if not beside.is_file():
        raise WeightsError(f"{path}: its weights lie in {location!r}, which is not beside it")
    if beside.stat().st_size > _LIMIT:
        raise WeightsError(f"{beside}: larger than any MobileNet; not read")


def _own_contract(
    path: Path, metadata: Mapping[str, str]
) -> tuple[Preprocess, tuple[str, ...]] | None:
    """Preprocessing and labels where this package wrote the file."""
    if not {"preprocess", "labels", "mobilenet.version"} <= metadata.keys():
        return None
    try:
        labels = json.loads(metadata["labels"])
        return (
            Preprocess.from_dict(json.loads(metadata["preprocess"])),
            tuple(str(label) for label in labels),
        )
    except (ValueError, TypeError, UsageError) as error:
        raise WeightsError(f"{path}: damaged metadata: {error}") from None


def _computed_pads(path: Path, model: "onnx.ModelProto") -> dict[str, np.ndarray]:
    """The padding that a graph computes from the size of its image: by running it on one."""
    import onnx

    known = {tensor.name for tensor in model.graph.initializer}
    names = {
        node.input[1]
        for node in model.graph.node
        if node.op_type == "Pad" and len(node.input) > 1 and node.input[1] not in known
    }
    if not names:
        return {}
    asked = sorted(names)
    extended = onnx.ModelProto()
    extended.CopyFrom(model)
    kind = onnx.TensorProto.INT64
    outputs = (onnx.helper.make_tensor_value_info(name, kind, None) for name in asked)
    extended.graph.output.extend(outputs)
    (source,) = (value for value in model.graph.input if value.name not in known)
    sizes = [d.dim_value for d in source.type.tensor_type.shape.dim]
    shape = [size or (1 if place == 0 else SIZE) for place, size in enumerate(sizes)]
    found = _answer(path, extended.SerializeToString(), asked, np.zeros(shape, np.float32))
    return dict(zip(asked, found, strict=True))


def _answer(path: Path, data: bytes, outputs: list[str], images: Floats) -> list[np.ndarray]:
    """What ONNX Runtime answers, in batches as the file takes them."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        step = source.shape[0] if isinstance(source.shape[0], int) else len(images)
        parts = [
            [*map(np.asarray, session.run(outputs, {source.name: images[start : start + step]}))]
            for start in range(0, len(images) // step * step, step)
        ]
    except Exception as error:  # its errors derive from Exception itself
        raise CheckpointError(f"{path}: onnxruntime cannot run it: {_first_line(error)}") from error
    return [
        np.concatenate([np.asarray(part) for part in found]) for found in zip(*parts, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """ONNX Runtime on preprocessed images, which are turned back into what the file takes."""

    path: Path
    data: bytes
    output: str
    graph: FoundGraph
    channels_last: bool

    def __call__(self, images: Floats) -> Floats:
        x = as_fed(images, self.graph)
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if self.channels_last else x)
        (logits,) = _answer(self.path, self.data, [self.output], x)
        return logits.astype(np.float32)


@dataclass
class _Conv:
    """A convolution while what follows it is read: biases are added, scales multiplied."""

    found: FoundConv
    weight: Floats
    bias: Floats
    norm: FoundNorm | None = None

    def finished(self) -> FoundConv:
        return replace(self.found, weight=self.weight, bias=self.bias, norm=self.norm)


@dataclass
class _Walk:
    """One pass over the nodes: constants are computed besides those that are given, what happens to
    the image before the first convolution is kept as scale and offset, and convolutions are
    collected."""

    path: Path
    onnx_graph: Any
    constants: dict[str, np.ndarray]
    convs: list[_Conv] = field(default_factory=list)
    of_conv: dict[str, int] = field(default_factory=dict)  # value -> the convolution it is of
    padded: dict[str, tuple[int, int]] = field(default_factory=dict)
    image: set[str] = field(default_factory=set)
    softmax: dict[str, str] = field(default_factory=dict)  # value -> what was given to the softmax
    scale: Floats = field(default_factory=lambda: np.ones(IMAGE_CHANNELS, np.float32))
    offset: Floats = field(default_factory=lambda: np.zeros(IMAGE_CHANNELS, np.float32))
    channels_last: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        from onnx import numpy_helper

        for tensor in self.onnx_graph.initializer:
            self.constants[tensor.name] = numpy_helper.to_array(tensor)
        inputs = [value for value in self.onnx_graph.input if value.name not in self.constants]
        if len(inputs) != 1:
            raise WeightsError(f"{self.path}: {len(inputs)} inputs, expected one image")
        self._read_input(inputs[0])
        for node in self.onnx_graph.node:
            self._visit(node)

    def graph(self) -> FoundGraph:
        """What was found."""
        return FoundGraph(
            convs=tuple(conv.finished() for conv in self.convs),
            size=self.size,
            scale=self.scale,
            offset=self.offset,
        )

    def before_softmax(self, output: str) -> str:
        """The value that holds the logits."""
        return self.softmax.get(output, output)

    def _read_input(self, value: Any) -> None:
        shape = [d.dim_value or None for d in value.type.tensor_type.shape.dim]
        if len(shape) != 4 or IMAGE_CHANNELS not in (shape[1], shape[3]):
            raise WeightsError(
                f"{self.path}: its input {value.name!r} has shape {shape}, expected images "
                "(N, 3, H, W) or (N, H, W, 3)"
            )
        self.channels_last = shape[1] != IMAGE_CHANNELS
        height, width = shape[1:3] if self.channels_last else shape[2:]
        if height != width:
            raise WeightsError(f"{self.path}: images of {height} x {width}, expected squares")
        self.size = height
        self.image.add(value.name)

    def _visit(self, node: Any) -> None:
        name = node.op_type
        if name in _FOLDABLE and all(item in self.constants for item in node.input if item):
            self._fold(node)
        elif name in ("Conv", "Gemm", "MatMul"):
            self._convolve(node)
        elif name == "BatchNormalization":
            self._normalise(node)
        elif name in _ARITHMETIC:
            self._arithmetic(node)
        elif name == "Pad":
            self._pad(node)
        elif name in _SOFTMAX:
            self.softmax[node.output[0]] = node.input[0]
        elif name in _PASSED:
            self._pass(node.input[0], node.output[0])

    def _pass(self, source: str, target: str) -> None:
        """A value that is another one in other words."""
        if source in self.of_conv:
            self.of_conv[target] = self.of_conv[source]
        if source in self.padded:
            self.padded[target] = self.padded[source]
        if source in self.softmax:
            self.softmax[target] = self.softmax[source]
        if source in self.image:
            self.image.add(target)

    def _fold(self, node: Any) -> None:
        from onnx.reference import ReferenceEvaluator

        feeds = {item: self.constants[item] for item in node.input if item}
        try:
            if _elements(node.op_type, list(feeds.values())) > _LARGEST:
                raise ValueError("a constant larger than any MobileNet's")
            results = ReferenceEvaluator(node).run(None, feeds)
        except Exception as error:  # whatever a damaged file makes NumPy raise
            raise WeightsError(f"{self.path}: node {node.name!r}: {_first_line(error)}") from None
        assert isinstance(results, list)
        self.constants.update(zip(node.output, results, strict=False))

    def _constant(self, node: Any, place: int) -> np.ndarray:
        name = node.input[place]
        if name not in self.constants:
            raise WeightsError(
                f"{self.path}: {node.op_type} {node.name!r} has no constant weights; not a "
                "MobileNet, or not written for inference"
            )
        return np.asarray(self.constants[name], np.float32)

    def _convolve(self, node: Any) -> None:
        from onnx import helper

        options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        weight = self._constant(node, 1)
        bias = self._constant(node, 2) if len(node.input) > 2 and node.input[2] else None
        groups, stride, pads = 1, 1, (0, 0)
        if node.op_type == "Conv":
            if weight.ndim != 4:
                raise WeightsError(f"{self.path}: {node.name!r} convolves {weight.shape}")
            groups, stride = int(options.get("group", 1)), _single(options.get("strides", [1, 1]))
            pads = self._pads(node, options)
        else:
            if weight.ndim != 2:
                raise WeightsError(f"{self.path}: {node.name!r} multiplies {weight.shape}")
            if node.op_type == "MatMul" or not options.get("transB", 0):
                weight = weight.T
            weight = weight[:, :, None, None]
        zeros = np.zeros(len(weight), np.float32)
        found = FoundConv(
            name=node.name or node.output[0],
            weight=weight,
            bias=None,
            groups=groups,
            stride=stride,
            pads=pads,
        )
        self.of_conv[node.output[0]] = len(self.convs)
        self.convs.append(_Conv(found, weight, zeros if bias is None else bias.reshape(-1)))

    def _pads(self, node: Any, options: Mapping[str, Any]) -> tuple[int, int] | None:
        rule = options.get("auto_pad", b"NOTSET").decode()
        if rule == "SAME_UPPER":
            return None
        if rule not in ("NOTSET", "VALID"):
            raise WeightsError(f"{self.path}: {node.name!r} pads as {rule}")
        top, _, bottom, _ = options.get("pads", [0, 0, 0, 0]) if rule == "NOTSET" else [0] * 4
        above, below = self.padded.get(node.input[0], (0, 0))
        return above + top, below + bottom

    def _normalise(self, node: Any) -> None:
        from onnx import helper

        index = self.of_conv.get(node.input[0])
        if index is None:
            raise WeightsError(f"{self.path}: {node.name!r}: a batch norm behind no convolution")
        options = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        weight, bias, mean, variance = (self._constant(node, place) for place in range(1, 5))
        self.convs[index].norm = FoundNorm(
            weight=weight,
            bias=bias,
            running_mean=mean,
            running_var=variance,
            eps=round(float(options.get("epsilon", 1e-5)), 9),
        )
        self.of_conv[node.output[0]] = index

    def _arithmetic(self, node: Any) -> None:
        given = [item for item in node.input if item not in self.constants]
        if len(given) != 1 or (node.op_type in ("Sub", "Div") and node.input[0] != given[0]):
            return
        source = given[0]
        (place,) = (place for place, item in enumerate(node.input) if item != source)
        constant = self._constant(node, place).reshape(-1)
        scale, offset = _affine(node.op_type, constant)
        if source in self.image and len(constant) in (1, IMAGE_CHANNELS):
            self.scale = (self.scale * scale).astype(np.float32)
            self.offset = (self.offset * scale + offset).astype(np.float32)
            self.image.add(node.output[0])
        index = self.of_conv.get(source)
        # a single number is part of an activation; one for each channel is a bias or a folded norm
        if index is not None and 1 < len(constant) == len(self.convs[index].weight):
            conv = self.convs[index]
            if conv.norm is not None:
                raise WeightsError(f"{self.path}: {node.name!r} follows a batch norm")
            conv.weight = conv.weight * scale[:, None, None, None]
            conv.bias = conv.bias * scale + offset
            self.of_conv[node.output[0]] = index

    def _pad(self, node: Any) -> None:
        pads = self._constant(node, 1).astype(int) if len(node.input) > 1 else None
        if pads is None or len(pads) != 8:
            raise WeightsError(f"{self.path}: {node.name!r} pads in a way that is not read")
        along = 1 if pads[2] == pads[6] == 0 and (pads[1] or pads[5]) else 2
        self._pass(node.input[0], node.output[0])
        self.padded[node.output[0]] = (int(pads[along]), int(pads[along + 4]))


def _elements(operator: str, inputs: list[np.ndarray]) -> int:
    """At most so many elements has what an operator makes of constants."""
    if operator == "ConstantOfShape":
        return int(np.prod(inputs[0].astype(np.float64)))
    if operator in _ARITHMETIC:
        return math.prod(np.broadcast_shapes(*(array.shape for array in inputs)))
    if operator == "Gather":
        return inputs[0].size * inputs[1].size
    return sum(array.size for array in inputs)


def _affine(operator: str, constant: Floats) -> tuple[Floats, Floats]:
    """(scale, offset) of an operator with a constant."""
    one, zero = np.ones_like(constant), np.zeros_like(constant)
    match operator:
        case "Add":
            return one, constant
        case "Sub":
            return one, -constant
        case "Mul":
            return constant, zero
        case _:
            return (1 / constant).astype(np.float32), zero


def _single(values: Iterator[int] | list[int]) -> int:
    """A stride, which is the same in both directions; 0 (which fits nothing) where it is not."""
    found = set(values)
    return found.pop() if len(found) == 1 else 0


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

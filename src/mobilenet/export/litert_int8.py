"""`to_litert_int8`: an int8 network as a .tflite file that holds its whole numbers unchanged.

The file's int8 is our uint8 less 128. It quantises the image at its start and dequantises the
outputs at its end. With XNNPACK a convolution computes the exact arithmetic; but the argument of
hard-swish and its sigmoid, what a residual is added to, the gates of squeeze-excite and the outputs
are int8 tensors of the file, and so rounded, with ranges that a `QuantisedProgram` does not have.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ExportError, MissingDependency, UsageError
from ..integer import Affine, IntegerFilter, Place, QuantisedProgram, Stage, run_integer, stages
from ..integer.scheme import LARGEST, LARGEST_WEIGHT
from ..program import (
    IMAGE,
    IMAGE_CHANNELS,
    LOGITS,
    Activation,
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConcatStep,
    ConvStep,
    Floats,
    MultiplyStep,
    Padding,
    PoolStep,
    Program,
    ResizeStep,
)
from ..program.geometry import pads
from ..quantize.calibrate import affine_of
from .artifact import ExportedFile

if TYPE_CHECKING:
    from torch import Tensor

FILE = "model.tflite"

_UNSIGNED = 128  # our zero less the file's
GATES = Affine(scale=float(np.float32(1 / LARGEST)), zero=0)  # from 0 to 1
_LARGEST_BIAS = 2.0**30
_FUSED: Mapping[Activation, str] = {"none": "NONE", "relu": "RELU", "relu6": "RELU6"}

# The options' table of an operator, and the version that has it in int8
_OPERATORS = {
    "ADD": ("AddOptions", 2),
    "CONCATENATION": ("ConcatenationOptions", 2),
    "CONV_2D": ("Conv2DOptions", 3),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", 3),
    "DEQUANTIZE": ("DequantizeOptions", 2),
    "MEAN": ("ReducerOptions", 2),
    "MUL": ("MulOptions", 2),
    "PAD": ("PadOptions", 2),
    "QUANTIZE": ("QuantizeOptions", 1),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", 3),
    "SQUEEZE": ("SqueezeOptions", 1),
}
_SCHEMA_VERSION = 3
_ALIGNMENT = 16  # of a buffer, by the schema; `flatbuffers` aligns bytes at 4


def litert_ranges(program: Program, batches: Iterable[Floats]) -> dict[Place, Affine]:
    """The ranges that a .tflite file needs beside the network's, from images (N, 3, H, W).

    Those of outputs that no step reads, at `Place.of(value)`, and of what `project` gives before a
    residual is added, at Place(step, "projected"). Raises UsageError without a picture.
    """
    from ..quantize.trace import run_float

    unread = {Place.of(value) for _, value in program.outputs if value not in program.read()}
    residuals = {
        Place.of(index + 1): Place.of(step.sources[0])
        for index, step in enumerate(program.steps)
        if isinstance(step, BlockStep) and step.residual
    }
    seen: dict[Place, tuple[float, float]] = {}

    def widen(place: Place, x: "Tensor") -> None:
        low, high = (bound.item() for bound in x.aminmax())
        before = seen.get(place, (low, high))
        seen[place] = min(low, before[0]), max(high, before[1])

    for images in batches:
        shown: dict[Place, Tensor] = {}
        run_float(program, images, observe=shown.__setitem__)
        for place in unread:
            widen(place, shown[place])
        for place, source in residuals.items():
            widen(projected_place(place.step), shown[place] - shown[source])
    if not seen and (unread or residuals):
        raise UsageError("no pictures to find the ranges of a .tflite file with")
    return {place: affine_of(bounds) for place, bounds in seen.items()}


def to_litert_int8(
    network: QuantisedProgram,
    *,
    size: int,
    extra: Mapping[Place, Affine],
    metadata: Mapping[str, str],
) -> ExportedFile:
    """Write a classifier: float32 "image" (1, size, size, 3) to float32 "logits" (1, classes).

    `extra` is what `litert_ranges` found, `metadata` becomes the file's metadata. LiteRT may resize
    the batch. All weights, biases and scales are the network's own, but where a hard sigmoid
    follows, see `_with_hard_sigmoid`. The file's logits lie near the reference's, not on them.
    Raises ExportError for what the format cannot say, MissingDependency without "litert".
    """
    outputs = dict(network.program.outputs)
    if LOGITS not in outputs:
        raise ExportError(f"outputs {sorted(outputs)}: a classifier's file needs {LOGITS!r}")
    return ExportedFile(
        format="litert",
        file=FILE,
        data=litert_int8_bytes(network, size=size, extra=extra, metadata=metadata),
        precision="int8",
        input={
            "name": "image",
            "shape": [1, size, size, IMAGE_CHANNELS],
            "dtype": "float32",
            "layout": "NHWC",
        },
        output={
            "name": LOGITS,
            "shape": [1, network.program.channels()[outputs[LOGITS]]],
            "dtype": "float32",
        },
        details={},
        reference=lambda images: run_integer(network, images)[LOGITS][:, :, 0, 0],
    )


def litert_int8_bytes(
    network: QuantisedProgram,
    *,
    size: int,
    extra: Mapping[Place, Affine],
    metadata: Mapping[str, str],
) -> bytes:
    """The file of any network, with its outputs in order: 1x1 maps (1, channels), the others
    (1, height, width, channels). Otherwise as `to_litert_int8`."""
    if network.wide:
        raise ExportError(
            "ten bits where a .tflite file has eight: quantize the run again with --portable"
        )
    for package in ("flatbuffers", "ai_edge_litert"):
        if find_spec(package) is None:
            raise MissingDependency(package.replace("_", "-"), "litert", "writing a .tflite file")
    return _Writer(network, size, extra).write(metadata)


def projected_place(step: int) -> Place:
    """What a block projects, where a residual is added to it."""
    return Place(step, "projected")


def before_hard_swish(after: Affine) -> Affine:
    """The range of hard-swish's argument, given that of its result: what is below -3 gives 0."""
    high = after.scale * (LARGEST - after.zero)
    return affine_of((-3.0, high if high >= 3 else (sqrt(9 + 24 * high) - 3) / 2))


def _with_hard_sigmoid(filter: IntegerFilter, scale_in: float) -> IntegerFilter:
    """A filter whose result, clamped between 0 and 1, is the hard sigmoid of `filter`'s: the clamp
    is that of a tensor from 0 to 1. Its scales are a sixth, its biases greater by 3.

    Weights change only in channels whose bias would leave 32 bits, and which are all but constant.
    """
    bias = filter.bias + 3 / (scale_in * filter.scale)
    coarser = np.maximum(np.abs(bias) / _LARGEST_BIAS, 1)
    return IntegerFilter(
        weight=np.rint(filter.weight / coarser[:, None, None, None]).astype(np.int8),
        scale=filter.scale * coarser / 6,
        bias=np.rint(bias / coarser).astype(np.int32),
    )


@dataclass(frozen=True, kw_only=True)
class _Map:
    """An int8 tensor of the file, (1, size, size, channels)."""

    index: int
    size: int
    channels: int
    affine: Affine


@dataclass(frozen=True, kw_only=True)
class _Window:
    """How a filter's kernel goes over an axis, padded by (before, after)."""

    kernel: int
    stride: int
    dilation: int
    around: tuple[int, int]

    def out_size(self, size: int) -> int:
        reach = self.dilation * (self.kernel - 1)
        return (size + sum(self.around) - reach - 1) // self.stride + 1

    def is_same(self, size: int) -> bool:
        return self.around == pads(size, self.kernel, self.stride, self.dilation, "same")


class _Writer:
    """A network's steps as operators of a `_Graph`; `maps` holds what is written already."""

    def __init__(self, network: QuantisedProgram, size: int, extra: Mapping[Place, Affine]) -> None:
        self.network = network
        self.size = size
        self.ranges = {**extra, **network.ranges}
        self.graph = _Graph()
        self.maps: dict[Place, _Map] = {}

    def write(self, metadata: Mapping[str, str]) -> bytes:
        program, first = self.network.program, Place.of(IMAGE)
        image = self.graph.tensor("image", "FLOAT32", (1, self.size, self.size, IMAGE_CHANNELS))
        self.emit("QUANTIZE", [image], first, self.size, IMAGE_CHANNELS, self.affine(first))
        for index in range(len(program.steps)):
            self.step(index)
        outputs = {name: self.output(name, Place.of(value)) for name, value in program.outputs}
        return self.graph.to_bytes({"image": image}, outputs, metadata)

    def step(self, index: int) -> None:
        step, out = self.network.program.steps[index], Place.of(index + 1)
        inputs = [self.maps[Place.of(source)] for source in step.sources]
        x = inputs[0]
        match step:
            case ConvStep():
                (stage,) = stages(self.network.program, index)
                self.convolve(stage, out, step.stride, step.dilation, step.padding)
            case BlockStep():
                self.block(index, step)
            case PoolStep():
                self.mean(x, out)
            case AddStep():
                self.add(x, inputs[1], out, step.activation)
            case MultiplyStep():
                self.multiply(x, inputs[1], out)
            case ConcatStep():
                self.concat(inputs, out)
            case ResizeStep():
                self.resize(x, inputs[1].size, out)
            case AveragePoolStep():
                self.average_pool(x, step, out)
            case _:
                raise ExportError(f"step {index}: no .tflite file of a {type(step).__name__}")

    def block(self, index: int, step: BlockStep) -> None:
        out, depthwise = Place.of(index + 1), Place(index, "depthwise")
        for stage in stages(self.network.program, index):
            match stage.name:
                case "expand":
                    self.convolve(stage, Place(index, "expanded"))
                case "depthwise":
                    self.convolve(stage, depthwise, step.stride, step.dilation, step.padding)
                case "reduce":
                    self.mean(self.maps[depthwise], stage.source)
                    self.convolve(stage, Place(index, "squeezed"))
                case "excite":
                    gates = self.convolve(stage, Place(index, "gates"))
                    self.multiply(self.maps[depthwise], gates, Place(index, "gated"))
                case _ if step.residual:
                    projected = self.convolve(stage, projected_place(index))
                    self.add(projected, self.maps[Place.of(step.sources[0])], out, "none")
                case _:
                    self.convolve(stage, out)

    def affine(self, place: Place) -> Affine:
        if place.name == "gates":
            return GATES
        if place not in self.ranges:
            raise UsageError(f"{place}: its range is missing; litert_ranges finds it")
        return self.ranges[place]

    def emit(
        self,
        operator: str,
        inputs: Sequence[int],
        place: Place,
        size: int,
        channels: int,
        affine: Affine,
        options: Mapping[str, object] | None = None,
    ) -> _Map:
        """The map at `place`, written by an operator."""
        index = self.graph.tensor(_name(place), "INT8", (1, size, size, channels), affine)
        self.graph.operator(operator, inputs, index, options or {})
        self.maps[place] = _Map(index=index, size=size, channels=channels, affine=affine)
        return self.maps[place]

    def output(self, name: str, place: Place) -> int:
        x = self.maps[place]
        shape = (1, x.size, x.size, x.channels)
        index = self.graph.tensor(name, "FLOAT32", shape if x.size > 1 else (1, x.channels))
        if x.size > 1:
            self.graph.operator("DEQUANTIZE", [x.index], index, {})
            return index
        mapped = self.graph.tensor(f"{name} 1x1", "FLOAT32", shape)
        self.graph.operator("DEQUANTIZE", [x.index], mapped, {})
        self.graph.operator("SQUEEZE", [mapped], index, {"squeezeDims": [1, 2]})
        return index

    def convolve(
        self,
        stage: Stage,
        target: Place,
        stride: int = 1,
        dilation: int = 1,
        padding: Padding = "symmetric",
    ) -> _Map:
        """A stage's convolution and its activation."""
        filter = self.network.filters[stage.step][stage.name]
        x, affine, kernel = self.maps[stage.source], self.affine(target), filter.weight.shape[2]
        window = _Window(
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            around=pads(x.size, kernel, stride, dilation, padding),
        )
        operator = "DEPTHWISE_CONV_2D" if stage.name == "depthwise" else "CONV_2D"
        match stage.activation:
            case "hard_swish":
                before = Place(target.step, f"{target.name} before hard-swish")
                argument = before_hard_swish(affine)
                y = self.filtered(operator, x, filter, window, before, argument)
                return self.hard_swish(y, target)
            case "hard_sigmoid":
                if affine.zero or affine.scale > GATES.scale:
                    raise ExportError(f"{target}: {affine} is no range of a hard sigmoid, 0 to 1")
                filter = _with_hard_sigmoid(filter, x.affine.scale)
                return self.filtered(operator, x, filter, window, target, affine)
        return self.filtered(operator, x, filter, window, target, affine, stage.activation)

    def hard_swish(self, x: _Map, out: Place) -> _Map:
        """Times its hard sigmoid, a depthwise 1x1 filter: XNNPACK has no HARD_SWISH in int8, and a
        network in twenty pieces takes it nearly twice the time."""
        identity = IntegerFilter(
            weight=np.full((x.channels, 1, 1, 1), LARGEST_WEIGHT, np.int8),
            scale=np.full(x.channels, 1 / LARGEST_WEIGHT),
            bias=np.zeros(x.channels, np.int32),
        )
        sigmoid = _with_hard_sigmoid(identity, x.affine.scale)
        place = Place(out.step, f"{out.name} hard sigmoid")
        window = _Window(kernel=1, stride=1, dilation=1, around=(0, 0))
        gates = self.filtered("DEPTHWISE_CONV_2D", x, sigmoid, window, place, GATES)
        return self.multiply(x, gates, out)

    def filtered(
        self,
        operator: str,
        x: _Map,
        filter: IntegerFilter,
        window: _Window,
        target: Place,
        affine: Affine,
        activation: Activation = "none",
    ) -> _Map:
        size, padding = window.out_size(x.size), "VALID"
        if window.is_same(x.size):
            padding = "SAME"
        elif any(window.around):
            x = self.padded(x, window.around, Place(target.step, f"{target.name} padded"))
        options: dict[str, object] = {
            "padding": self.graph.enum("Padding", padding),
            "strideW": window.stride,
            "strideH": window.stride,
            "dilationWFactor": window.dilation,
            "dilationHFactor": window.dilation,
            "fusedActivationFunction": self.fused(activation, target),
        }
        order, axis = (0, 2, 3, 1), 0  # OHWI
        if operator == "DEPTHWISE_CONV_2D":
            order, axis = (1, 2, 3, 0), 3  # 1HWC
            options["depthMultiplier"] = 1
        scale, name = filter.scale.astype(np.float32), _name(target)
        weight = self.graph.constant(f"{name} weight", filter.weight.transpose(order), scale, axis)
        bias_scale = (x.affine.scale * filter.scale).astype(np.float32)
        bias = self.graph.constant(f"{name} bias", filter.bias, bias_scale)
        inputs = [x.index, weight, bias]
        return self.emit(operator, inputs, target, size, len(filter.weight), affine, options)

    def fused(self, activation: Activation, target: Place) -> int:
        if activation not in _FUSED:
            raise ExportError(f"{target}: no .tflite file of {activation} in int8")
        return self.graph.enum("ActivationFunctionType", _FUSED[activation])

    def padded(self, x: _Map, around: tuple[int, int], place: Place) -> _Map:
        pixels = np.array([(0, 0), around, around, (0, 0)], np.int32)
        by = self.graph.constant(f"{_name(place)} by", pixels)
        size = x.size + sum(around)
        return self.emit("PAD", [x.index, by], place, size, x.channels, x.affine)

    def mean(self, x: _Map, place: Place) -> None:
        axes = self.graph.constant(f"{_name(place)} axes", np.array([1, 2], np.int32))
        options, affine = {"keepDims": True}, self.affine(place)
        self.emit("MEAN", [x.index, axes], place, 1, x.channels, affine, options)

    def add(self, a: _Map, b: _Map, place: Place, activation: Activation) -> None:
        options = {"fusedActivationFunction": self.fused(activation, place)}
        inputs, affine = [a.index, b.index], self.affine(place)
        self.emit("ADD", inputs, place, a.size, a.channels, affine, options)

    def multiply(self, x: _Map, gates: _Map, place: Place) -> _Map:
        affine = self.affine(place)
        return self.emit("MUL", [x.index, gates.index], place, x.size, x.channels, affine)

    def concat(self, inputs: Sequence[_Map], out: Place) -> None:
        affine = self.affine(out)
        parts = [
            x if x.affine == affine else self.rescaled(x, Place(out.step, f"part {n}"), affine)
            for n, x in enumerate(inputs)
        ]
        channels, size = sum(part.channels for part in parts), parts[0].size
        indices = [part.index for part in parts]
        self.emit("CONCATENATION", indices, out, size, channels, affine, {"axis": 3})

    def rescaled(self, x: _Map, place: Place, affine: Affine) -> _Map:
        return self.emit("QUANTIZE", [x.index], place, x.size, x.channels, affine)

    def resize(self, x: _Map, size: int, out: Place) -> None:
        """RESIZE_BILINEAR keeps the range, so that another takes a rounding more."""
        affine = self.affine(out)
        target = out if x.affine == affine else Place(out.step, "resized")
        pixels = self.graph.constant(f"{_name(out)} size", np.array([size, size], np.int32))
        inputs, options = [x.index, pixels], {"halfPixelCenters": True}
        y = self.emit("RESIZE_BILINEAR", inputs, target, size, x.channels, x.affine, options)
        if target != out:
            self.rescaled(y, out, affine)

    def average_pool(self, x: _Map, step: AveragePoolStep, out: Place) -> None:
        """A depthwise filter of ones, which rounds once: AVERAGE_POOL_2D keeps the range."""
        ones = IntegerFilter(
            weight=np.ones((x.channels, 1, step.kernel, step.kernel), np.int8),
            scale=np.full(x.channels, 1 / step.kernel**2),
            bias=np.zeros(x.channels, np.int32),
        )
        window = _Window(kernel=step.kernel, stride=step.stride, dilation=1, around=(0, 0))
        self.filtered("DEPTHWISE_CONV_2D", x, ones, window, out, self.affine(out))


def _name(place: Place) -> str:
    """A tensor's, beside those of the inputs and outputs."""
    return "image quantised" if place == Place.of(IMAGE) else f"{place.step} {place.name}"


class _Graph:
    """The tables of a .tflite file with one graph."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated  # pyright: ignore[reportMissingImports]

        self.schema: Any = schema_py_generated
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[str, Any] = {}
        self.buffers = [AlignedBuffer(self.schema, b"")]  # the first is that of what is computed

    def enum(self, kind: str, name: str) -> int:
        return getattr(getattr(self.schema, kind), name)

    def tensor(
        self, name: str, kind: str, shape: Sequence[int], affine: Affine | None = None
    ) -> int:
        """A tensor that is computed: its index."""
        if affine is None:
            return self._add(name, kind, shape, None, b"")
        quantised = self._quantisation([affine.scale], affine.zero - _UNSIGNED)
        return self._add(name, kind, shape, quantised, b"")

    def constant(
        self, name: str, values: np.ndarray, scale: Floats | None = None, axis: int = 0
    ) -> int:
        """A tensor that is given, with scales along an axis: its index."""
        little = values.astype(values.dtype.newbyteorder("<"))
        if scale is not None and (scale == scale[0]).all():
            scale = scale[:1]  # a zero beside every scale takes eight bytes
        quantised = None if scale is None else self._quantisation(scale, 0, axis)
        return self._add(name, values.dtype.name.upper(), values.shape, quantised, little.tobytes())

    def _quantisation(self, scale: Sequence[float] | Floats, zero: int, axis: int = 0) -> Any:
        made = self.schema.QuantizationParametersT()
        made.scale = np.asarray(scale, np.float32)
        made.zeroPoint = np.full(len(scale), zero, np.int64)
        made.quantizedDimension = axis
        return made

    def _add(self, name: str, kind: str, shape: Sequence[int], quantised: Any, data: bytes) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.quantization = name, list(shape), quantised
        made.type = self.enum("TensorType", kind)
        made.hasRank = True
        if data:
            made.buffer = len(self.buffers)
            self.buffers.append(AlignedBuffer(self.schema, data))
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(
        self, name: str, inputs: Sequence[int], output: int, options: Mapping[str, object]
    ) -> None:
        table, version = _OPERATORS[name]
        if name not in self.codes:
            code = self.schema.OperatorCodeT()
            code.builtinCode = self.enum("BuiltinOperator", name)
            # where older readers look; it holds all of ours
            code.deprecatedBuiltinCode = code.builtinCode
            code.version = version
            self.codes[name] = code
        made = self.schema.OperatorT()
        made.opcodeIndex = list(self.codes).index(name)
        made.inputs, made.outputs = list(inputs), [output]
        made.builtinOptionsType = self.enum("BuiltinOptions", table)
        made.builtinOptions = getattr(self.schema, f"{table}T")()
        for option, value in options.items():
            setattr(made.builtinOptions, option, value)
        self.operators.append(made)

    def to_bytes(
        self,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        metadata: Mapping[str, str],
    ) -> bytes:
        """The file; one signature names its inputs and outputs."""
        from flatbuffers import Builder

        schema = self.schema
        graph = schema.SubGraphT()
        graph.name = "main"
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = list(inputs.values()), list(outputs.values())
        signature = schema.SignatureDefT()
        signature.signatureKey = "serving_default"
        signature.inputs = [self._named(*pair) for pair in inputs.items()]
        signature.outputs = [self._named(*pair) for pair in outputs.items()]
        model = schema.ModelT()
        model.version = _SCHEMA_VERSION
        model.description = "mobilenet"
        model.operatorCodes = list(self.codes.values())
        model.subgraphs, model.signatureDefs = [graph], [signature]
        model.metadata = []
        model.buffers = list(self.buffers)
        for name, text in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, len(model.buffers)
            model.buffers.append(AlignedBuffer(schema, text.encode()))
            model.metadata.append(entry)
        builder = Builder(sum(len(buffer.data) for buffer in self.buffers) + 2**16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _named(self, name: str, index: int) -> Any:
        made = self.schema.TensorMapT()
        made.name, made.tensorIndex = name, index
        return made


class AlignedBuffer:
    """A buffer's table, in the place of the schema's own, which does not align the data."""

    def __init__(self, schema: Any, data: bytes) -> None:
        self.schema = schema
        self.data = data

    def Pack(self, builder: Any) -> int:
        """As the schema's classes are written."""
        vector = None
        if self.data:
            builder.Prep(_ALIGNMENT, len(self.data))
            vector = builder.CreateByteVector(self.data)
        self.schema.BufferStart(builder)
        if vector is not None:
            self.schema.BufferAddData(builder, vector)
        return self.schema.BufferEnd(builder)

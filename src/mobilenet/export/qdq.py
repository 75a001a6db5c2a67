"""`to_qdq`: an int8 network as an ONNX file with QuantizeLinear and DequantizeLinear nodes.

The file holds the network's whole numbers unchanged. It quantises the image and rounds a tensor to
uint8 wherever the exact arithmetic does, and nowhere else; what lies between is written in float32,
and a runtime fuses as much of it into integer kernels as it can. Answers differ from the exact ones
only where float32 rounds otherwise next to a tie between two values of a tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependency
from ..integer import Affine, IntegerFilter, Place, QuantisedProgram, Stage, run_integer, stages
from ..integer.scheme import LARGEST, LARGEST_FOUR_BITS
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
    ResizeStep,
)
from ..program.geometry import out_size, pads
from .artifact import ExportedFile
from .onnx import OPSET

FOUR_BITS_OPSET = 21  # the first with tensors of four bits

if TYPE_CHECKING:
    import onnx

Attributes = Mapping[str, Any]

_SIXTH: Attributes = {"alpha": 1 / 6, "beta": 0.5}  # of a hard sigmoid, whose own is a fifth


def to_qdq(network: QuantisedProgram, *, size: int, metadata: Mapping[str, str]) -> ExportedFile:
    """Write an int8 network as ONNX: input "image" float32 (batch, 3, size, size), free batch.

    A classifier's output is "logits" float32 (batch, classes); other networks have theirs under
    their own names, (batch, channels, height, width), and what is returned tells of the first.
    `metadata` becomes the file's metadata_props, and the result has passed onnx's checker. Raises
    MissingDependency without the extra "onnx".
    """
    if find_spec("onnx") is None:
        raise MissingDependency("onnx", "onnx", "exporting to ONNX")
    import onnx

    writer = _Writer(network, size)
    model = writer.model()
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    name, shape = next(iter(writer.outputs().items()))

    def reference(images: Floats) -> Floats:
        answers = run_integer(network, images)[name]
        return answers[:, :, 0, 0] if len(shape) == 2 else answers

    return ExportedFile(
        format="onnx",
        file="model.onnx",
        data=model.SerializeToString(),
        precision="int8",
        input={
            "name": "image",
            "shape": ["batch", IMAGE_CHANNELS, size, size],
            "dtype": "float32",
            "layout": "NCHW",
        },
        output={"name": name, "shape": list(shape), "dtype": "float32"},
        details={"opset": writer.graph.opset, **_several(writer.outputs())},
        reference=reference,
    )


def _several(outputs: Mapping[str, Sequence[str | int]]) -> dict[str, Any]:
    """All outputs, where there are others than logits."""
    if list(outputs) == [LOGITS]:
        return {}
    return {
        "outputs": [
            {"name": name, "shape": list(shape), "dtype": "float32"}
            for name, shape in outputs.items()
        ]
    }


@dataclass(frozen=True, kw_only=True)
class _Map:
    """A float32 tensor of the graph, (batch, channels, size, size)."""

    name: str
    size: int


class _Writer:
    """A network's steps as nodes of a `_Graph`; `maps` holds what is written already."""

    def __init__(self, network: QuantisedProgram, size: int) -> None:
        self.network = network
        self.size = size
        self.graph = _Graph()
        self.maps: dict[Place, _Map] = {}
        self.write(Place.of(IMAGE), _Map(name="image", size=size))
        for index in range(len(network.program.steps)):
            self.step(index)

    def outputs(self) -> dict[str, tuple[str | int, ...]]:
        """The shapes of the outputs by name, in order."""
        channels, outputs = self.network.program.channels(), self.network.program.outputs
        sizes = {name: self.maps[Place.of(value)].size for name, value in outputs}
        if sizes == {LOGITS: 1}:
            return {LOGITS: ("batch", channels[outputs[0][1]])}
        return {
            name: ("batch", channels[value], sizes[name], sizes[name]) for name, value in outputs
        }

    def model(self) -> "onnx.ModelProto":
        values = dict(self.network.program.outputs)
        outputs = self.outputs()
        for name, shape in outputs.items():
            operator = "Flatten" if len(shape) == 2 else "Identity"
            self.graph.node(operator, [self.maps[Place.of(values[name])].name], name)
        image = ("batch", IMAGE_CHANNELS, self.size, self.size)
        return self.graph.to_model({"image": image}, outputs)

    def step(self, index: int) -> None:
        step, out = self.network.program.steps[index], Place.of(index + 1)
        inputs = [self.maps[Place.of(source)] for source in step.sources]
        names, x = [map.name for map in inputs], inputs[0]
        match step:
            case ConvStep():
                (stage,) = stages(self.network.program, index)
                y = self.convolve(stage, step.stride, step.dilation, step.padding)
                self.write(out, y, step.activation)
            case BlockStep():
                self.block(index, step)
            case PoolStep():
                self.write(out, self.mean(x))
            case AddStep():
                self.write(out, self.map("Add", names, x.size), step.activation)
            case MultiplyStep():
                self.write(out, self.map("Mul", names, x.size))
            case ConcatStep():
                self.write(out, self.map("Concat", names, x.size, {"axis": 1}))
            case ResizeStep():
                self.write(out, self.resize(x, inputs[1].size))
            case AveragePoolStep():
                size = (x.size - step.kernel) // step.stride + 1
                window = {"kernel_shape": [step.kernel] * 2, "strides": [step.stride] * 2}
                self.write(out, self.map("AveragePool", names, size, window))
            case _:
                raise AssertionError(step)

    def block(self, index: int, step: BlockStep) -> None:
        out, depthwise, gated = (Place(index, name) for name in ("out", "depthwise", "gated"))
        for stage in stages(self.network.program, index):
            match stage.name:
                case "depthwise":
                    y = self.convolve(stage, step.stride, step.dilation, step.padding)
                case "reduce":
                    self.write(stage.source, self.mean(self.maps[depthwise]))
                    y = self.convolve(stage)
                case "excite":
                    x, y = self.maps[depthwise], self.convolve(stage)
                    gates = self.map("HardSigmoid", [y.name], y.size, _SIXTH)
                    self.write(gated, self.map("Mul", [x.name, gates.name], x.size))
                    continue
                case _:
                    y = self.convolve(stage)
            if stage.name == "project" and step.residual:
                x = self.maps[Place.of(step.sources[0])]
                y = self.map("Add", [y.name, x.name], y.size)
            self.write(stage.target or out, y, stage.activation)

    def map(
        self, operator: str, inputs: Sequence[str], size: int, attributes: Attributes | None = None
    ) -> _Map:
        return _Map(name=self.graph.node(operator, inputs, attributes=attributes), size=size)

    def write(self, place: Place, x: _Map, activation: Activation = "none") -> None:
        """Keep results: rounded to uint8 where the place has a range, else as they are. What
        has ten bits stays float32 in the file."""
        affine = self.network.ranges.get(place)
        if affine is not None and affine.largest > LARGEST:
            self.maps[place] = self.ten_bits(x, activation, affine)
            return
        x = self.activated(x, activation, affine)
        if affine is not None:
            scale, zero = np.float32(affine.scale), np.uint8(affine.zero)
            unit = [self.graph.constant(np.array(number)) for number in (scale, zero)]
            q = self.graph.node("QuantizeLinear", [x.name, *unit])
            x = self.map("DequantizeLinear", [q, *unit], x.size)
        self.maps[place] = x

    def ten_bits(self, x: _Map, activation: Activation, affine: Affine) -> _Map:
        """The activation, and the rounding to ten bits, which ONNX has no type for, in float32."""
        low, high = -affine.zero, affine.largest - affine.zero
        if activation in ("relu", "relu6"):
            low = 0
        if activation == "relu6":
            high = min(high, round(6 / affine.scale))
        if activation in ("hard_swish", "hard_sigmoid"):
            x = self.activated(x, activation, None)
        numbers = (1 / affine.scale, low, high, affine.scale)
        unit, *ends, scale = [self.graph.constant(np.array(n, np.float32)) for n in numbers]
        steps = self.graph.node("Mul", [x.name, unit])
        whole = self.graph.node("Round", [self.graph.node("Clip", [steps, *ends])])
        return self.map("Mul", [whole, scale], x.size)

    def activated(self, x: _Map, activation: Activation, affine: Affine | None) -> _Map:
        """The activation, but for bounds at which the tensor's range ends anyhow: runtimes fuse a
        convolution with the rounding behind it more often where nothing lies between."""
        match activation:
            case "hard_swish":
                return self.map("HardSwish", [x.name], x.size)
            case "hard_sigmoid":
                return self.map("HardSigmoid", [x.name], x.size, _SIXTH)
            case "relu" | "relu6":
                below = affine is None or affine.zero > 0
                above = activation == "relu6" and (
                    affine is None or round(6 / affine.scale) < LARGEST - affine.zero
                )
            case "none":
                return x
            case _:
                raise AssertionError(activation)
        if above:
            bounds = [self.graph.constant(np.array(bound, np.float32)) for bound in (0, 6)]
            return self.map("Clip", [x.name, *bounds], x.size)
        return self.map("Relu", [x.name], x.size) if below else x

    def convolve(
        self, stage: Stage, stride: int = 1, dilation: int = 1, padding: Padding = "symmetric"
    ) -> _Map:
        """A stage's convolution, without its activation."""
        filter = self.network.filters[stage.step][stage.name]
        x, kernel = self.maps[stage.source], filter.weight.shape[2]
        before, after = pads(x.size, kernel, stride, dilation, padding)
        attributes: Attributes = {
            "dilations": [dilation] * 2,
            "group": len(filter.weight) if stage.name == "depthwise" else 1,
            "kernel_shape": [kernel] * 2,
            "pads": [before, before, after, after],
            "strides": [stride] * 2,
        }
        affine, source = self.network.ranges[stage.source], x.name
        if filter.weight.dtype != np.int8 and affine.largest == LARGEST:
            # changes nothing, but ONNX Runtime would round the weights of a convolution that stands
            # directly between eight-bit tensors to eight bits
            ends = (-affine.zero * affine.scale, (affine.largest - affine.zero) * affine.scale)
            bounds = [self.graph.constant(np.array(end, np.float32)) for end in ends]
            source = self.graph.node("Clip", [source, *bounds])
        names = self.graph.filter(filter, affine.scale)
        return self.map("Conv", [source, *names], out_size(x.size, stride), attributes)

    def mean(self, x: _Map) -> _Map:
        return self.map("GlobalAveragePool", [x.name], 1)

    def resize(self, x: _Map, size: int) -> _Map:
        # by scales: ONNX Runtime loses sizes where it makes the step one of whole numbers
        scale = np.float32(size / x.size)
        if x.size * float(scale) < size:  # the product is rounded down
            scale = np.nextafter(scale, np.float32(np.inf))
        scales = self.graph.constant(np.array([1, 1, scale, scale], np.float32))
        attributes: Attributes = {
            "coordinate_transformation_mode": "half_pixel",
            "mode": "linear",
        }
        return self.map("Resize", [x.name, "", scales], size, attributes)


class _Graph:
    """Nodes in order, and the constants that they read."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.opset = OPSET

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str | None = None,
        attributes: Attributes | None = None,
    ) -> str:
        """Append a node; the name of what it writes."""
        from onnx.helper import make_node

        name = f"{operator}_{len(self.nodes)}"
        output = name if output is None else output
        self.nodes.append(make_node(operator, inputs, [output], name, **(attributes or {})))
        return output

    def constant(self, value: NDArray) -> str:
        from onnx.numpy_helper import from_array

        self.constants.append(from_array(value, f"constant_{len(self.constants)}"))
        return self.constants[-1].name

    def filter(self, filter: IntegerFilter, scale_in: float) -> list[str]:
        """A filter's weight and bias in real numbers, for inputs of that scale; weights of ten bits
        as float32 constants."""
        if filter.weight.dtype != np.int8:
            real = filter.real(scale_in)
            return [self.constant(value) for value in (real.weight, real.bias)]
        whole = self.constant
        if filter.largest == LARGEST_FOUR_BITS:
            self.opset, whole = FOUR_BITS_OPSET, self.four_bits
        # each weight with zeros of its own: ONNX Runtime cannot open the file with exact sums else
        zero = np.zeros(len(filter.scale), np.int8)
        scales = [filter.scale.astype(np.float32), (filter.scale * scale_in).astype(np.float32)]
        weight = [whole(filter.weight), self.constant(scales[0]), whole(zero)]
        bias = [self.constant(filter.bias), self.constant(scales[1])]
        along = {"axis": 0}
        return [self.node("DequantizeLinear", ends, attributes=along) for ends in (weight, bias)]

    def four_bits(self, value: NDArray) -> str:
        """A constant of -8...7, two to a byte."""
        from onnx import TensorProto
        from onnx.helper import make_tensor

        name = f"constant_{len(self.constants)}"
        numbers = np.append(value.ravel(), np.zeros(value.size % 2)).astype(np.int8) & 15
        pairs = (numbers[0::2] | numbers[1::2] << 4).astype(np.uint8).tobytes()
        self.constants.append(make_tensor(name, TensorProto.INT4, value.shape, pairs, raw=True))
        return name

    def to_model(
        self,
        inputs: Mapping[str, Sequence[str | int]],
        outputs: Mapping[str, Sequence[str | int]],
    ) -> "onnx.ModelProto":
        from onnx import TensorProto
        from onnx.helper import (
            make_graph,
            make_model_gen_version,
            make_opsetid,
            make_tensor_value_info,
        )

        sources, targets = (
            [make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in end.items()]
            for end in (inputs, outputs)
        )
        graph = make_graph(self.nodes, "mobilenet", sources, targets, self.constants)
        # the oldest IR version that has this opset, which older runtimes read too
        return make_model_gen_version(
            graph,
            opset_imports=[make_opsetid("", self.opset)],
            producer_name="mobilenet",
            producer_version=version("mobilenet"),
        )

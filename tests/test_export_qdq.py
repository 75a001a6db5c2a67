"""The int8 ONNX file against the exact integer arithmetic, in ONNX Runtime and in OpenVINO."""

import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobilenet.errors import MissingDependency
from mobilenet.export.qdq import to_qdq
from mobilenet.integer import (
    Affine,
    IntegerFilter,
    Place,
    QuantisedProgram,
    places,
    run_integer,
    stages,
)
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.program import Activation, BlockStep, Floats, program_of
from mobilenet.quantize import quantise_program
from mobilenet.runtime import RUNTIMES
from test_quantize import random_program, two_convolutions, whole

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


pytestmark = pytest.mark.usefixtures("one_thread")


# Names, widths, sizes and options of whole networks
NETWORKS = {
    "v1": (replace(MODELS["mobilenet_v1"], classes=11, width=0.25), 64),
    "v2": (replace(MODELS["mobilenet_v2"], classes=11, width=0.5), 65),
    "v2 same": (
        replace(MODELS["mobilenet_v2"], classes=11, width=0.35, padding="same", output_stride=16),
        65,
    ),
    "v3 large": (replace(MODELS["mobilenet_v3_large"], classes=11, width=0.35), 65),
    "v3 small": (replace(MODELS["mobilenet_v3_small"], classes=11, width=0.5, padding="same"), 64),
    "v3 small minimalistic": (
        replace(MODELS["mobilenet_v3_small_minimalistic"], classes=11, width=0.5),
        64,
    ),
}
PROGRAMS = [*NETWORKS, *map(str, range(6))]  # and of the seeds of random programs
RANDOM_SIZE = 21


def images_of(size: int, *, count: int = 2, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, 3, size, size), np.float32)


_made: dict[str, tuple[QuantisedProgram, int]] = {}


def quantised(name: str) -> tuple[QuantisedProgram, int]:
    """A network of `PROGRAMS`, and the size of its image."""
    if name not in _made:
        if name in NETWORKS:
            spec, size = NETWORKS[name]
            program = program_of(random_network(spec, size))
        else:
            program, size = random_program(int(name)), RANDOM_SIZE
        # ranges of most but not all numbers, so that some saturate
        net = quantise_program(program, [images_of(size, seed=0)], percentile=99.5)
        _made[name] = net, size
    return _made[name]


def seven_bits(net: QuantisedProgram) -> QuantisedProgram:
    """The network with weights in -64...64, whose sums of two products fit 16 bits: OpenVINO has
    no exact sums of others on processors without VNNI."""

    def halved(filter: IntegerFilter) -> IntegerFilter:
        return IntegerFilter(
            weight=np.rint(filter.weight / 2).astype(np.int8),
            scale=filter.scale * 2,
            bias=np.rint(filter.bias / 2).astype(np.int32),
        )

    filters = tuple({name: halved(f) for name, f in own.items()} for own in net.filters)
    return replace(net, filters=filters)


# --------------------------------------------------------- every tensor, given what it is made of


def taken_apart(data: bytes, tensors: dict[Place, np.ndarray]) -> bytes:
    """The file with all tensors as outputs "made <n>", each made of those given as "given <n>"."""
    model = onnx.load_from_string(data)
    graph, helper = model.graph, onnx.helper
    made = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    numbers = {node.output[0]: number for number, node in enumerate(made)}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in numbers:
            node.input[0] = f"given {numbers[node.input[0]]}"
    for node, (number, q) in zip(made, enumerate(tensors.values()), strict=True):
        node.output[0] = f"made {number}"
        shape = ["batch", *q.shape[1:]]
        for name, ends in (("given", graph.input), ("made", graph.output)):
            end = helper.make_tensor_value_info(f"{name} {number}", onnx.TensorProto.UINT8, shape)
            ends.append(end)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def in_onnxruntime(data: bytes) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed), strict=True))


def in_openvino(data: bytes) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(data), "CPU", settings)

    def run(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = compiled(feed)
        return {name: found[output] for output in compiled.outputs for name in output.names}

    return run


def check_tensors(net: QuantisedProgram, size: int, opened: Callable[[bytes], Run]) -> None:
    """Given the tensors that the exact arithmetic makes, each is made again but for ties: at most
    a step off, and seldom. What is not rounded is there to float32's accuracy."""
    images = images_of(size)
    tensors: dict[Place, np.ndarray] = {}
    expected = run_integer(net, images, observe=tensors.__setitem__)
    assert set(tensors) == set(places(net.program))
    feed = {f"given {number}": q for number, q in enumerate(tensors.values())}
    data = taken_apart(to_qdq(net, size=size, metadata={}).data, tensors)
    found = opened(data)({"image": images, **feed})
    differing = 0
    for number, (place, q) in enumerate(tensors.items()):
        off = abs(found[f"made {number}"].astype(int) - q)
        assert off.max() <= 1, place
        differing += int((off > 0).sum())
    # seen: at most 6e-6 in ONNX Runtime, 3e-5 in OpenVINO
    assert differing <= 1e-3 * sum(q.size for q in tensors.values())
    for name, value in expected.items():
        value = value.reshape(found[name].shape)
        np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-6 * abs(value).max())


@pytest.mark.parametrize("name", PROGRAMS)
def test_onnxruntime_makes_every_tensor_as_defined(name: str) -> None:
    check_tensors(*quantised(name), in_onnxruntime)


@pytest.mark.parametrize("name", PROGRAMS)
def test_openvino_makes_every_tensor_as_defined(name: str) -> None:
    pytest.importorskip("openvino")
    net, size = quantised(name)
    check_tensors(seven_bits(net), size, in_openvino)


def square(*red: float) -> Floats:
    """A square image whose first row of its first channel is given; the rest is 0."""
    image = np.zeros((1, 3, len(red), len(red)), np.float32)
    image[0, 0, 0] = red
    return image


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("zero", [0, 100])
@pytest.mark.parametrize("scale", [1 / 64, 1 / 32, 1.0])
def test_bounds_within_a_tensors_range(activation: Activation, zero: int, scale: float) -> None:
    """Whether it is the activation's bound or the range's that a value meets."""
    ranges = {0: Affine(scale=1.0, zero=100), 1: Affine(scale=scale, zero=zero)}
    net = two_convolutions(whole([[1, 0, 0]]), ranges, activation)
    images = square(-300, -100, -3, 0, 2, 5, 6, 7, 9, 155, 1000)
    file = to_qdq(net, size=11, metadata={})
    assert (file.output["name"], file.output["shape"]) == ("out", ["batch", 1, 11, 11])
    expected, found = run_integer(net, images), in_onnxruntime(file.data)({"image": images})
    for name in ("out", "q"):  # nothing here is near a tie
        np.testing.assert_array_equal(found[name], expected[name])
    assert file.reference is not None
    np.testing.assert_array_equal(file.reference(images), expected["out"])


def test_the_runtime_sums_without_saturation() -> None:
    net = two_convolutions(
        whole([[127, 127, 127]]),
        {0: Affine(scale=1.0, zero=0), 1: Affine(scale=512.0, zero=0)},
    )
    data = to_qdq(net, size=4, metadata={}).data
    session = RUNTIMES["onnxruntime"](data, threads=1, precision="int8", batch=None)
    # 3 * 127 * 255 = 97155 = 189.8 steps of 512; the sum of two such products leaves 16 bits
    found = session.run(np.full((1, 3, 4, 4), 255, np.float32))
    np.testing.assert_array_equal(found, np.full((1, 1, 4, 4), 190 * 512))


# ----------------------------------------------------------------------------- whole networks


def tolerance(net: QuantisedProgram, images: Floats) -> float:
    """How far a logit moves where one of an image's values moves by a step, three times.

    A tie that float32 decides otherwise is a step in one tensor, too, and random weights make as
    much of it wherever it happens. Where the first class leads by twice that, it stays the first.
    """
    # of eight bits, as most tensors have
    image = net.ranges[Place.of(0)]
    step, count = image.scale * image.largest / 255, len(images)
    expected, moved = run_integer(net, images)["logits"], 0.0
    for seed in range(3):
        changed, rng = images.copy(), np.random.default_rng(seed)
        where = (rng.integers(0, size, count) for size in images.shape[1:])
        changed[np.arange(count), *where] += step
        moved = max(moved, abs(run_integer(net, changed)["logits"] - expected).max())
    return 3 * moved


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_exact_arithmetic(name: str) -> None:
    net, size = quantised(name)
    images = images_of(size, count=6)
    file = to_qdq(net, size=size, metadata={})
    assert file.reference is not None
    expected = file.reference(images)
    np.testing.assert_array_equal(expected, run_integer(net, images)["logits"][:, :, 0, 0])
    session = RUNTIMES["onnxruntime"](file.data, threads=1, precision="int8", batch=None)
    assert abs(session.run(images) - expected).max() <= tolerance(net, images)
    fixed = RUNTIMES["onnxruntime"](file.data, threads=1, precision="int8", batch=2)
    assert abs(fixed.run(images[:2]) - expected[:2]).max() <= tolerance(net, images)


@pytest.mark.parametrize("name", ["v2", "v3 large"])
def test_openvino_answers_too_and_all_its_convolutions_are_of_integers(name: str) -> None:
    pytest.importorskip("openvino")
    net, size = quantised(name)
    net, images = seven_bits(net), images_of(size, count=6)
    data = to_qdq(net, size=size, metadata={}).data
    assert RUNTIMES["openvino"](data, threads=1, precision="int8", batch=1).precision == "int8"
    error = in_openvino(data)({"image": images})["logits"]
    error -= run_integer(net, images)["logits"][:, :, 0, 0]
    assert abs(error).max() <= tolerance(net, images)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_fuses_every_convolution_that_it_can(name: str, tmp_path: Path) -> None:
    """Those whose result is rounded as it is, or behind a ReLU; a residual is added, and a curve
    taken, in float32."""
    net, size = quantised(name)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3  # it warns of files optimised for one machine
    data = to_qdq(net, size=size, metadata={}).data
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)

    fusible = 0
    for index, step in enumerate(net.program.steps):
        for stage in stages(net.program, index):
            added = stage.name == "project" and isinstance(step, BlockStep) and step.residual
            curved = stage.activation in ("hard_swish", "hard_sigmoid")
            fusible += stage.target is not None and not added and not curved
    assert found["QLinearConv"] == fusible > 0


# ------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("name", ["v3 large", "1"])
def test_the_file_holds_the_networks_own_numbers(name: str) -> None:
    net, size = quantised(name)
    file = to_qdq(net, size=size, metadata={"labels": "tülip", "source": "x"})
    model = onnx.load_from_string(file.data)
    assert {prop.key: prop.value for prop in model.metadata_props} == {
        "labels": "tülip",
        "source": "x",
    }
    constants = {x.name: onnx.numpy_helper.to_array(x) for x in model.graph.initializer}

    def operands(node: "onnx.NodeProto") -> list[np.ndarray]:
        return [constants[name] for name in node.input if name in constants]

    nodes = model.graph.node
    ranges = [operands(node) for node in nodes if node.op_type == "QuantizeLinear"]
    assert [(scale, zero) for scale, zero in ranges] == [
        (net.ranges[place].scale, net.ranges[place].zero) for place in places(net.program)
    ]
    filters = iter(
        [node for node in nodes if node.op_type == "DequantizeLinear" and node.attribute]
    )
    weights = channels = 0
    for index in range(len(net.program.steps)):
        for stage in stages(net.program, index):
            filter, scale_in = net.filters[index][stage.name], net.ranges[stage.source].scale
            weight, scale, zeros = operands(next(filters))
            bias, bias_scale = operands(next(filters))
            assert (weight.dtype, bias.dtype, zeros.dtype) == (np.int8, np.int32, np.int8)
            np.testing.assert_array_equal(weight, filter.weight)
            np.testing.assert_array_equal(scale, filter.scale)
            np.testing.assert_array_equal(bias, filter.bias)
            np.testing.assert_array_equal(bias_scale, np.float32(filter.scale * scale_in))
            assert not zeros.any()
            weights, channels = weights + weight.size, channels + len(bias)
    assert next(filters, None) is None

    # nothing is there twice, and little else: of a channel two scales, a bias and a zero
    assert len(file.data) < weights + 13 * channels + 300 * len(nodes)
    assert not any(node.doc_string or node.metadata_props for node in nodes)
    assert str(Path(__file__).parent.parent).encode() not in file.data
    assert model.ir_version <= 10  # what onnxruntime 1.19 reads
    assert to_qdq(net, size=size, metadata={"labels": "tülip", "source": "x"}).data == file.data


def test_what_is_said_of_the_file() -> None:
    net, size = quantised("v3 small")
    file = to_qdq(net, size=size, metadata={})
    assert (file.format, file.file, file.precision) == ("onnx", "model.onnx", "int8")
    (opset,) = onnx.load_from_string(file.data).opset_import
    assert (opset.domain, file.details) == ("", {"opset": opset.version})
    session = onnxruntime.InferenceSession(file.data, providers=["CPUExecutionProvider"])
    for ends, said in ((session.get_inputs(), file.input), (session.get_outputs(), file.output)):
        assert [(end.name, end.shape, end.type) for end in ends] == [
            (said["name"], said["shape"], "tensor(float)")
        ]
    assert (file.input["shape"], file.output["shape"]) == (
        ["batch", 3, size, size],
        ["batch", 11],
    )


def test_without_onnx_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    net, size = quantised("0")
    module = importlib.import_module("mobilenet.export.qdq")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="onnx"):
        to_qdq(net, size=size, metadata={})

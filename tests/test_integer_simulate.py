"""The int8 arithmetic in torch, and in the native engine, against the reference: to the bit."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from mobilenet.checkpoint import save_model
from mobilenet.errors import ExportError, UsageError
from mobilenet.export.litert_int8 import litert_int8_bytes
from mobilenet.export.qdq import to_qdq
from mobilenet.flat import Card, EngineFile, read_engine, write_engine
from mobilenet.integer import LARGEST, Place, QuantisedProgram, Wide, places, run_integer
from mobilenet.integer.scheme import LARGEST_WIDE, wide_of
from mobilenet.integer.simulate import Simulation, round_through, simulate
from mobilenet.integer.store import encode_quantised, load_quantised
from mobilenet.models import MODELS
from mobilenet.program import ConvStep, Filter, Program, program_of
from mobilenet.quantize import observe_ranges, quantise
from mobilenet.quantize.calibrate import quantise_filter
from mobilenet.quantize.trace import run_float
from test_export_qdq import (
    NETWORKS,
    PROGRAMS,
    RANDOM_SIZE,
    images_of,
    in_onnxruntime,
    random_network,
    random_program,
    tolerance,
)

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTHS = pytest.mark.parametrize("wide", Wide, ids=lambda wide: wide.name.lower())
TEN_BITS = pytest.mark.parametrize("wide", [Wide.INSIDE, Wide.EVERYWHERE])


@cache
def network_of(name: str, *, wide: Wide) -> tuple[QuantisedProgram, int]:
    """A network of `PROGRAMS` in eight bits, ten where it is wide, and its image's size."""
    if name in NETWORKS:
        spec, size = NETWORKS[name]
        program = program_of(random_network(spec, size))
    else:
        program, size = random_program(int(name)), RANDOM_SIZE
    ranges = observe_ranges(program, [images_of(size, seed=0)], percentile=99.5)
    return quantise(program, ranges, wide=wide), size


@WIDTHS
@pytest.mark.parametrize("name", PROGRAMS)
def test_torch_computes_every_tensor_as_defined(name: str, wide: Wide) -> None:
    net, size = network_of(name, wide=wide)
    images = images_of(size, count=3)
    wanted: dict[Place, np.ndarray] = {}
    found: dict[Place, np.ndarray] = {}
    outputs = run_integer(net, images, observe=wanted.__setitem__)
    with torch.inference_mode():
        answers = Simulation.of(net)(
            torch.from_numpy(images), observe=lambda place, x: found.__setitem__(place, x.numpy())
        )
    assert set(wanted) == set(found) == set(places(net.program))
    for place, q in wanted.items():
        np.testing.assert_array_equal(found[place] + net.ranges[place].zero, q, str(place))
    batched = simulate(net, images, batch=2)
    for output, values in outputs.items():
        np.testing.assert_array_equal(answers[output].numpy(), values)
        np.testing.assert_array_equal(batched[output], values)


@TEN_BITS
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_native_engine_computes_ten_bits_as_defined(name: str, wide: Wide) -> None:
    native = pytest.importorskip("mobilenet._engine")
    net, size = network_of(name, wide=wide)
    images = images_of(size, count=2)
    data = write_engine(
        EngineFile(network=net, precision="int8", height=size, width=size, card=Card())
    )
    read = read_engine(data).network
    assert isinstance(read, QuantisedProgram)
    assert read.wide is wide
    wanted, reread = run_integer(net, images), run_integer(read, images[:1])
    for threads, isa in ((1, None), (2, None), (1, "scalar")):
        found = native.Engine(native.Model(data), 0, 0, threads, isa).run(images)
        for output, values in wanted.items():
            np.testing.assert_array_equal(found[output], values)
            np.testing.assert_array_equal(reread[output], values[:1])


@TEN_BITS
def test_ten_bits_are_where_they_are_said_to_be(wide: Wide) -> None:
    net, _ = network_of("v3 large", wide=wide)
    for place, affine in net.ranges.items():
        inside = place == Place.of(0) or place.name == "expanded"
        ten_bits = inside or wide is Wide.EVERYWHERE
        assert affine.largest == (LARGEST_WIDE if ten_bits else LARGEST)
    for index, filters in enumerate(net.filters):
        for name, filter in filters.items():
            ten_bits = index == 0 or name == "depthwise"
            assert filter.weight.dtype == (np.int16 if ten_bits else np.int8)
            assert np.abs(filter.weight).max() == (511 if ten_bits else 127) == filter.largest
    assert net.wide is wide
    assert network_of("v3 large", wide=Wide.NOWHERE)[0].wide is Wide.NOWHERE


def test_ten_bits_in_some_maps_alone_are_refused() -> None:
    net, _ = network_of("v2", wide=Wide.EVERYWHERE)
    eight = replace(net.ranges[Place.of(2)], zero=0, largest=LARGEST)
    with pytest.raises(ValueError, match="in some maps and not in others"):
        wide_of({**net.ranges, Place.of(2): eight})


def test_ten_bits_are_nearer_to_the_float_network() -> None:
    spec, size = NETWORKS["v2"]
    program = program_of(random_network(spec, size))
    images = images_of(size, count=4)
    ranges = observe_ranges(program, [images])
    wanted = run_float(program, images)["logits"]
    errors = [
        float(((simulate(quantise(program, ranges, wide=w), images)["logits"] - wanted) ** 2).sum())
        for w in Wide
    ]
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.5 * errors[1]


def test_filters_too_large_for_ten_bits_are_refused() -> None:
    large = Filter(weight=np.ones((2, 3, 7, 7), np.float32), bias=np.zeros(2, np.float32))
    program = Program(
        steps=(ConvStep(sources=(0,), project=large),),
        outputs=(("out", 1),),
    )
    ranges = {Place.of(0): (-1.0, 1.0)}
    quantise(program, ranges)
    with pytest.raises(UsageError, match="step 0, project: sums of 147 products of ten bits"):
        quantise(program, ranges, wide=Wide.INSIDE)


@TEN_BITS
def test_ten_bits_are_kept_in_a_run(wide: Wide, tmp_path) -> None:
    spec = replace(MODELS["mobilenet_v2"], width=0.35, classes=3)
    network = random_network(spec, 32)
    program = program_of(network)
    net = quantise(program, observe_ranges(program, [images_of(32)]), wide=wide)
    save_model(
        tmp_path,
        spec,
        network.state_dict(),
        preprocess={},
        labels=("a", "b", "c"),
        provenance={},
        quantised=encode_quantised(net),
    )
    found = load_quantised(tmp_path)
    assert found.ranges == net.ranges
    images = images_of(32)
    np.testing.assert_array_equal(
        run_integer(found, images)["logits"], run_integer(net, images)["logits"]
    )


@TEN_BITS
@pytest.mark.parametrize("name", ["v1", "v2", "v3 small", "v3 large"])
def test_ten_bits_in_onnx_are_float32_and_answer_alike(name: str, wide: Wide) -> None:
    net, size = network_of(name, wide=wide)
    images = images_of(size, count=4)
    found = in_onnxruntime(to_qdq(net, size=size, metadata={}).data)({"image": images})["logits"]
    wanted = run_integer(net, images)["logits"][:, :, 0, 0]
    assert np.abs(found - wanted).max() <= tolerance(net, images)


@pytest.mark.parametrize("name", ["v1", "v2", "v3 small"])
def test_four_bits_in_onnx_are_two_to_a_byte_and_answer_alike(name: str) -> None:
    spec, size = NETWORKS[name]
    program = program_of(random_network(spec, size))
    ranges = observe_ranges(program, [images_of(size)])
    eight, four = (quantise(program, ranges, four_bits=less) for less in (False, True))
    for index, filters in enumerate(four.filters):
        for filter_name, filter in filters.items():
            few = filter_name != "depthwise" and index > 0
            assert filter.largest == (7 if few else 127)
    images = images_of(size, count=4)
    files = [to_qdq(net, size=size, metadata={}).data for net in (eight, four)]
    weights = sum(f.weight.size for filters in four.filters for f in filters.values())
    assert len(files[1]) < len(files[0]) - 0.4 * weights
    found = in_onnxruntime(files[1])({"image": images})["logits"]
    wanted = run_integer(four, images)["logits"][:, :, 0, 0]
    assert np.abs(found - wanted).max() <= tolerance(four, images)
    native = pytest.importorskip("mobilenet._engine")
    data = write_engine(
        EngineFile(network=four, precision="int8", height=size, width=size, card=Card())
    )
    answers = native.Engine(native.Model(data), 0, 0, 1, None).run(images)["logits"]
    np.testing.assert_array_equal(answers[:, :, 0, 0], wanted)


def test_four_bits_are_clipped_where_that_is_nearer() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 64, 1, 1)).astype(np.float32)
    filter = Filter(weight=weight, bias=np.zeros(8, np.float32))
    found = quantise_filter(filter, 1.0, 7)
    plain = np.abs(weight).max((1, 2, 3), keepdims=True) / 7
    nearest = np.rint(weight / plain) * plain
    error = ((found.real(1.0).weight - weight) ** 2).sum((1, 2, 3))
    assert (error <= ((nearest - weight) ** 2).sum((1, 2, 3)) + 1e-6).all()
    assert error.sum() < 0.9 * ((nearest - weight) ** 2).sum()


def test_ten_bits_are_not_to_be_had_in_litert() -> None:
    net, size = network_of("v2", wide=Wide.INSIDE)
    with pytest.raises(ExportError, match="--portable"):
        litert_int8_bytes(net, size=size, extra={}, metadata={})


def test_gradients_pass_roundings_and_stop_where_values_are_clipped() -> None:
    x = torch.tensor([-2.5, -0.4, 0.5, 1.5, 300.0], requires_grad=True)
    y = round_through(x.clamp(-1, 255))
    np.testing.assert_array_equal(y.detach().numpy(), [-1, 0, 0, 2, 255])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 1, 1, 0])


def test_sums_beyond_float32_are_exact() -> None:
    """Of 2,000 products of the largest numbers, which float32 adds up wrongly."""
    rng = np.random.default_rng(0)
    inputs = 2000
    weight = rng.integers(100, 128, (4, inputs, 1, 1)) / 127
    first = Filter(
        weight=np.full((inputs, 3, 1, 1), 1.0, np.float32), bias=np.zeros(inputs, np.float32)
    )
    last = Filter(weight=weight.astype(np.float32), bias=np.zeros(4, np.float32))
    program = Program(
        steps=(ConvStep(sources=(0,), project=first), ConvStep(sources=(1,), project=last)),
        outputs=(("out", 2),),
    )
    net = quantise(program, {Place.of(0): (0.0, 1.0), Place.of(1): (0.0, 3.0)})
    images = rng.uniform(0.9, 1, (2, 3, 3, 3)).astype(np.float32)
    q: dict[Place, np.ndarray] = {}
    wanted = run_integer(net, images, observe=q.__setitem__)["out"]
    assert (q[Place.of(1)].astype(np.int64).sum(1) * 100).min() > 2**24
    np.testing.assert_array_equal(simulate(net, images)["out"], wanted)

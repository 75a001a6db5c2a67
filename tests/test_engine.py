"""The native engine against torch in float32 and against the integer reference in int8."""

import copy
import gc
import threading

import numpy as np
import pytest
import torch

from mobilenet.export.engine import rounded
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.integer import QuantisedProgram, run_integer
from mobilenet.models import MODELS, ModelSpec
from mobilenet.networks import random_network
from mobilenet.program import Builder, Filter, Program, evaluate_float, program_of
from mobilenet.quantize import quantise_program

engine = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")

# of random images, for the batch norms: at 32 pixels the last maps have one pixel, whose variance
# over a few images makes a network that amplifies every rounding, torch's too, beyond 1e-5
STATISTICS_SIZE = 96
MODEL_NAMES = sorted(MODELS)
ISAS = engine.isas()
FLOAT32 = 1e-5  # of the largest number of the output
BFLOAT16 = 2e-5  # the same network with the same rounded weights, where activations stay float32


def file_of(program: Program | QuantisedProgram, precision: str, size: tuple[int, int]) -> bytes:
    return write_engine(
        EngineFile(network=program, precision=precision, height=size[0], width=size[1], card=Card())
    )


def images(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, *size), np.float32)


def run(data: bytes, x: np.ndarray, **options: object) -> dict[str, np.ndarray]:
    planned = engine.Engine(engine.Model(data), height=x.shape[2], width=x.shape[3], **options)
    return planned.run(np.ascontiguousarray(x))


def assert_close(found: np.ndarray, expected: np.ndarray, bound: float) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


def assert_float(program: Program, x: np.ndarray, **options: object) -> None:
    found = run(file_of(program, "float32", x.shape[2:]), x, **options)
    expected = evaluate_float(program, x)
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name], FLOAT32)


def assert_integer(program: Program, x: np.ndarray, **options: object) -> None:
    quantised = quantise_program(program, iter([images(4, x.shape[2:], seed=1)]))
    found = run(file_of(quantised, "int8", x.shape[2:]), x, **options)
    expected = run_integer(quantised, x)
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def spec(name: str, **changes: object) -> ModelSpec:
    return ModelSpec(**{**MODELS[name].to_dict(), "classes": 37, **changes})


# width, size, padding, output stride: ragged channels, maps that shrink to one pixel, dilation
VARIANTS = [
    (0.35, (64, 64), "torch", 32),
    (0.75, (97, 65), "same", 32),
    (1.0, (50, 83), "torch", 16),
    (0.5, (33, 40), "same", 8),
    (1.4, (32, 32), "torch", 32),
]


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
class TestNetworks:
    @pytest.fixture
    def case(self, name: str, variant: tuple) -> tuple[torch.nn.Module, np.ndarray]:
        width, size, padding, stride = variant
        network = random_network(
            spec(name, width=width, padding=padding, output_stride=stride), STATISTICS_SIZE
        )
        return network, images(2, size)

    def test_float32_is_what_torch_computes_in_float64(self, case: tuple) -> None:
        network, x = case
        with torch.inference_mode():
            expected = copy.deepcopy(network).double()(torch.from_numpy(x).double()).numpy()
        found = run(file_of(program_of(network), "float32", x.shape[2:]), x)["logits"]
        assert_close(found[:, :, 0, 0], expected, FLOAT32)

    def test_int8_is_the_references_to_the_bit(self, case: tuple) -> None:
        network, x = case
        assert_integer(program_of(network), x)

    def test_several_threads_answer_as_one(self, case: tuple) -> None:
        network, x = case
        assert_integer(program_of(network), x[:1], threads=3)


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"])
def test_float32_is_eager_torchs_at_224(name: str) -> None:
    network = random_network(MODELS[name], 224)
    x = images(1, (224, 224))
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    found = run(file_of(program_of(network), "float32", (224, 224)), x)["logits"]
    assert_close(found[:, :, 0, 0], expected, FLOAT32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"])
class TestBlocksThatFeedEachOther:
    """Images so large that the first blocks hand their rows on; of two the ring starts anew."""

    @pytest.fixture
    def program(self, name: str) -> Program:
        return program_of(random_network(spec(name, width=0.35), STATISTICS_SIZE))

    def test_int8(self, program: Program, isa: str) -> None:
        assert_integer(program, images(2, (150, 121)), isa=isa)

    def test_int8_on_several_threads(self, program: Program, isa: str) -> None:
        assert_integer(program, images(1, (150, 121)), isa=isa, threads=3)

    def test_float32(self, program: Program, isa: str) -> None:
        assert_float(program, images(1, (121, 150)), isa=isa, threads=2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
class TestInstructionSets:
    """Every set that this machine runs, the plain one among them."""

    @pytest.fixture
    def program(self, name: str) -> Program:
        return program_of(random_network(spec(name, width=0.5), 64))

    def test_float32(self, program: Program, isa: str) -> None:
        assert_float(program, images(1, (64, 64)), isa=isa)

    def test_int8(self, program: Program, isa: str) -> None:
        assert_integer(program, images(1, (64, 64)), isa=isa)

    def test_bfloat16(self, program: Program, isa: str) -> None:
        x = images(1, (64, 64))
        found = run(file_of(program, "bfloat16", (64, 64)), x, isa=isa)["logits"]
        expected = evaluate_float(rounded(program), x)["logits"]
        # with tiles for bfloat16 the activations are rounded too, layer by layer
        assert_close(found, expected, 0.05 if isa == "amx" else BFLOAT16)


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_taps_are_the_backbones_features(name: str) -> None:
    network = random_network(spec(name, width=0.5), STATISTICS_SIZE)
    names = list(network.backbone.taps)
    x = images(1, (80, 96))
    backbone, given = network.backbone, torch.from_numpy(x)
    with torch.inference_mode():
        rounded_features = backbone.features(given, names)
        features = copy.deepcopy(backbone).double().features(given.double(), names)
    program = program_of(network, taps=names)
    found = run(file_of(program, "float32", (80, 96)), x)
    for tap in names:
        expected = features[tap].numpy()
        # inner maps of random networks amplify rounding: torch's own float32 is this far off
        torchs = np.abs(rounded_features[tap].numpy() - expected).max() / np.abs(expected).max()
        assert_close(found[tap], expected, FLOAT32 + torchs)
    assert_integer(program, x)


@pytest.mark.parametrize("name", MODEL_NAMES)
@pytest.mark.parametrize("isa", ISAS)
def test_taps_in_int8(name: str, isa: str) -> None:
    """Up to each tap in turn: what no later step reads stays float32."""
    network = random_network(spec(name, width=0.5), STATISTICS_SIZE)
    for tap in network.backbone.taps:
        assert_integer(program_of(network, taps=[tap]), images(1, (64, 48)), isa=isa)


def head_program(gate_activation: str) -> Program:
    """A backbone with a dense convolution, a gate, a resize, additions, a concatenation, a strided
    separable convolution and an average pool behind it: what heads are made of. 40 and 72 channels
    fill no last block of a map, of 16, 32 or 64."""
    network = random_network(spec("mobilenet_v3_small", width=0.5), STATISTICS_SIZE)
    base = program_of(network, taps=["c3", "last"])
    values, channels = dict(base.outputs), {n: t.channels for n, t in network.backbone.taps.items()}
    generator = np.random.default_rng(3)

    def filter_of(outputs: int, inputs: int, kernel: int = 1) -> Filter:
        weight = generator.standard_normal((outputs, inputs, kernel, kernel), np.float32)
        bias = generator.standard_normal(outputs, np.float32) / 4
        return Filter(weight=weight / np.float32(np.sqrt(inputs) * kernel), bias=bias)

    build = Builder(steps=list(base.steps))
    last, low = values["last"], values["c3"]
    dense = build.conv(last, filter_of(40, channels["last"], 3), activation="relu")
    gate = build.conv(build.pool(last), filter_of(40, channels["last"]), activation=gate_activation)
    large = build.resize(build.multiply(dense, gate), like=low)
    side = build.conv(low, filter_of(40, channels["c3"]), activation="relu6")
    both = build.add(large, side, activation="relu")
    joined = build.concat(build.conv(low, filter_of(32, channels["c3"])), both)
    boxes = build.block(
        joined,
        depthwise=filter_of(72, 1, 3),
        project=filter_of(20, 72),
        stride=2,
        activation="relu6",
        out_activation="relu",
    )
    strided = build.conv(both, filter_of(9, 40, 3), stride=2, padding="same")
    return build.program(
        {
            "boxes": build.conv(boxes, filter_of(12, 20)),
            "strided": strided,
            "pooled": build.average_pool(both, kernel=3, stride=2),
            "low": low,
        }
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_heads_float32(threads: int) -> None:
    assert_float(head_program("sigmoid"), images(2, (96, 70)), threads=threads)


@pytest.mark.parametrize("isa", ISAS)
def test_heads_int8(isa: str) -> None:
    assert_integer(head_program("hard_sigmoid"), images(2, (96, 70)), isa=isa)


@pytest.mark.parametrize("isa", ISAS)
def test_heads_bfloat16(isa: str) -> None:
    program, x = head_program("sigmoid"), images(2, (96, 70))
    found = run(file_of(program, "bfloat16", (96, 70)), x, isa=isa)
    for name, expected in evaluate_float(rounded(program), x).items():
        assert_close(found[name], expected, 0.05 if isa == "amx" else BFLOAT16)


def test_calls_from_several_threads_and_engines_at_once() -> None:
    program = program_of(random_network(spec("mobilenet_v3_small"), 96))
    model = engine.Model(file_of(program, "float32", (96, 96)))
    engines = [engine.Engine(model, threads=2), engine.Engine(model), engine.Engine(model)]
    x = images(6, (96, 96))
    expected = evaluate_float(program, x)["logits"]
    found: dict[int, np.ndarray] = {}

    def work(index: int) -> None:
        for _ in range(5):
            found[index] = engines[index % len(engines)].run(x[index : index + 1])["logits"]

    workers = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for index in range(6):
        assert_close(found[index], expected[index : index + 1], FLOAT32)


def test_a_model_outlives_the_name_it_was_given() -> None:
    program = program_of(random_network(spec("mobilenet_v2", width=0.35), 32))
    planned = engine.Engine(engine.Model(file_of(program, "float32", (32, 32))))
    gc.collect()
    x = images(1, (32, 32))
    assert_close(planned.run(x)["logits"], evaluate_float(program, x)["logits"], FLOAT32)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": -1}, "threads"),
        ({"threads": 100000}, "threads"),
        ({"height": -1}, "height"),
        ({"height": 1 << 20}, "1048576"),
        ({"isa": "avx9"}, "expected one of"),
    ],
)
def test_impossible_options_are_refused(options: dict, said: str) -> None:
    program = program_of(random_network(spec("mobilenet_v2", width=0.35), 32))
    model = engine.Model(file_of(program, "float32", (32, 32)))
    with pytest.raises(engine.EngineError, match=said):
        engine.Engine(model, **options)


def test_the_arena_keeps_to_the_papers_bound() -> None:
    """V2 paper, section 5.1: with a block as one operation 602,112 numbers are alive at once, layer
    by layer 1,505,280. The rows of the ring are floats in int8 too."""
    program = program_of(random_network(MODELS["mobilenet_v2"], 224))
    planned = engine.Engine(engine.Model(file_of(program, "float32", (224, 224))))
    assert planned.arena_bytes < 1_505_280 * 4 / 8
    quantised = quantise_program(program, iter([images(1, (224, 224))]))
    planned = engine.Engine(engine.Model(file_of(quantised, "int8", (224, 224))))
    assert planned.arena_bytes < 602_112

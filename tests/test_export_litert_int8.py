"""The int8 .tflite file: what it holds, and how near LiteRT comes to the exact arithmetic."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest

from mobilenet.errors import ExportError, MissingDependency, UsageError
from mobilenet.integer import Affine, IntegerFilter, Place, QuantisedProgram, run_integer, stages
from mobilenet.integer.reference import _Run, _Tensor
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.program import (
    Activation,
    BlockStep,
    Builder,
    ConcatStep,
    Filter,
    Program,
    Step,
    program_of,
)
from mobilenet.quantize import quantise_program
from mobilenet.quantize.trace import run_float
from mobilenet.runtime.sessions import open_litert
from test_quantize import random_filter, random_program

interpreter = pytest.importorskip("ai_edge_litert.interpreter")
schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
litert_int8 = importlib.import_module("mobilenet.export.litert_int8")
litert_ranges, to_litert_int8 = litert_int8.litert_ranges, litert_int8.to_litert_int8

KERNELS = {
    "xnnpack": interpreter.OpResolverType.AUTO,
    "builtin": interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def file_of(net: QuantisedProgram, extra: Mapping[Place, Affine], size: int) -> bytes:
    return litert_int8.litert_int8_bytes(net, size=size, extra=extra, metadata={})


def run_file(data: bytes, images: np.ndarray, kernels: str = "xnnpack") -> dict[str, np.ndarray]:
    """The outputs (N, C, H, W) by name."""
    opened = interpreter.Interpreter(
        model_content=data, num_threads=1, experimental_op_resolver_type=KERNELS[kernels]
    )
    run = opened.get_signature_runner()
    found = [run(image=image.transpose(1, 2, 0)[None]) for image in images]
    joined = {name: np.concatenate([outputs[name] for outputs in found]) for name in found[0]}
    return {
        name: y[:, :, None, None] if y.ndim == 2 else y.transpose(0, 3, 1, 2)
        for name, y in joined.items()
    }


def calibrated(
    program: Program, images: np.ndarray
) -> tuple[QuantisedProgram, dict[Place, Affine]]:
    return quantise_program(program, [images]), litert_ranges(program, [images])


# ------------------------------------------------------------------- step by step


def step_errors(
    net: QuantisedProgram, extra: Mapping[Place, Affine], images: np.ndarray, kernels: str
) -> Iterator[tuple[Step, np.ndarray]]:
    """Every step with the errors of what it writes, in steps of the tensor's scale, beside the
    exact arithmetic on the very tensors that the file's step read."""
    program = net.program
    values = tuple((f"value {value + 1}", value + 1) for value in range(len(program.steps)))
    shown = replace(net, program=replace(program, outputs=values))
    found = run_file(file_of(shown, extra, images.shape[2]), images, kernels)
    run = _Run(net, None)
    run.write(Place.of(0), images * np.float32(1 / net.ranges[Place.of(0)].scale))
    for name, value in values:
        if affine := net.ranges.get(Place.of(value)):
            q = np.rint(found[name] / affine.scale + affine.zero).astype(np.uint8)
            run.tensors[Place.of(value)] = _Tensor(q, affine)
    for index, step in enumerate(program.steps):
        place = Place.of(index + 1)
        written = run.tensors.pop(place, None)
        run.step(index)
        if written is None:
            affine = extra[place]
            exact = np.clip(run.floats[place] / affine.scale, -affine.zero, 255 - affine.zero)
            yield step, found[f"value {index + 1}"] / affine.scale - exact
            continue
        yield step, written.q.astype(int) - run.tensors[place].q.astype(int)
        run.tensors[place] = written


def roundings(step: Step, *, output: bool) -> int:
    """How often the file rounds, or as good as rounds, what the exact arithmetic does not."""
    found = int(output)  # the outputs that stay float32 there
    curve = 2  # hard-swish: its argument, and its hard sigmoid
    if isinstance(step, BlockStep):
        inside = 1 + (step.expand is not None)
        found += curve * inside * (step.activation == "hard_swish")
        found += (step.reduce is not None) + step.residual
        found += curve * (step.out_activation == "hard_swish")
    else:
        found += curve * (getattr(step, "activation", "none") == "hard_swish")
        found += type(step).__name__ == "ResizeStep"
    return found


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("seed", range(6))
def test_every_kind_of_step_is_near_the_exact_one(seed: int, kernels: str) -> None:
    program = random_program(seed)
    images = np.random.default_rng(seed).normal(size=(4, 3, 13, 13)).astype(np.float32)
    net, extra = calibrated(program, images)
    for index, (step, errors) in enumerate(step_errors(net, extra, images, kernels)):
        more = roundings(step, output=Place.of(index + 1) not in net.ranges)
        assert abs(errors).max() <= 1 + more / 2, (index, step)
        assert abs(errors).mean() < 0.5, (index, step)
        if kernels == "xnnpack" and not more and not isinstance(step, ConcatStep):
            # the very arithmetic, but for the last bit of a multiplier
            assert (errors != 0).mean() < 0.005, (index, step)


def one_convolution(activation: Activation, bias: float = 0) -> Program:
    """The image's red, as it is, behind an activation."""
    weight = np.array([[1, 0, 0]], np.float32).reshape(1, 3, 1, 1)
    builder = Builder()
    filter = Filter(weight=weight, bias=np.array([bias], np.float32))
    curved = builder.conv(0, filter, activation=activation)
    same = Filter(weight=np.ones((1, 1, 1, 1), np.float32), bias=np.zeros(1, np.float32))
    return builder.program({"curved": curved, "logits": builder.conv(curved, same)})


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("reach", [1, 5, 12])
@pytest.mark.parametrize("activation", ["hard_swish", "hard_sigmoid"])
def test_curves_over_all_of_their_range(activation: Activation, reach: int, kernels: str) -> None:
    program = one_convolution(activation)
    images = np.zeros((1, 3, 32, 32), np.float32)
    images[0, 0] = np.linspace(-reach, reach, 1024).reshape(32, 32)
    net, extra = calibrated(program, images)
    found = run_file(file_of(net, extra, 32), images, kernels)["curved"]
    expected = run_integer(net, images)["curved"]
    error = abs(found - expected).max() / net.ranges[Place.of(1)].scale
    # hard-swish rises by up to 1.5, and its argument has the coarser steps
    assert error <= (1.01 if activation == "hard_sigmoid" else 3.01)
    if activation == "hard_swish":
        assert abs(found[images[:, :1] < -3.1]).max(initial=0) == 0


# ------------------------------------------------------------------- whole networks


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(
    ("name", "cosine", "agreement"),
    [
        ("mobilenet_v1", 0.94, 0.6),
        ("mobilenet_v2", 0.88, 0.4),
        ("mobilenet_v3_large", 0.88, 0.4),
        ("mobilenet_v3_small", 0.95, 0.5),
        ("mobilenet_v3_large_minimalistic", 0.9, 0.4),
        ("mobilenet_v3_small_minimalistic", 0.98, 0.6),
    ],
)
def test_whole_networks(name: str, cosine: float, agreement: float, kernels: str) -> None:
    program = program_of(random_network(replace(MODELS[name], width=0.5, classes=50), 64))
    images = np.random.default_rng(0).standard_normal((24, 3, 64, 64), np.float32)
    net, extra = calibrated(program, images)
    for index, (step, errors) in enumerate(step_errors(net, extra, images[:3], kernels)):
        more = roundings(step, output=index == len(program.steps) - 1)
        # where the exact network strays from the float one that was measured, a tensor of the
        # file's own is cut off: rarely
        assert np.percentile(abs(errors), 99.8) <= 1 + more / 2, (index, step)
        assert abs(errors).mean() < 0.8, (index, step)

    made = to_litert_int8(net, size=64, extra=extra, metadata={})
    found = run_file(made.data, images, kernels)["logits"][:, :, 0, 0]
    assert made.reference is not None
    expected = made.reference(images)
    affine = extra[Place.of(len(program.steps))]
    if name == "mobilenet_v1" and kernels == "xnnpack":  # no residual, no curve: the same sums
        low, high = -affine.zero * affine.scale, (255 - affine.zero) * affine.scale
        exact = np.clip(expected, low, high)
        assert abs(found - exact).max() < 0.51 * affine.scale
    # a difference of one step grows through a random network, as it does not through a trained
    # one, whose classes lie further apart
    assert cosine_of(found, expected) > cosine
    assert (found.argmax(1) == expected.argmax(1)).mean() > agreement
    # and the file is as near to the float network as the exact arithmetic is
    real = run_float(program, images)["logits"][:, :, 0, 0]
    assert cosine_of(found, real) > cosine_of(expected, real) - 0.04


def cosine_of(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


# ------------------------------------------------------------------- what the file holds


@pytest.fixture(scope="module")
def small() -> tuple[QuantisedProgram, dict[Place, Affine]]:
    spec = replace(MODELS["mobilenet_v3_small"], width=0.35, classes=7)
    program = program_of(random_network(spec, 48))
    images = np.random.default_rng(0).standard_normal((4, 3, 48, 48), np.float32)
    return calibrated(program, images)


def test_the_file_holds_our_whole_numbers(
    small: tuple[QuantisedProgram, dict[Place, Affine]],
) -> None:
    net, extra = small
    made = to_litert_int8(net, size=48, extra=extra, metadata={"labels": "tülip"})
    assert made.data[4:8] == b"TFL3"
    model = schema.ModelT.InitFromPackedBuf(made.data)
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    tensors = {tensor.name.decode(): tensor for tensor in graph.tensors}
    assert len(tensors) == len(graph.tensors)

    def whole(name: str, dtype: str) -> np.ndarray:
        tensor = tensors[name]
        data = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
        return data.view(dtype).reshape(tensor.shape)

    def check(stage_filter: IntegerFilter, name: str, source: Affine, *, depthwise: bool) -> None:
        weight = whole(f"{name} weight", "i1")
        back = weight.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        np.testing.assert_array_equal(back, stage_filter.weight)
        np.testing.assert_array_equal(whole(f"{name} bias", "<i4"), stage_filter.bias)
        quantised = tensors[f"{name} weight"].quantization
        assert quantised.quantizedDimension == (3 if depthwise else 0)
        np.testing.assert_array_equal(quantised.scale, stage_filter.scale.astype(np.float32))
        assert not np.any(quantised.zeroPoint)
        units = (source.scale * stage_filter.scale).astype(np.float32)
        np.testing.assert_array_equal(tensors[f"{name} bias"].quantization.scale, units)

    checked = 0
    for index in range(len(net.program.steps)):
        for stage in stages(net.program, index):
            if stage.activation == "hard_sigmoid":
                continue
            step = net.program.steps[index]
            target = stage.target or Place.of(index + 1)
            name = f"{target.step} {target.name}"
            if stage.name == "project" and isinstance(step, BlockStep) and step.residual:
                name = f"{index} projected"
            if stage.activation == "hard_swish":
                name += " before hard-swish"
            source = net.ranges[stage.source]
            check(net.filters[index][stage.name], name, source, depthwise=stage.name == "depthwise")
            checked += 1
    assert checked == sum(map(len, net.filters)) - 9  # the nine gates of V3-Small
    for place, affine in {**net.ranges, **extra}.items():
        name = f"{place.step} {place.name}" if place.step >= 0 else "image quantised"
        (scale,), (zero,) = tensors[name].quantization.scale, tensors[name].quantization.zeroPoint
        assert (float(scale), zero) == (affine.scale, affine.zero - 128)

    assert [tensors["image"].shape.tolist(), tensors["logits"].shape.tolist()] == [
        [1, 48, 48, 3],
        [1, 7],
    ]
    assert (made.input["shape"], made.output["shape"]) == ([1, 48, 48, 3], [1, 7])
    assert [(t.name, t.tensorIndex) for t in signature.inputs] == [(b"image", graph.inputs[0])]
    assert [(t.name, t.tensorIndex) for t in signature.outputs] == [(b"logits", graph.outputs[0])]
    (entry,) = model.metadata
    assert bytes(model.buffers[entry.buffer].data).decode() == "tülip"
    again = to_litert_int8(net, size=48, extra=extra, metadata={"labels": "tülip"})
    assert again.data == made.data


def test_every_buffer_is_aligned(small: tuple[QuantisedProgram, dict[Place, Affine]]) -> None:
    net, extra = small
    data = to_litert_int8(net, size=48, extra=extra, metadata={}).data
    model = schema.Model.GetRootAs(data)
    seen = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if not buffer.DataIsNone():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0
            seen += 1
    assert seen > 100


def test_a_runtime_takes_any_batch(small: tuple[QuantisedProgram, dict[Place, Affine]]) -> None:
    net, extra = small
    made = to_litert_int8(net, size=48, extra=extra, metadata={})
    session = open_litert(made.data, threads=1, precision="int8", batch=None)
    images = np.random.default_rng(1).standard_normal((3, 3, 48, 48), np.float32)
    found = session.run(session.laid_out(images))
    np.testing.assert_array_equal(found, run_file(made.data, images)["logits"][:, :, 0, 0])


# ------------------------------------------------------------------- ranges, and refusals


def test_ranges_of_the_file_are_those_that_are_seen() -> None:
    rng = np.random.default_rng(0)
    builder = Builder()
    stem = builder.conv(0, random_filter(rng, 16, 3, 3))
    project = random_filter(rng, 16, 16)
    depthwise = Filter(weight=np.ones((16, 1, 1, 1), np.float32), bias=np.zeros(16, np.float32))
    block = builder.block(
        stem, depthwise=depthwise, project=project, activation="none", residual=True
    )
    program = builder.program({"out": block})
    batches = [rng.normal(size=(2, 3, 8, 8)).astype(np.float32) * scale for scale in (1, 3)]
    found = litert_ranges(program, batches)
    assert set(found) == {Place(1, "projected"), Place(1, "out")}
    shown: dict[Place, np.ndarray] = {}
    images = np.concatenate(batches)
    run_float(program, images, observe=lambda place, x: shown.update({place: x.numpy()}))
    x = shown[Place(1, "depthwise")].astype(np.float64)
    projected = np.einsum("oi,nihw->nohw", project.weight[:, :, 0, 0], x)
    projected += project.bias[:, None, None]
    for place, y in ((Place(1, "projected"), projected), (Place(1, "out"), shown[Place(1, "out")])):
        affine = found[place]
        assert affine.scale * -affine.zero == pytest.approx(y.min(), abs=affine.scale)
        assert affine.scale * (255 - affine.zero) == pytest.approx(y.max(), abs=affine.scale)


def test_a_hard_sigmoid_of_next_to_no_weights_fits_its_biases() -> None:
    """3 is more than 2^31 steps of a channel whose scale is tiny: its steps become coarser."""
    filter = IntegerFilter(
        weight=np.array([100, 100], np.int8).reshape(2, 1, 1, 1),
        scale=np.array([1e-3, 1e-9]),
        bias=np.array([-500, 2**29], np.int32),
    )
    made = litert_int8._with_hard_sigmoid(filter, 0.5)
    np.testing.assert_array_equal(made.weight[0], filter.weight[0])
    q = np.array([0, 100, 255])
    for channel in range(2):
        before = (100 * q + filter.bias[channel]) * 0.5 * filter.scale[channel]
        sums = int(made.weight[channel, 0, 0, 0]) * q + int(made.bias[channel])
        np.testing.assert_allclose(sums * 0.5 * made.scale[channel], (before + 3) / 6, atol=1e-4)


def test_what_cannot_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    program = one_convolution("hard_sigmoid")
    images = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
    net, extra = calibrated(program, images)
    wide = {**net.ranges, Place.of(1): Affine(scale=0.125, zero=3)}
    with pytest.raises(ExportError, match="no range of a hard sigmoid"):
        file_of(replace(net, ranges=wide), extra, 8)
    with pytest.raises(UsageError, match=r"step=1, name='out'.*litert_ranges"):
        file_of(net, {}, 8)
    with pytest.raises(UsageError, match="no pictures"):
        litert_ranges(program, [])
    unnamed = replace(program, outputs=(("other", 2),))
    with pytest.raises(ExportError, match=r"\['other'\].*'logits'"):
        to_litert_int8(replace(net, program=unnamed), size=8, extra=extra, metadata={})
    monkeypatch.setattr(litert_int8, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="mobilenet\\[litert\\]"):
        to_litert_int8(net, size=8, extra=extra, metadata={})

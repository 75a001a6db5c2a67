"""The exact int8 arithmetic against plain loops and numbers worked out by hand; calibration."""

from dataclasses import replace

import numpy as np
import pytest

import direct
from mobilenet.data import open_dataset
from mobilenet.errors import UsageError
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
from mobilenet.preprocess import torchvision
from mobilenet.program import (
    Activation,
    AddStep,
    BlockStep,
    Builder,
    ConvStep,
    Filter,
    PoolStep,
    Program,
    evaluate_float,
    program_of,
)
from mobilenet.quantize import observe_ranges, quantise, quantise_program
from mobilenet.quantize.calibrate import affine_of, quantise_filter
from mobilenet.quantize.pictures import calibration_batches, evenly
from mobilenet.quantize.trace import run_float

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------- worked out by hand


def whole(weight: object, *, scale: float = 1.0, bias: object = 0) -> IntegerFilter:
    """A 1x1 filter (O, I), or (O, I, k, k), in whole numbers."""
    weight = np.array(weight, np.int8)
    weight = weight.reshape(*weight.shape, 1, 1) if weight.ndim == 2 else weight
    outputs = len(weight)
    return IntegerFilter(
        weight=weight,
        scale=np.full(outputs, scale),
        bias=np.broadcast_to(np.array(bias, np.int32), (outputs,)),
    )


def floats(filter: IntegerFilter) -> Filter:
    """Any float filter of that shape: the reference reads none of its numbers."""
    return Filter(
        weight=np.zeros(filter.weight.shape, np.float32),
        bias=np.zeros(len(filter.weight), np.float32),
    )


def image_of(*red: float) -> np.ndarray:
    """A row of pixels whose first channel is given."""
    image = np.zeros((1, 3, 1, len(red)), np.float32)
    image[0, 0, 0] = red
    return image


def two_convolutions(
    first: IntegerFilter,
    ranges: dict[int, Affine],
    activation: Activation = "none",
) -> QuantisedProgram:
    """`first` on the image, then the identity times the scale, so that q comes out."""
    second = whole(np.eye(len(first.weight), dtype=np.int8))
    program = Program(
        steps=(
            ConvStep(sources=(0,), project=floats(first), activation=activation),
            ConvStep(sources=(1,), project=floats(second)),
        ),
        outputs=(("out", 2), ("q", 1)),
    )
    return QuantisedProgram(
        program=program,
        filters=({"project": first}, {"project": second}),
        ranges={Place.of(value): affine for value, affine in ranges.items()},
    )


UNIT = Affine(scale=1.0, zero=0)
RED = [[1, 0, 0]]


def test_halves_are_rounded_to_even_and_the_rest_to_the_nearest() -> None:
    net = two_convolutions(whole(RED), {0: UNIT, 1: Affine(scale=2.0, zero=0)})
    # 2.5 -> 2 on the way in; in units of two 1 -> 0.5 -> 0, 3 -> 1.5 -> 2, 5 -> 2.5 -> 2
    found = run_integer(net, image_of(2.5, 1, 3, 5, 7, 6.4))
    np.testing.assert_array_equal(found["q"][0, 0, 0], [2, 0, 4, 4, 8, 6])
    np.testing.assert_array_equal(found["out"][0, 0, 0], [2, 0, 4, 4, 8, 6])


def test_values_saturate_at_both_ends_and_at_the_activations() -> None:
    shifted = Affine(scale=1.0, zero=100)
    x = image_of(-300, -100, -3, 0, 2, 9, 155, 1000)

    def q(activation: Activation, out: Affine, bias: int = 0) -> list[float]:
        net = two_convolutions(whole(RED, bias=bias), {0: shifted, 1: out}, activation)
        return run_integer(net, x)["q"][0, 0, 0].tolist()

    assert q("none", shifted) == [-100, -100, -3, 0, 2, 9, 155, 155]
    assert q("none", shifted, bias=-50) == [-100, -100, -53, -50, -48, -41, 105, 105]
    assert q("none", UNIT, bias=150) == [50, 50, 147, 150, 152, 159, 255, 255]
    assert q("relu", shifted) == [0, 0, 0, 0, 2, 9, 155, 155]
    assert q("relu6", shifted) == [0, 0, 0, 0, 2, 6, 6, 6]
    # 6 is 1.5 steps of 4, which is 2 by the rule of even: 8
    assert q("relu6", Affine(scale=4.0, zero=0)) == [0, 0, 0, 0, 0, 8, 8, 8]


def test_hard_swish_and_hard_sigmoid_by_hand() -> None:
    x = image_of(-4, -1.5, 0, 1, 2, 8)
    fine = Affine(scale=0.5, zero=128)
    out = Affine(scale=0.0625, zero=6)
    net = two_convolutions(whole(RED), {0: fine, 1: out}, "hard_swish")
    # x * clip(x + 3, 0, 6) / 6 = 0, -0.375, 0, 2/3, 5/3, 8 in sixteenths
    found = run_integer(net, x)["q"][0, 0, 0] * 16
    np.testing.assert_array_equal(found, [0, -6, 0, 11, 27, 128])
    net = two_convolutions(whole(RED), {0: fine, 1: out}, "hard_sigmoid")
    found = run_integer(net, x)["q"][0, 0, 0] * 16
    np.testing.assert_array_equal(found, [0, 4, 8, 11, 13, 16])  # 0, 1/4, 1/2, 2/3, 5/6, 1


def test_a_padded_pixel_adds_nothing_whatever_the_zero() -> None:
    ones = whole(np.ones((1, 3, 3, 3), np.int8))
    net = two_convolutions(ones, {0: Affine(scale=1.0, zero=200), 1: UNIT})
    found = run_integer(net, np.full((1, 3, 2, 3), 2, np.float32))["q"][0, 0]
    np.testing.assert_array_equal(found, [[24, 36, 24], [24, 36, 24]])


def a_block(
    filters: dict[str, IntegerFilter], ranges: dict[str, Affine], **options: object
) -> QuantisedProgram:
    """The image's first two channels, a block, and the identity."""
    stem, last = whole([[1, 0, 0], [0, 1, 0]]), whole(np.eye(2, dtype=np.int8))
    block = BlockStep(
        sources=(1,),
        **{name: floats(filter) for name, filter in filters.items()},  # pyright: ignore
        **options,  # pyright: ignore
    )
    program = Program(
        steps=(
            ConvStep(sources=(0,), project=floats(stem)),
            block,
            ConvStep(sources=(2,), project=floats(last)),
        ),
        outputs=(("out", 3),),
    )
    return QuantisedProgram(
        program=program,
        filters=({"project": stem}, filters, {"project": last}),
        ranges={
            Place.of(0): UNIT,
            Place.of(1): Affine(scale=0.5, zero=10),
            **{Place(1, name): affine for name, affine in ranges.items()},
        },
    )


def test_a_residual_by_hand() -> None:
    net = a_block(
        {
            "depthwise": whole(np.full((2, 1, 1, 1), 2, np.int8), scale=0.5),
            "project": whole([[1, 1], [1, -1]]),
        },
        {"depthwise": UNIT, "out": Affine(scale=4.0, zero=3)},
        residual=True,
    )
    image = np.array([[[[7]], [[2]], [[0]]]], np.float32)
    # depthwise 7, 2; project 9, 5; plus 7, 2: 16 -> 4 steps of 4; 7 / 4 = 1.25 + 0.5 = 1.75 -> 2
    np.testing.assert_array_equal(run_integer(net, image)["out"].ravel(), [16, 8])


def test_squeeze_and_excite_by_hand() -> None:
    net = a_block(
        {
            "depthwise": whole(np.full((2, 1, 1, 1), 1, np.int8)),
            "reduce": whole([[1, 1]]),
            "excite": whole([[1], [-1]], scale=0.5),
            "project": whole(np.eye(2, dtype=np.int8)),
        },
        {
            "depthwise": UNIT,
            "pooled": UNIT,
            "squeezed": Affine(scale=0.25, zero=0),
            "gated": Affine(scale=0.5, zero=0),
            "out": Affine(scale=0.5, zero=0),
        },
    )
    image = np.zeros((1, 3, 1, 2), np.float32)
    image[0, 0, 0], image[0, 1, 0] = [2, 3], [0, 1]
    # means 2.5 -> 2 and 0.5 -> 0; squeezed 2; excite +1, -1; gates 4/6 and 2/6
    found = run_integer(net, image)["out"][0, :, 0]
    # 2 * 2/3 = 1.33 -> 1.5, 3 * 2/3 = 2 -> 2; 1 / 3 -> 0.5
    np.testing.assert_array_equal(found, [[1.5, 2], [0, 0.5]])


def test_a_result_that_no_step_reads_stays_float32() -> None:
    first = whole(RED, scale=0.3, bias=1)
    program = Program(
        steps=(ConvStep(sources=(0,), project=floats(first), activation="relu6"),),
        outputs=(("out", 1),),
    )
    net = QuantisedProgram(
        program=program, filters=({"project": first},), ranges={Place.of(0): UNIT}
    )
    found = run_integer(net, image_of(0, 4, 100))["out"].ravel()
    np.testing.assert_array_equal(found, np.array([1, 5, 20], np.float32) * np.float32(0.3))


# ------------------------------------------------------------------ against the plain loops


def random_filter(rng: np.random.Generator, outputs: int, inputs: int, kernel: int = 1) -> Filter:
    shape = (outputs, inputs, kernel, kernel)
    weight = rng.normal(size=shape) / np.sqrt(inputs * kernel * kernel)
    return Filter(
        weight=weight.astype(np.float32), bias=rng.normal(size=outputs).astype(np.float32) / 2
    )


def random_program(seed: int) -> Program:
    """Every kind of step with random options."""
    rng = np.random.default_rng(seed)

    def one_of(*choices: Activation) -> Activation:
        return choices[rng.integers(len(choices))]

    builder = Builder()
    curves: tuple[Activation, ...] = ("relu", "relu6", "hard_swish")
    padding = "same" if seed % 2 else "symmetric"
    stem = builder.conv(
        0, random_filter(rng, 16, 3, 3), stride=1 + seed % 2, padding=padding,
        activation=one_of("none", "hard_sigmoid", *curves),
    )  # fmt: skip
    squeeze = seed % 3 > 0
    first = builder.block(
        stem,
        expand=random_filter(rng, 19, 16) if seed % 4 else None,
        depthwise=random_filter(rng, 19 if seed % 4 else 16, 1, 3 + 2 * (seed % 2)),
        reduce=random_filter(rng, 5, 19 if seed % 4 else 16) if squeeze else None,
        excite=random_filter(rng, 19 if seed % 4 else 16, 5) if squeeze else None,
        project=random_filter(rng, 16, 19 if seed % 4 else 16),
        dilation=1 + seed % 2,
        activation=one_of(*curves),
        residual=True,
    )
    second = builder.block(
        first, depthwise=random_filter(rng, 16, 1, 3), project=random_filter(rng, 16, 16),
        stride=2, padding=padding, activation=one_of(*curves),
        out_activation=one_of("relu", "relu6", "hard_swish"),
    )  # fmt: skip
    total = builder.add(first, stem, activation=one_of("none", "relu", "relu6"))
    smaller = builder.average_pool(total, kernel=2, stride=1 + seed % 2)
    dense = builder.conv(
        second, random_filter(rng, 16, 16, 3), dilation=1 + seed % 2, activation=one_of(*curves)
    )
    back = builder.resize(dense, like=smaller)
    wide = builder.concat(back, smaller)
    gate = builder.conv(
        builder.pool(wide), random_filter(rng, 32, 32), activation=one_of("hard_sigmoid")
    )
    gated = builder.multiply(wide, gate)
    outputs = {
        "read on": total,
        "logits": builder.conv(
            gated, random_filter(rng, 3, 32), activation=one_of("none", "relu6", "hard_swish")
        ),
        "mean": builder.pool(gated),
        "sum": builder.add(total, stem, activation=one_of("none", "relu")),
        "product": builder.multiply(gated, gate),
        "both": builder.concat(total, first),
        "resized": builder.resize(second, like=stem),
        "windows": builder.average_pool(first, kernel=3, stride=2),
        "block": builder.block(
            stem, depthwise=random_filter(rng, 16, 1, 3), project=random_filter(rng, 16, 16),
            activation="relu", residual=True,
        ),
    }  # fmt: skip
    return builder.program(outputs)


@pytest.mark.parametrize("seed", range(6))
def test_the_reference_is_what_plain_loops_compute(seed: int) -> None:
    program = random_program(seed)
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(5, 9)), int(rng.integers(5, 9)))
    images = rng.normal(size=(2, 3, *size)).astype(np.float32)
    # ranges that most numbers lie in, so that some saturate
    net = quantise_program(program, [images], percentile=98)
    found = run_integer(net, images)
    for place, image in enumerate(images):
        expected = direct.run(net, image)
        assert list(found) == list(expected)
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name][place], value, err_msg=name)
            assert value.dtype == found[name].dtype == np.float32


@pytest.mark.parametrize("seed", range(6))
def test_the_traced_program_is_the_float_one(seed: int) -> None:
    program, images = random_program(seed), np.random.default_rng(1).normal(size=(2, 3, 9, 7))
    images = images.astype(np.float32)
    expected, found = evaluate_float(program, images), run_float(program, images)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * abs(value).max())


# ----------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("name", list(MODELS))
def test_an_int8_network_answers_much_as_its_float_one(name: str) -> None:
    program = program_of(random_network(replace(MODELS[name], width=0.5, classes=50), 64))
    rng = np.random.default_rng(0)
    seen = rng.standard_normal((8, 3, 64, 64), np.float32)
    net = quantise_program(program, [seen[:3], seen[3:]])

    floats: dict[Place, np.ndarray] = {}
    run_float(program, seen, observe=lambda place, x: floats.update({place: x.numpy()}))
    shown: dict[Place, np.ndarray] = {}
    run_integer(net, seen, observe=shown.__setitem__)
    assert set(shown) == set(net.ranges) == set(places(program))
    for place, affine in net.ranges.items():
        # the range holds all that was seen, but for half a step at its ends, and little more
        exact = floats[place].astype(np.float64) / affine.scale + affine.zero
        assert exact.min() > -0.51
        assert exact.max() < 255.51
        assert exact.max() > 253.9
        assert cosine(shown[place] - float(affine.zero), floats[place]) > 0.75, place

    # rounding errors grow through a random network, as they do not through a trained one
    found, expected = run_integer(net, seen)["logits"], run_float(program, seen)["logits"]
    assert cosine(found, expected) > 0.85


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


def test_ranges_are_what_was_seen_within_what_activations_give() -> None:
    rng = np.random.default_rng(0)
    builder = Builder()
    six = builder.conv(0, random_filter(rng, 16, 3, 3), activation="relu6")
    swish = builder.conv(six, random_filter(rng, 16, 16), activation="hard_swish")
    gate = builder.conv(builder.pool(swish), random_filter(rng, 16, 16), activation="hard_sigmoid")
    program = builder.program({"out": builder.multiply(swish, gate)})
    batches = [rng.normal(size=(2, 3, 8, 8)).astype(np.float32) * scale for scale in (1, 4)]
    seen = observe_ranges(program, batches)
    assert set(seen) == set(places(program)) == {Place.of(value) for value in range(5)}
    whole_image = np.concatenate(batches)
    assert seen[Place.of(0)] == (whole_image.min(), whole_image.max())
    assert seen[Place.of(1)] == (0, 6)
    net = quantise(program, seen)
    assert net.ranges[Place.of(1)] == Affine(scale=float(np.float32(6 / 255)), zero=0)
    assert net.ranges[Place.of(4)] == Affine(scale=float(np.float32(1 / 255)), zero=0)
    swished = net.ranges[Place.of(2)]
    assert swished.scale * -swished.zero == pytest.approx(-0.375, abs=swished.scale / 2)
    assert swished.scale * (255 - swished.zero) == pytest.approx(
        seen[Place.of(2)][1], abs=swished.scale / 2
    )

    narrower = observe_ranges(program, batches, percentile=99)[Place.of(0)]
    ends = [np.percentile(batch, (1, 99)) for batch in batches]
    np.testing.assert_allclose(narrower, np.mean(ends, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.0, 255.0), Affine(scale=1.0, zero=0)),
        ((-255.0, 0.0), Affine(scale=1.0, zero=255)),
        ((2.0, 255.0), Affine(scale=1.0, zero=0)),  # 0 is always among the values
        ((-51.0, 204.0), Affine(scale=1.0, zero=51)),
        ((0.0, 0.0), Affine(scale=1.0, zero=0)),
        ((-1e-30, 1e-30), Affine(scale=1.0, zero=0)),
    ],
)
def test_an_affine_range_has_zero_among_its_values(
    bounds: tuple[float, float], expected: Affine
) -> None:
    assert affine_of(bounds) == expected


def test_weights_use_all_of_their_range_and_biases_fit() -> None:
    weight = np.zeros((5, 2, 1, 1), np.float32)
    weight[:, :, 0, 0] = [[1, -0.5], [0, 0], [0, 0], [1e-9, 0], [-254, 3]]
    bias = np.array([0.25, 0, 3, 5, -1], np.float32)
    found = quantise_filter(Filter(weight=weight, bias=bias), scale_in=0.5)
    np.testing.assert_array_equal(found.weight[[0, 4], :, 0, 0], [[127, -64], [-127, 2]])
    assert found.scale[0] == np.float32(1 / 127)
    assert found.scale[1] == 1  # a channel of zeros
    assert found.bias[1] == 0
    # without and with next to no weights, a bias still means what it did
    assert np.abs(found.bias.astype(np.int64)).max() <= 2**30
    np.testing.assert_allclose(found.bias * found.scale * 0.5, bias, rtol=1e-6, atol=0.002)


def test_what_cannot_be_quantised_is_refused() -> None:
    rng = np.random.default_rng(0)
    builder = Builder()
    first = builder.conv(0, random_filter(rng, 16, 3, 3), activation="sigmoid")
    program = builder.program({"out": builder.pool(first)})
    images = rng.normal(size=(1, 3, 8, 8)).astype(np.float32)
    with pytest.raises(UsageError, match="step 0: int8 has no sigmoid"):
        quantise_program(program, [images])
    curved = AddStep(sources=(1, 1), activation="hard_swish")
    stem = ConvStep(sources=(0,), project=random_filter(rng, 16, 3, 3))
    with pytest.raises(UsageError, match="step 1: int8 has no hard_swish"):
        quantise_program(Program(steps=(stem, curved), outputs=(("a", 2),)), [images])
    with pytest.raises(UsageError, match="no pictures"):
        quantise_program(random_program(0), [])
    with pytest.raises(UsageError, match="percentile 20"):
        quantise_program(random_program(0), [images], percentile=20)
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(UsageError, match="not a number"):
        quantise_program(random_program(0), [images])
    with pytest.raises(ValueError, match="float32 number"):
        Affine(scale=0.1, zero=0)
    with pytest.raises(ValueError, match="expected 0 to 255"):
        Affine(scale=1.0, zero=256)


def test_stages_lead_from_tensor_to_tensor() -> None:
    program = program_of(random_network(replace(MODELS["mobilenet_v3_small"], width=0.35), 32))
    ranged = set(places(program))
    made = {Place.of(0)}
    for index, step in enumerate(program.steps):
        assert [stage.name for stage in stages(program, index)] == list(step.filters)
        for stage in stages(program, index):
            if stage.name == "reduce":
                made.add(Place(index, "pooled"))
            if stage.name == "excite":
                made.add(Place(index, "gated"))
            assert stage.source in made
            if stage.target is not None:
                made.add(stage.target)
        if isinstance(step, PoolStep | AddStep):
            made.add(Place.of(index + 1))
    assert made == ranged


def test_calibration_pictures_are_even_over_classes_and_the_same_each_time(
    pictures: list, tmp_path_factory: pytest.TempPathFactory
) -> None:
    labels = np.repeat(np.arange(4), [100, 3, 50, 1])
    chosen = evenly(labels, 20)
    assert np.bincount(labels[chosen]).tolist() == [8, 3, 8, 1]
    assert evenly(labels, 1000).tolist() == list(range(154))
    assert (np.diff(chosen) > 0).all()
    assert chosen[:8].tolist() != list(range(8))  # not just a class's first

    folder = tmp_path_factory.mktemp("calibration")
    for index, path in enumerate(pictures[:12]):
        target = folder / ("ab"[index % 2])
        target.mkdir(exist_ok=True)
        (target / path.name).write_bytes(path.read_bytes())
    split = open_dataset(folder, val_fraction=0).splits["train"]
    first, again = (
        list(calibration_batches(split, torchvision(32), count=7, workers=workers))
        for workers in (0, 2)
    )
    assert [batch.shape for batch in first] == [(7, 3, 32, 32)]
    np.testing.assert_array_equal(first[0], again[0])
    assert first[0].dtype == np.float32

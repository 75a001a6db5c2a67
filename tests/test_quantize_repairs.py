"""The steps of the repair ladder, each by itself: what it must do, and what it must leave alone."""

from dataclasses import replace

import numpy as np
import pytest

from mobilenet.integer import Place, QuantisedProgram
from mobilenet.integer.simulate import simulate
from mobilenet.program import BlockStep, ConvStep, Filter, Floats, Program, program_of
from mobilenet.quantize import quantise
from mobilenet.quantize.choose import choose_ranges
from mobilenet.quantize.correct import correct_biases
from mobilenet.quantize.distil import Distillation, distil
from mobilenet.quantize.equalise import Change, change_channels, equalise, pairs
from mobilenet.quantize.harm import harms
from mobilenet.quantize.ladder import calibrated
from mobilenet.quantize.observe import (
    BINS,
    CALIBRATORS,
    Statistics,
    entropy,
    least_squares,
    minmax,
    moving_average,
    observe,
    percentile,
)
from mobilenet.quantize.reconstruct import Reconstruction, reconstruct
from mobilenet.quantize.trace import run_float
from test_export_qdq import NETWORKS, images_of, random_network

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["v1", "v2", "v3 large", "v3 small minimalistic"]


def program_named(name: str) -> tuple[Program, Floats]:
    """A network, and four images for it."""
    spec, size = NETWORKS[name]
    return program_of(random_network(spec, size)), images_of(size, count=4)


def image_program() -> Program:
    """The image, as it is, through one 1x1 convolution."""
    project = Filter(weight=np.eye(3, dtype=np.float32)[:, :, None, None], bias=np.zeros(3, "f4"))
    return Program(steps=(ConvStep(sources=(0,), project=project),), outputs=(("out", 1),))


def statistics(batches: list[np.ndarray]) -> Statistics:
    """Of the image, given batches of numbers, each a picture of one row."""
    images = [np.repeat(numbers.reshape(1, 1, 1, -1), 3, 1).astype("f4") for numbers in batches]
    return observe(image_program(), images)[Place.of(0)]


def error_of(quantised: QuantisedProgram, images: Floats, wanted: Floats) -> float:
    (found,) = simulate(quantised, images).values()
    return float(((found - wanted) ** 2).mean())


# ---------------------------------------------------------------------------------- calibrators


def test_the_extremes_and_their_moving_average() -> None:
    seen = statistics([np.array([-1.0, 4]), np.array([-3.0, 2]), np.array([0.0, 10])])
    assert minmax(seen) == (-3, 10)
    # from the first batch a tenth of the way to each that follows
    low, high = -1 + 0.1 * (-3 + 1), 4 + 0.1 * (2 - 4)
    assert moving_average(seen) == pytest.approx((low + 0.1 * (0 - low), high + 0.1 * (10 - high)))


@pytest.mark.parametrize("part", [99.9, 99.0, 90.0])
def test_percentiles_are_numpys_to_a_bin(part: float) -> None:
    numbers = np.random.default_rng(0).normal(size=200_000)
    low, high = percentile(part)(statistics([numbers]))
    bin_ = (numbers.max() - numbers.min()) / BINS
    assert low == pytest.approx(np.percentile(numbers, 100 - part), abs=1.01 * bin_)
    assert high == pytest.approx(np.percentile(numbers, part), abs=1.01 * bin_)


def squared_error(numbers: np.ndarray, low: float, high: float) -> float:
    scale = (high - low) / 255
    zero = round(-low / scale)
    q = np.clip(np.rint(numbers / scale), -zero, 255 - zero)
    return float(((q * scale - numbers) ** 2).mean())


def test_least_squares_is_about_the_best_of_all_tops() -> None:
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.exponential(1.0, 1_000_000), [40.0]])
    low, high = least_squares(statistics([numbers]))
    assert low == 0
    best = min(squared_error(numbers, 0.0, top) for top in np.linspace(5, 40, 200))
    assert squared_error(numbers, 0.0, high) < 1.1 * best
    assert squared_error(numbers, 0.0, 40.0) > 2 * best  # there was something to be found


def test_entropy_clips_what_is_far_off_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    even = statistics([rng.uniform(-1, 1, 100_000)])
    assert entropy(even) == pytest.approx((-1, 1), rel=0.05)
    far = statistics([np.concatenate([rng.normal(size=100_000), [50.0]])])
    assert entropy(far)[1] < 25


def test_constants_have_a_range_by_every_calibrator() -> None:
    seen = statistics([np.zeros(8)])
    for name, find in CALIBRATORS.items():
        assert find(seen) == (0, 0), name


def test_a_range_is_chosen_by_what_it_does_to_the_answers() -> None:
    """One far number that the answer does not depend on; and one that it does."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (4, 3, 32, 32)).astype("f4")
    image[0, 2, 0, 0] = 300
    weight = np.zeros((2, 3, 1, 1), "f4")
    weight[0, 0], weight[1, 1] = 1, 1
    tops = []
    for reads in (False, True):
        weight[0, 2] = 100.0 * reads
        project = Filter(weight=weight.copy(), bias=np.zeros(2, "f4"))
        program = Program(steps=(ConvStep(sources=(0,), project=project),), outputs=(("out", 1),))
        ranges, _ = choose_ranges(program, observe(program, [image]), image)
        tops.append(ranges[Place.of(0)][1])
    assert tops[0] < 100
    assert tops[1] > 200


# ---------------------------------------------------------------------------------- equalisation


@pytest.mark.parametrize("name", KINDS)
def test_equalisation_leaves_the_float_function_as_it_was(name: str) -> None:
    program, images = program_named(name)
    wanted = run_float(program, images)["logits"]
    changed, strengths = equalise(program, observe(program, [images]), images)
    assert any(strength is not None for strength in strengths.values())
    found = run_float(changed, images)["logits"]
    np.testing.assert_allclose(found, wanted, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", KINDS)
def test_every_pair_may_be_changed_at_random(name: str) -> None:
    """Each by itself, so that a wrong one is named."""
    program, images = program_named(name)
    images = images[:1]
    wanted = run_float(program, images)["logits"]
    seen = observe(program, [images])
    rng, count = np.random.default_rng(0), 0
    for pair in pairs(program):
        first, filter = pair.producers[0]
        channels = program.steps[first].filters[filter].outputs
        factors, shifts = np.exp(rng.uniform(-2, 2, channels)), np.zeros(channels)
        if pair.linear:
            shifts = rng.normal(size=channels)
        else:  # neither what was met nor what is made of it is clipped by ReLU6
            tops = np.max([seen[place].highs.max(0) for place in pair.places], axis=0)
            factors = np.where(tops < 5.99, np.minimum(factors, 5.99 / np.maximum(tops, 0.01)), 1)
        change = Change(factors=factors, shifts=shifts)
        found = run_float(change_channels(program, pair, change), images)["logits"]
        assert np.abs(found - wanted).max() <= 1e-3 * np.abs(wanted).max(), pair
        count += 1
    assert count >= 8


def test_equalisation_mends_channels_of_very_different_ranges() -> None:
    program, images = program_named("v3 small minimalistic")
    wanted = run_float(program, images)["logits"]
    rng = np.random.default_rng(0)
    for pair in pairs(program):
        if not pair.linear:
            index, name = pair.producers[0]
            channels = program.steps[index].filters[name].outputs
            factors = 100 ** rng.uniform(0, 1, channels)
            program = change_channels(
                program, pair, Change(factors=factors, shifts=np.zeros(channels))
            )
    seen = observe(program, [images])
    mended, _ = equalise(program, seen, images)
    before = error_of(quantise(program, {p: minmax(s) for p, s in seen.items()}), images, wanted)
    after = error_of(calibrated(mended, images).quantised, images, wanted)
    assert after < before / 3


# ---------------------------------------------------------------------------- biases and rounding


def test_the_mean_of_every_channel_is_as_in_float32() -> None:
    program, images = program_named("v3 small")
    found = correct_biases(calibrated(program, images).quantised, images)
    wanted = run_float(program, images)["logits"].mean(0)
    before = simulate(calibrated(program, images).quantised, images)["logits"].mean(0)
    after = simulate(found, images)["logits"].mean(0)
    assert np.abs(after - wanted).max() < 0.2 * np.abs(before - wanted).max()


def test_what_a_range_clips_is_not_taken_back_from_the_rest() -> None:
    """One number in a hundred lies far above the range of the tensor between two layers."""
    (step,) = image_program().steps
    program = Program(steps=(step, replace(step, sources=(1,))), outputs=(("out", 2),))
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (8, 3, 20, 20)).astype("f4")
    rare = rng.random(images.shape) < 0.01
    images[rare] = 50
    quantised = quantise(program, {Place.of(0): (-50.0, 50.0), Place.of(1): (-1.0, 1.0)})
    corrected = correct_biases(quantised, images)
    moved = corrected.filters[0]["project"].bias - quantised.filters[0]["project"].bias
    step = quantised.ranges[Place.of(1)].scale / quantised.ranges[Place.of(0)].scale
    assert np.abs(moved * quantised.filters[0]["project"].scale / step).max() < 2


def leaning() -> tuple[Program, Floats]:
    """A layer that nearest rounding gets wrong: inputs that are nearly alike, and weights of which
    all but one lie a little below the middle of two whole numbers, so that all are rounded down."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.9, 1.1, (16, 3, 1, 1)) / 3
    first = Filter(weight=spread.astype("f4"), bias=np.zeros(16, "f4"))
    weight = (rng.integers(-9, 10, (4, 16, 1, 1)) + rng.uniform(0.3, 0.49, (4, 16, 1, 1))) / 127
    weight[:, 0] = 1.0  # what the scale comes from
    last = Filter(weight=weight.astype("f4"), bias=np.zeros(4, "f4"))
    program = Program(
        steps=(
            ConvStep(sources=(0,), project=first, activation="relu"),
            ConvStep(sources=(1,), project=last),
        ),
        outputs=(("out", 2),),
    )
    return program, rng.uniform(0, 1, (64, 3, 4, 4)).astype("f4")


def test_learned_rounding_beats_the_nearest() -> None:
    program, images = leaning()
    nearest = calibrated(program, images).quantised
    options = Reconstruction(iterations=300, rate=1.0)
    learned = reconstruct(nearest, images, options)
    (wanted,) = run_float(program, images).values()
    assert error_of(learned, images, wanted) < error_of(nearest, images, wanted) / 4
    # whole numbers beside the real ones, up or down, and no others
    for index, step in enumerate(program.steps):
        for name, filter in step.filters.items():
            found = learned.filters[index][name]
            exact = filter.weight / found.scale[:, None, None, None]
            assert np.abs(found.weight - exact).max() <= 1 + 1e-5
    again = reconstruct(nearest, images, options)
    np.testing.assert_array_equal(
        again.filters[1]["project"].weight, learned.filters[1]["project"].weight
    )


def test_learned_rounding_never_makes_a_block_worse() -> None:
    program, images = program_named("v2")
    before = calibrated(program, images).quantised
    left: list[float] = []
    options = Reconstruction(iterations=4, rate=5.0, held_out=0.25)  # too fast to learn anything
    after = reconstruct(before, images, options, report=lambda _, part: left.append(part))
    assert len(left) == sum(isinstance(s, ConvStep | BlockStep) for s in program.steps)
    assert max(left) <= 1
    wanted = run_float(program, images[:1])["logits"]
    assert error_of(after, images[:1], wanted) <= 2 * error_of(before, images[:1], wanted)


# ---------------------------------------------------------------------------------- distillation


def test_distillation_brings_the_answers_nearer() -> None:
    spec, size = NETWORKS["v3 small"]
    program = program_of(random_network(replace(spec, width=0.35), size))
    images = images_of(size, count=24)
    # three bits: coarse enough to leave something to learn
    ranges = {place: minmax(seen) for place, seen in observe(program, [images]).items()}
    coarse = quantise(program, ranges)
    filters = tuple(
        {
            name: replace(
                filter, weight=(np.rint(filter.weight / 32) * 32).clip(-127, 127).astype(np.int8)
            )
            for name, filter in step.items()
        }
        for step in coarse.filters
    )
    coarse = replace(coarse, filters=filters)
    iterations = 0

    def count(done: float, loss: float) -> None:
        nonlocal iterations
        assert 0 <= done <= 1
        assert np.isfinite(loss)
        iterations += 1

    found = distil(coarse, images, Distillation(seconds=6.0, rate=0.5), advance=count)
    assert iterations > 3
    wanted = run_float(program, images)["logits"]
    assert error_of(found, images, wanted) < 0.7 * error_of(coarse, images, wanted)
    assert found.ranges == coarse.ranges


def test_distillation_that_does_not_help_is_dropped() -> None:
    program, images = program_named("v3 small")
    before = calibrated(program, images).quantised
    after = distil(before, images, Distillation(seconds=1.0, rate=1000.0, held_out=0.5))
    assert after is before


# ------------------------------------------------------------------------------- what hurts most


def test_what_is_rounded_most_coarsely_hurts_most() -> None:
    program, images = program_named("v2")
    quantised = calibrated(program, images).quantised
    before = {(harm.kind, harm.where): harm.snr_db for harm in harms(program, quantised, images)}
    place = Place(5, "depthwise")
    filters, ranges = list(quantised.filters), dict(quantised.ranges)
    project = filters[3]["project"]
    coarse = replace(project, weight=project.weight // 64, scale=project.scale * 64)
    filters[3] = {**filters[3], "project": coarse}
    behind = filters[5]["project"]  # its bias is in units of the tensor that is spoilt
    filters[5] = {**filters[5], "project": replace(behind, bias=behind.bias // 64)}
    ranges[place] = replace(ranges[place], scale=float(np.float32(ranges[place].scale * 64)))
    spoilt = replace(quantised, filters=tuple(filters), ranges=ranges)
    after = {(harm.kind, harm.where): harm.snr_db for harm in harms(program, spoilt, images)}
    changed = {("weights", "3 project"), ("tensor", "5 depthwise")}
    assert set(sorted(after, key=after.__getitem__)[:2]) == changed
    for key in before.keys() - changed - {("weights", "5 project")}:
        assert after[key] == before[key]


def test_nothing_rounded_does_no_harm() -> None:
    """Whole numbers all through: each thing alone leaves the answers as they are."""
    program = image_program()
    ranges = {Place.of(0): (0.0, 255.0)}
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 4)).astype("f4")
    images[0, 0, 0, :2] = 0, 255
    found = list(harms(program, quantise(program, ranges), images))
    assert [harm.where for harm in found] == ["image", "0 project"]
    assert found[0].snr_db == 200

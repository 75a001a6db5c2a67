"""Alignment against scikit-image, MobileFaceNet's counts, ArcFace's formula, verification."""

import math
from itertools import count, repeat
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.transform import SimilarityTransform, warp
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold
from torch import Tensor, nn
from torch.nn import functional as F

from mobilenet.errors import DataError, UsageError
from mobilenet.faces import (
    TEMPLATE,
    EmbeddingSpec,
    align_face,
    cosine_similarity,
    create_embedding,
    embedding_program,
    normalise,
    roc,
    similarity,
    tar_at_far,
    verify_pairs,
)
from mobilenet.faces.arcface import ArcFace, arc, train_embedding
from mobilenet.faces.cost import count_embedding
from mobilenet.faces.mobilefacenet import MobileFaceNet
from mobilenet.faces.verification import best_threshold
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.heads import HeadTraining
from mobilenet.integer import run_integer
from mobilenet.program import evaluate_float
from mobilenet.quantize import quantise_program

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("seed", range(5))
def test_a_similarity_is_scikit_images(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.uniform(0, 200, (5, 2))
    target = np.array(TEMPLATE) + rng.normal(0, 3, (5, 2))
    expected = SimilarityTransform.from_estimate(source, target)
    found = similarity(source.astype(np.float32), target.astype(np.float32))
    np.testing.assert_allclose(found, expected.params[:2], rtol=1e-3, atol=1e-3)


def test_a_turn_scale_and_move_is_found_again() -> None:
    turn, scale, moved = math.radians(25), 1.7, np.array([40.0, -12.0])
    matrix = scale * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    source = np.array(TEMPLATE)
    target = source @ matrix.T + moved
    found = similarity(source.astype(np.float32), target.astype(np.float32))
    np.testing.assert_allclose(found, np.column_stack([matrix, moved]), atol=1e-4)


def test_a_mirrored_face_is_turned_but_never_mirrored() -> None:
    source = np.array(TEMPLATE, np.float32) * [-1, 1] + [112, 0]
    matrix = similarity(source.astype(np.float32), np.array(TEMPLATE, np.float32))
    assert np.linalg.det(matrix[:, :2]) > 0
    expected = SimilarityTransform.from_estimate(source, np.array(TEMPLATE))
    np.testing.assert_allclose(matrix, expected.params[:2], atol=1e-3)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.full((5, 2), 30.0), "lie in one place"),
        (np.array(TEMPLATE) * 1e-3, "lie in one place"),
        (np.where(np.eye(5, 2) > 0, np.nan, np.array(TEMPLATE)), "no numbers"),
    ],
)
def test_degenerate_landmarks_are_refused(points: np.ndarray, message: str) -> None:
    picture = Image.new("RGB", (64, 64))
    with pytest.raises(DataError, match=message):
        align_face(picture, points.astype(np.float32))


def test_landmarks_of_another_kind_are_refused() -> None:
    picture = Image.new("RGB", (64, 64))
    with pytest.raises(UsageError, match=r"points \(6, 2\) and \(5, 2\)"):
        align_face(picture, np.zeros((6, 2), np.float32))
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * 10
    with pytest.raises(DataError, match="a mirrored face: check their order"):
        similarity(square, square[[1, 0, 3, 2]])
    with pytest.raises(DataError, match="lie in one place"):
        similarity(square, square * 0)


def test_a_face_of_many_thousand_pixels_is_still_one() -> None:
    found = similarity(np.array(TEMPLATE, np.float32) * 2000, np.array(TEMPLATE, np.float32))
    np.testing.assert_allclose(found, [[1 / 2000, 0, 0], [0, 1 / 2000, 0]], atol=1e-4)


def smooth_picture(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [112, 80])
def test_a_face_is_cut_out_as_scikit_image_warps_it(size: int) -> None:
    """In its own coordinates, where a pixel's middle is at a whole number and the template is as
    it was published."""
    picture = smooth_picture(180, 240)
    published = np.array(
        [
            [38.2946, 51.6963],
            [73.5318, 51.5014],
            [56.0252, 71.7366],
            [41.5493, 92.3655],
            [70.7299, 92.2041],
        ]
    )
    turned = SimilarityTransform(scale=0.8, rotation=0.4, translation=(90, 30))
    marks = turned(published) + np.random.default_rng(1).normal(0, 1, (5, 2))
    target = (published + 0.5) * size / 112 - 0.5
    fit = SimilarityTransform.from_estimate(marks, target)
    expected = (
        warp(np.asarray(picture) / 255, fit.inverse, output_shape=(size, size), order=1) * 255
    )
    found = np.asarray(align_face(picture, (marks + 0.5).astype(np.float32), size=size))
    inside = warp(np.ones((180, 240)), fit.inverse, output_shape=(size, size), order=1) == 1
    assert inside.mean() > 0.9
    assert np.abs(found - expected)[inside].max() < 1.5  # of 255: rounding to bytes
    assert expected[inside].std() > 20


def test_beyond_the_picture_is_black() -> None:
    picture = Image.new("RGB", (112, 112), (255, 255, 255))
    away = np.array(TEMPLATE, np.float32) + np.array([56, 0], np.float32)
    found = np.asarray(align_face(picture, away))
    assert (found[:, :55] == 255).all()
    assert (found[:, 57:] == 0).all()
    upright = np.asarray(align_face(smooth_picture(112, 112), np.array(TEMPLATE, np.float32)))
    np.testing.assert_allclose(upright, np.asarray(smooth_picture(112, 112)), atol=1)


# ------------------------------------------------------------------------------------- embeddings


def test_mobilefacenet_has_its_papers_costs() -> None:
    paper = count_embedding(EmbeddingSpec())
    assert paper.params == 995_584 + 7_552  # with the slopes of PReLU
    assert paper.madds == 220_965_376
    assert count_embedding(EmbeddingSpec(activation="relu6")).params == 995_584
    network = create_embedding(EmbeddingSpec())
    slopes = [
        p.numel() for m in network.modules() if isinstance(m, nn.PReLU) for p in m.parameters()
    ]
    assert sum(slopes) == 7_552


def test_a_spec_survives_its_dictionary() -> None:
    spec = EmbeddingSpec(width=0.5, activation="relu6", size=80, dimension=64)
    assert EmbeddingSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(UsageError, match="unknown fields \\['colour'\\]"):
        EmbeddingSpec.from_dict({**spec.to_dict(), "colour": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "relu"}, "expected one of"),
        ({"width": 0.0}, "expected above 0"),
        ({"dimension": 0}, "at least 1"),
        ({"size": 100}, "odd multiple of 16"),
        ({"size": 96}, "odd multiple of 16"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EmbeddingSpec(**options)


def lively(spec: EmbeddingSpec) -> MobileFaceNet:
    torch.manual_seed(0)
    network = create_embedding(spec)
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    images = torch.randn(16, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network(images)
    return network.eval()


def run_engine(network: Any, precision: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    height, width = x.shape[2:]
    made = EngineFile(network=network, precision=precision, height=height, width=width, card=Card())
    return native.Engine(native.Model(write_engine(made))).run(x)


@pytest.mark.parametrize(("size", "width"), [(112, 1.0), (80, 0.25)])
def test_a_program_and_the_engine_answer_as_the_network(size: int, width: float) -> None:
    network = lively(EmbeddingSpec(activation="relu6", size=size, width=width))
    x = np.random.default_rng(3).standard_normal((2, 3, size, size), np.float32)
    program = embedding_program(network)
    with torch.no_grad():
        answers = network(torch.from_numpy(x)).numpy()
        expected = network.double()(torch.from_numpy(x).double()).numpy()
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1)
    assert expected.std() > 0.01

    def error(found: np.ndarray) -> float:
        assert found.shape == (2, 128, 1, 1)
        return float(np.abs(normalise(found[..., 0, 0]) - expected).max())

    rounding = float(np.abs(answers - expected).max())
    assert rounding < 1e-4
    assert error(evaluate_float(program, x)["embedding"]) < 1e-5
    assert error(run_engine(program, "float32", x)["embedding"]) < max(5 * rounding, 1e-5)


def test_an_embedding_has_an_exact_int8_form() -> None:
    program = embedding_program(lively(EmbeddingSpec(activation="relu6", size=80, width=0.25)))
    x = np.random.default_rng(3).standard_normal((2, 3, 80, 80), np.float32)
    quantised = quantise_program(program, [x])
    expected = run_integer(quantised, x)["embedding"]
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(run_engine(quantised, "int8", x)["embedding"], expected)


def test_prelu_has_no_program_and_other_sizes_no_answer() -> None:
    network = create_embedding(EmbeddingSpec(size=80, width=0.25)).eval()
    with pytest.raises(UsageError, match="'prelu' has no program: train with 'relu6'"):
        embedding_program(network)
    with pytest.raises(UsageError, match="96 x 80 pixels: expected 80 x 80"):
        network(torch.zeros(1, 3, 96, 80))


def test_normalising_by_hand() -> None:
    found = normalise(np.array([[3, 4], [0, -2]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, -1]], rtol=1e-6)
    for wrong in (0, np.nan):
        with pytest.raises(UsageError, match="embedding 1: its length is"):
            normalise(np.array([[1, 0], [wrong, 0]], np.float32))


# ---------------------------------------------------------------------------------------- ArcFace


def test_arcface_is_its_formula() -> None:
    torch.manual_seed(0)
    people = ArcFace(4, 3)
    embeddings = F.normalize(torch.randn(6, 4))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    centres = F.normalize(people.centres.detach())
    # one of them right opposite of its centre, where the cosine rises again
    embeddings[0] = -centres[0]
    embeddings[1] = centres[1]
    expected = 0.0
    for row, label in zip(embeddings.double(), labels.tolist(), strict=True):
        logits = []
        for index, centre in enumerate(centres.double()):
            cosine = max(-1.0, min(1.0, float(row @ centre)))
            angle = math.acos(cosine)
            if index == label:
                within = angle < math.pi - 0.5
                cosine = math.cos(angle + 0.5) if within else cosine - 0.5 * math.sin(0.5)
            logits.append(64 * cosine)
        top = max(logits)
        expected += math.log(sum(math.exp(x - top) for x in logits)) + top - logits[label]
    found = people(embeddings, labels)
    assert found.item() == pytest.approx(expected / 6, rel=1e-4)


def test_the_margin_ends_where_the_cosine_would_rise_again() -> None:
    margin = 0.5
    edge = math.cos(math.pi - margin)
    cosines = torch.tensor([1.0, 0.3, edge + 1e-6, edge - 1e-6, -0.95, -1.0], dtype=torch.float64)
    found = arc(cosines, margin).tolist()
    for value, cosine in zip(found[:3], cosines[:3].tolist(), strict=True):
        assert value == pytest.approx(math.cos(math.acos(cosine) + margin), abs=1e-5)
    for value, cosine in zip(found[3:], cosines[3:].tolist(), strict=True):
        assert value == pytest.approx(cosine - margin * math.sin(margin), abs=1e-9)
    everywhere = arc(torch.linspace(-1, 1, 2001, dtype=torch.float64), margin)
    assert (everywhere.diff() > 0).all()  # also across the edge, where it jumps up
    torch.testing.assert_close(arc(cosines, 0.0), cosines, rtol=0, atol=2e-6)
    # the gradient is a number also at both ends
    ends = torch.tensor([1.0, -1.0], requires_grad=True)
    arc(ends, margin).sum().backward()
    assert ends.grad is not None
    assert torch.isfinite(ends.grad).all()


def test_arcface_refuses_what_tells_nobody_apart() -> None:
    with pytest.raises(UsageError, match="expected at least 2"):
        ArcFace(4, 1)
    with pytest.raises(UsageError, match="margin 2"):
        ArcFace(4, 3, margin=2.0)


def drawn(people: int, each: int, size: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy pictures of people who are a coarse pattern each."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(people, 3, 4, 4, generator=generator)
    labels = torch.arange(people).repeat_interleave(each)
    images = F.interpolate(patterns, size=(size, size), mode="bilinear")[labels]
    generator = torch.Generator().manual_seed(seed)
    return images + 0.7 * torch.randn(images.shape, generator=generator), labels


@pytest.mark.slow
def test_people_are_told_apart_after_training() -> None:
    torch.manual_seed(0)
    spec = EmbeddingSpec(size=48, width=0.25, dimension=16)
    network, people = create_embedding(spec), ArcFace(16, 4)
    seen: list[float] = []
    state = train_embedding(
        network,
        people,
        (drawn(4, 4, 48, seed=step) for step in count(1)),
        HeadTraining(steps=60, lr=3e-3, backbone_rate=1.0, average=0.9),
        report=lambda step, loss: seen.append(loss),
    )
    assert seen[-1] < seen[0] / 5
    assert set(state) == set(network.state_dict())
    network.load_state_dict(state)
    network.eval()
    images, labels = drawn(4, 3, 48)
    with torch.no_grad():
        found = network(images).numpy()
    first, second = np.triu_indices(len(found), 1)
    scores = cosine_similarity(found[first], found[second])
    same = labels.numpy()[first] == labels.numpy()[second]
    assert roc(scores, same).auc > 0.99


def test_a_frozen_network_leaves_the_centres_to_learn() -> None:
    torch.manual_seed(0)
    network, people = create_embedding(EmbeddingSpec(size=48, width=0.25)), ArcFace(128, 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    centres = people.centres.detach().clone()
    state = train_embedding(
        network, people, repeat(drawn(3, 2, 48)), HeadTraining(steps=2, backbone_rate=0)
    )
    for name, value in before.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)
    assert (people.centres.detach() != centres).any()


# ----------------------------------------------------------------------------------- verification


def random_pairs(seed: int, count: int = 600, *, steps: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tell something; `steps`: in so many different values a unit."""
    rng = np.random.default_rng(seed)
    same = rng.random(count) < 0.4
    scores = rng.normal(np.where(same, 0.5, 0.2), 0.2)
    return (np.round(scores * steps) / steps if steps else scores).astype(np.float32), same


def test_cosines_by_hand() -> None:
    first = np.array([[1, 0], [2, 2], [-3, 0]], np.float32)
    second = np.array([[5, 0], [0, 1], [0.5, 0]], np.float32)
    np.testing.assert_allclose(cosine_similarity(first, second), [1, math.sqrt(0.5), -1], rtol=1e-6)
    with pytest.raises(UsageError, match=r"expected \(N, D\) twice"):
        cosine_similarity(first, second[:2])
    with pytest.raises(UsageError, match="its length is 0"):
        cosine_similarity(first, second * 0)


@pytest.mark.parametrize("steps", [0, 10])
def test_the_roc_is_scikit_learns(steps: int) -> None:
    for seed in range(3):
        scores, same = random_pairs(seed, steps=steps)
        far, tar, thresholds = roc_curve(same, scores, drop_intermediate=False)
        found = roc(scores, same)
        np.testing.assert_allclose(found.far, far)
        np.testing.assert_allclose(found.tar, tar)
        np.testing.assert_allclose(found.thresholds, thresholds)
        assert found.auc == pytest.approx(roc_auc_score(same, scores))


def test_verification_by_hand() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.2, 0.7, 0.75], np.float32)
    same = np.array([True, False, True, False, True, False])
    curve = roc(scores, same)
    assert curve.tar.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1, 1, 1])
    assert curve.far.tolist() == pytest.approx([0, 0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert curve.auc == pytest.approx(8 / 9)  # of nine pairs of pairs one is the wrong way round
    assert tar_at_far(curve, 0.34, different=3) == 1
    assert tar_at_far(curve, 1 / 3, different=3) == 1
    assert math.isnan(tar_at_far(curve, 0.1, different=3))
    found = verify_pairs(scores, same, folds=3, false_accepts=(0.5, 0.1))
    # the last fold's others part anywhere from 0.2 to 0.8, so at 0.5, which takes both of its own;
    # the others' best are below 0.7 too
    assert found.accuracy == pytest.approx((1 + 1 + 0.5) / 3)
    assert found.deviation == pytest.approx(np.std([1, 1, 0.5]))
    assert found.tar_at_far[0.5] == 1
    assert math.isnan(found.tar_at_far[0.1])
    assert (found.same, found.different, found.folds) == (3, 3, 3)


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_scikit_learns_and_thresholds_found_by_search(seed: int) -> None:
    scores, same = random_pairs(seed, 203, steps=50)
    accuracies, chosen = [], []
    for others, held in KFold(10).split(scores):
        values = np.unique(scores[others].astype(np.float64))
        possible = [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]
        right = [((scores[others] >= t) == same[others]).mean() for t in possible]
        threshold = possible[int(np.argmax(right))]
        assert best_threshold(scores[others], same[others]) == pytest.approx(threshold)
        chosen.append(threshold)
        accuracies.append(((scores[held] >= threshold) == same[held]).mean())
    found = verify_pairs(scores, same)
    assert found.accuracy == pytest.approx(np.mean(accuracies))
    assert found.deviation == pytest.approx(np.std(accuracies))
    assert found.threshold == pytest.approx(np.mean(chosen))
    assert 0.6 < found.accuracy < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_tar_at_far_is_what_a_count_says(seed: int) -> None:
    scores, same = random_pairs(seed, steps=20)
    curve, different = roc(scores, same), int((~same).sum())
    for far in (0.3, 0.1, 0.01):
        best = 0.0
        for threshold in [*np.unique(scores), np.inf]:
            taken = scores >= threshold
            if taken[~same].mean() <= far:
                best = max(best, taken[same].mean())
        assert tar_at_far(curve, far, different=different) == pytest.approx(best)


def test_perfect_and_useless_scores() -> None:
    same = np.arange(40) % 2 == 0
    perfect = verify_pairs(np.where(same, 0.9, 0.1), same)
    assert (perfect.accuracy, perfect.auc, perfect.tar_at_far[0.1]) == (1, 1, 1)
    assert perfect.threshold == pytest.approx(0.5)
    useless = verify_pairs(np.full(40, 0.3), same)
    assert (useless.auc, useless.tar_at_far[0.1]) == (0.5, 0)
    assert useless.accuracy == 0.5


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2, 0.3], [True, True], "expected one finite score"),
        ([0.1, math.nan], [True, False], "expected one finite score"),
        ([0.1, 0.2], [True, True], "2 of 2 pairs are of one person"),
        ([0.1, 0.2], [False, False], "0 of 2 pairs are of one person"),
        ([0.1, 0.2], [True, False], "10 folds of 2 pairs"),
    ],
)
def test_pairs_that_tell_nothing_are_refused(
    scores: list[float], same: list[bool], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        verify_pairs(np.array(scores), np.array(same))

"""Poses against pycocotools, hand-computed cases, round trips and the modules in PyTorch."""

import contextlib
import io
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobilenet.backbone import load_backbone
from mobilenet.errors import UsageError
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.integer import run_integer
from mobilenet.keypoints import (
    COCO_FLIPPED,
    COCO_KEYPOINTS,
    COCO_SIGMAS,
    COCO_SKELETON,
    KeypointSpec,
    People,
    TruePeople,
    centre_targets,
    create_keypoints,
    decode_people,
    decode_single,
    keypoint_program,
    keypoint_scores,
    oks,
    single_targets,
)
from mobilenet.keypoints.loss import centre_loss, focal, masked_l1, single_loss
from mobilenet.models import MODELS, create
from mobilenet.program import evaluate_float
from mobilenet.quantize import quantise_program

pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------ the spec


def test_the_person_is_cocos() -> None:
    for index, name in enumerate(COCO_KEYPOINTS):
        mirrored = name.replace("left", "L").replace("right", "left").replace("L", "right")
        assert COCO_KEYPOINTS[COCO_FLIPPED[index]] == mirrored
        assert COCO_SIGMAS[index] == COCO_SIGMAS[COCO_FLIPPED[index]]
    mirrors = {tuple(sorted((COCO_FLIPPED[a], COCO_FLIPPED[b]))) for a, b in COCO_SKELETON}
    assert mirrors == {tuple(sorted(edge)) for edge in COCO_SKELETON}
    assert len(COCO_SKELETON) == 19


def test_the_sigmas_are_pycocotools() -> None:
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    np.testing.assert_allclose(cocoeval.Params("keypoints").kpt_oks_sigmas, COCO_SIGMAS)


def test_a_spec_is_read_back_and_a_wrong_one_refused() -> None:
    spec = KeypointSpec(head="centre", keypoints=4, filters=32)
    assert KeypointSpec.from_dict(spec.to_dict()) == spec
    assert spec.outputs == {"heatmaps": 4, "offsets": 8, "centres": 1, "regression": 8}
    with pytest.raises(UsageError, match=r"unknown fields \['classes'\]"):
        KeypointSpec.from_dict({"backbone": {"name": "mobilenet_v2"}, "classes": 1})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"head": "both"}, "expected one of"),
        ({"keypoints": 0}, "at least 1"),
        ({"filters": 40}, "multiple of 16"),
    ]
    for options, message in wrong:
        with pytest.raises(UsageError, match=message):
            KeypointSpec(**options)


def test_what_a_device_needs_does_not_import_torch() -> None:
    code = "import sys, mobilenet.keypoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# ------------------------------------------------------------------------------ the metric


def random_people(rng: np.random.Generator, count: int) -> TruePeople:
    """Figures of several sizes, some crowds, some without a labelled keypoint."""
    middle = rng.uniform(50, 400, (count, 1, 2))
    size = rng.choice([15.0, 40.0, 120.0], (count, 1, 1))
    points = middle + size * rng.uniform(-0.5, 0.5, (count, 17, 2))
    seen = rng.integers(0, 3, (count, 17))
    seen[rng.random(count) < 0.2] = 0
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * rng.uniform(0.5, 1, count)
    return TruePeople(
        keypoints=np.concatenate([points, seen[..., None]], 2),
        boxes=boxes,
        areas=areas,
        crowd=rng.random(count) < 0.15,
    )


def random_answers(rng: np.random.Generator, truth: TruePeople) -> People:
    """The same people moved a little, some missed, some twice, and some that are nowhere."""
    chosen = rng.integers(0, max(len(truth.boxes), 1), rng.integers(0, 26))
    if len(truth.boxes) == 0:
        chosen = chosen[:0]
    size = np.sqrt(truth.areas[chosen])[:, None, None]
    points = truth.keypoints[chosen, :, :2]
    points = points + rng.normal(0, 1, points.shape) * size * rng.choice([0.02, 0.1], size.shape)
    nowhere = rng.uniform(0, 400, (2, 17, 2))
    points = np.concatenate([points, nowhere])
    scores = rng.integers(1, 30, len(points)) / 30  # with ties
    return People(
        keypoints=np.concatenate([points, np.ones((len(points), 17, 1))], 2), scores=scores
    )


def pycocotools_evaluation(truths: list[TruePeople], found: list[People]) -> Any:
    coco_module = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    annotations, answers = [], []
    for picture, (truth, people) in enumerate(zip(truths, found, strict=True), start=1):
        rows = zip(truth.keypoints, truth.boxes, truth.areas, truth.crowd, strict=True)
        for points, (x0, y0, x1, y1), area, crowd in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": picture,
                    "category_id": 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": area,
                    "iscrowd": int(crowd),
                    "keypoints": points.reshape(-1).tolist(),
                    "num_keypoints": int((points[:, 2] > 0).sum()),
                }
            )
        answers += [
            {
                "image_id": picture,
                "category_id": 1,
                "keypoints": points.reshape(-1).tolist(),
                "score": float(score),
            }
            for points, score in zip(people.keypoints, people.scores, strict=True)
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": index + 1} for index in range(len(truths))],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "person"}],
        }
        coco.createIndex()
        evaluation = cocoeval.COCOeval(coco, coco.loadRes(answers), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(6))
def test_the_scores_are_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truths = [random_people(rng, int(count)) for count in rng.integers(0, 8, 12)]
    found = [random_answers(rng, truth) for truth in truths]
    evaluation = pycocotools_evaluation(truths, found)
    scores = keypoint_scores(truths, found)
    expected = evaluation.stats[:6]
    assert 0.1 < expected[0] < 0.95
    mine = (
        scores.ap, scores.ap50, scores.ap75, scores.ap_medium, scores.ap_large, scores.ar,
    )  # fmt: skip
    np.testing.assert_allclose(np.array(mine, np.float64), expected, rtol=0, atol=1e-12)

    for picture, (truth, people) in enumerate(zip(truths, found, strict=True), start=1):
        table = evaluation.ious[picture, 1]
        order = np.argsort(-people.scores, kind="mergesort")[:20]
        similar = oks(people.keypoints[order], truth)
        if len(truth.boxes):
            np.testing.assert_allclose(similar, table, rtol=0, atol=1e-12)


def one_person(points: Any, area: float = 100.0, crowd: bool = False) -> TruePeople:
    points = np.array([points], np.float64)
    boxes = np.concatenate([points[:, :, :2].min(1), points[:, :, :2].max(1)], 1)
    return TruePeople(
        keypoints=points, boxes=boxes, areas=np.array([area]), crowd=np.array([crowd])
    )


def test_similarity_computed_by_hand() -> None:
    truth = one_person([[10, 10, 2], [20, 20, 1], [0, 0, 0]])
    found = np.array([[[10, 10], [22, 20], [500, 500]]])
    # d² = 4, area 100, sigma 0.1: exp(-4 / (2 * 100 * 0.04)) of one, 1 of the other
    expected = (1 + np.exp(-0.5)) / 2
    sigmas = (0.1, 0.1, 0.1)
    assert oks(found, truth, sigmas=sigmas)[0, 0] == pytest.approx(expected)
    unlabelled = replace(truth, keypoints=truth.keypoints * (1, 1, 0))
    # boxed 0 to 20, so -20 to 40 counts as near: the last one alone is far away
    assert oks(found, unlabelled, sigmas=sigmas)[0, 0] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="3 found and 3 labelled keypoints, 17 sigmas"):
        oks(found, truth)


def test_precision_computed_by_hand() -> None:
    truth = one_person([[10, 10, 2], [20, 30, 2]], area=2000)
    right = np.array([[[10, 10, 1], [20, 30, 1]]], np.float32)
    wrong = right + 300
    sigmas = (0.1, 0.1)

    def scores(points: list[np.ndarray], sure: list[float], truths: list[TruePeople]) -> Any:
        people = People(keypoints=np.concatenate(points), scores=np.array(sure, np.float32))
        none = People(keypoints=np.zeros((0, 2, 3), np.float32), scores=np.zeros(0, np.float32))
        return keypoint_scores(truths, [people, none][: len(truths)], sigmas=sigmas)

    found = scores([right], [0.3], [truth])
    assert (found.ap, found.ap50, found.ar, found.ap_medium) == pytest.approx((1, 1, 1, 1))
    assert found.ap_large is None
    # a surer wrong answer halves the precision; one behind the right one changes nothing
    assert scores([wrong, right], [0.9, 0.3], [truth]).ap == pytest.approx(0.5)
    assert scores([right, wrong], [0.9, 0.3], [truth]).ap == pytest.approx(1)
    # of two people one is found: precision 1 up to recall 0.5, 51 of 101 places
    half = scores([right], [0.9], [truth, truth])
    assert (half.ap, half.ar) == pytest.approx((51 / 101, 0.5))
    crowd = replace(truth, crowd=np.array([True]))
    assert scores([right], [0.9], [crowd]).ap is None
    with pytest.raises(ValueError, match="1 pictures found for 0"):
        keypoint_scores([], [People(keypoints=right, scores=np.ones(1, np.float32))])


# ------------------------------------------------------------------------------ targets, decoding

HEIGHT, WIDTH = 96, 130


def test_what_one_person_should_give_is_decoded_back() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform((2, 2), (WIDTH - 2, HEIGHT - 2), (17, 2))
    person = np.concatenate([points, rng.integers(1, 3, (17, 1))], 1).astype(np.float32)
    person[3, 2] = 0  # not labelled
    person[4, :2] = -30, 20  # outside
    targets = single_targets(person, HEIGHT, WIDTH)
    assert targets["heatmaps"].shape == (17, 24, 33)
    assert targets["heatmaps_weight"][:, 0, 0].tolist() == [float(i != 3) for i in range(17)]
    assert not targets["heatmaps"][4].any()
    assert not targets["offsets_weight"][[6, 7, 8, 9]].any()
    found = decode_single({name: targets[name][None] for name in ("heatmaps", "offsets")})[0]
    inside = [index for index in range(17) if index not in (3, 4)]
    np.testing.assert_allclose(found[inside, :2], person[inside, :2], rtol=0, atol=1e-4)
    # a peak lies at most half a cell each way from the keypoint: exp(-0.5 / (2 * 2²))
    assert found[inside, 2].min() >= np.exp(-0.5 / 8) - 1e-6


def scene(count: int) -> tuple[np.ndarray, np.ndarray]:
    """People of nine keypoints side by side, with boxes."""
    rng = np.random.default_rng(1)
    corners = np.array([(12.0, 10.0), (75.0, 8.0), (40.0, 50.0)])[:count]
    grid = np.stack(np.meshgrid([0, 18, 36], [0, 16, 32]), -1).reshape(1, 9, 2)
    points = corners[:, None] + grid + rng.uniform(-3, 3, (count, 9, 2))
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return np.concatenate([points, np.full((count, 9, 1), 2.0)], 2), boxes


def logits(x: np.ndarray) -> np.ndarray:
    clipped = np.clip(x, 1e-4, 1 - 1e-4)
    return np.log(clipped / (1 - clipped)).astype(np.float32)


def as_maps(targets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    maps = {name: targets[name][None] for name in ("offsets", "regression")}
    return maps | {name: logits(targets[name])[None] for name in ("centres", "heatmaps")}


def test_what_several_people_should_give_is_decoded_back() -> None:
    people, boxes = scene(3)
    people[1, 5, 2] = 0
    targets = centre_targets(people, boxes, HEIGHT, WIDTH)
    assert targets["centres"].shape == (1, 24, 33)
    assert (targets["centres"] == 1).sum() == 3
    (found,) = decode_people(as_maps(targets))
    assert len(found.scores) == 3
    assert found.scores.min() > 0.8
    order = np.argsort(found.keypoints[:, :, 0].mean(1))
    expected = people[np.argsort(people[:, :, 0].mean(1))]
    labelled = expected[:, :, 2] > 0
    found_points = found.keypoints[order][:, :, :2]
    np.testing.assert_allclose(found_points[labelled], expected[..., :2][labelled], atol=1e-3)
    truth = TruePeople(
        keypoints=people, boxes=boxes, areas=np.full(3, 900.0), crowd=np.zeros(3, bool)
    )
    assert keypoint_scores([truth], [found], sigmas=(0.05,) * 9).ap == pytest.approx(1)


def test_without_a_heatmap_the_regression_decides() -> None:
    people, boxes = scene(2)
    maps = as_maps(centre_targets(people, boxes, HEIGHT, WIDTH))
    maps["heatmaps"] = np.full_like(maps["heatmaps"], -4.0)  # 0.018 everywhere
    (found,) = decode_people(maps, threshold=0.01)
    order = np.argsort(found.keypoints[:, :, 0].mean(1))
    np.testing.assert_allclose(found.keypoints[order][:, :, :2], people[..., :2], atol=1e-3)
    assert found.keypoints[..., 2].max() < 0.02
    (nobody,) = decode_people(maps, threshold=0.5)
    assert nobody.keypoints.shape == (0, 9, 3)
    assert len(decode_people(maps, threshold=0.01, limit=1)[0].scores) == 1


def test_crowds_teach_nothing_but_where_people_are() -> None:
    people, boxes = scene(1)
    crowd = np.array([[0, 0, 60, HEIGHT]], np.float32)
    targets = centre_targets(people, boxes, HEIGHT, WIDTH, ignored=crowd)
    columns = (np.arange(33) + 0.5) * 4
    inside = columns <= 60
    weight = targets["centres_weight"][0]
    assert weight[:, ~inside].all()
    assert weight[:, inside].sum() == (targets["centres"] == 1).sum() == 1
    empty = centre_targets(np.zeros((0, 9, 3)), np.zeros((0, 4)), HEIGHT, WIDTH)
    assert not any(empty[name].any() for name in ("centres", "heatmaps", "regression_weight"))
    assert empty["heatmaps_weight"].all()


# ------------------------------------------------------------------------------ losses


def test_the_focal_loss_is_the_papers_formula() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 2, (2, 3, 5, 6)), rng.uniform(0, 0.99, (2, 3, 5, 6))
    y[0, 0, 2, 2] = y[1, 2, 0, 5] = 1
    weight = (rng.random(y.shape) < 0.7).astype(float)
    p = 1 / (1 + np.exp(-x))
    terms = np.where(y == 1, (1 - p) ** 2 * np.log(p), (1 - y) ** 4 * p**2 * np.log(1 - p))
    found = focal(*(torch.from_numpy(a) for a in (x, y, weight)))
    assert float(found) == pytest.approx(-(weight * terms).sum() / 2)
    assert torch.isfinite(focal(torch.full((1,), 200.0), torch.zeros(1), torch.ones(1)))


def tensors(targets: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([t[name] for t in targets])) for name in targets[0]}


def test_right_answers_lose_nothing_and_unlabelled_points_teach_nothing() -> None:
    people, boxes = scene(1)
    person = people[0].astype(np.float32)
    person[2, 2] = 0
    targets = tensors([single_targets(person, HEIGHT, WIDTH)])
    exact = {name: targets[name].clone() for name in ("heatmaps", "offsets")}
    assert single_loss(exact, targets) == 0
    leaves = {name: (value + 0.5).requires_grad_() for name, value in exact.items()}
    single_loss(leaves, targets).backward()
    heat, moved = leaves["heatmaps"].grad, leaves["offsets"].grad
    assert heat is not None
    assert moved is not None
    assert not heat[:, 2].any()
    assert heat[:, 3].all()
    assert not moved[:, 4:6].any()
    assert masked_l1(torch.ones(2), torch.zeros(2), torch.zeros(2)) == 0

    several = tensors([centre_targets(people, boxes, HEIGHT, WIDTH)])
    perfect = {name: several[name] for name in ("offsets", "regression")}
    sure = {name: (several[name] == 1) * 60.0 - 30.0 for name in ("centres", "heatmaps")}
    assert centre_loss({**perfect, **sure}, several) < 1e-6


# ------------------------------------------------------------------------------ program


def settled(network: nn.Module, size: int) -> None:
    """In evaluation mode, the norms with the statistics of random pictures."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network.train()(torch.randn(4, 3, size, size))
    network.eval()


@pytest.mark.parametrize(
    ("name", "head"),
    [("mobilenet_v1", "heatmap"), ("mobilenet_v2", "centre"), ("mobilenet_v3_small", "centre")],
)
def test_a_program_answers_as_its_network(name: str, head: Any) -> None:
    spec = KeypointSpec(
        backbone=replace(MODELS[name], width=0.35), head=head, keypoints=5, filters=32
    )
    torch.manual_seed(0)
    network = create_keypoints(spec)
    load_backbone(network.backbone, create(spec.backbone).state_dict())
    settled(network, 96)
    program = keypoint_program(network)
    x = np.random.default_rng(3).standard_normal((2, 3, 64, 97), np.float32)
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(x).double())
    assert {key: value.shape[1] for key, value in expected.items()} == spec.outputs
    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    made = EngineFile(network=program, precision="float32", height=64, width=97, card=Card())
    answers = native.Engine(native.Model(write_engine(made))).run(x)
    exact = evaluate_float(program, x)
    for key, value in expected.items():
        largest = float(value.abs().max())
        assert value.std() > 1e-3 * largest
        np.testing.assert_allclose(exact[key], value.numpy(), rtol=0, atol=1e-5 * largest)
        np.testing.assert_allclose(answers[key], value.numpy(), rtol=0, atol=5e-5 * largest)

    quantised = quantise_program(program, [x])
    whole = run_integer(quantised, x)
    made = EngineFile(network=quantised, precision="int8", height=64, width=97, card=Card())
    answers = native.Engine(native.Model(write_engine(made))).run(x)
    for key, value in whole.items():
        np.testing.assert_array_equal(answers[key], value)


# ------------------------------------------------------------------------------ learning


def figures(count: int, people: int) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Pictures of triangles of a red, a green and a blue dot, with points (P, 3, 3) and boxes."""
    rng = np.random.default_rng(0)
    size = 96
    rows, columns = np.mgrid[:size, :size]
    images = rng.normal(0, 0.1, (count, 3, size, size)).astype(np.float32)
    points, boxes = [], []
    for image in images:
        middles = np.array([(24.0, 30.0), (70.0, 62.0)])[:people] + rng.uniform(-5, 5, (people, 2))
        shape = np.array([(0.0, -16.0), (-14.0, 12.0), (14.0, 12.0)])
        found = middles[:, None] + shape + rng.uniform(-4, 4, (people, 3, 2))
        for person in found:
            for colour, (x, y) in enumerate(person):
                image[colour] += 2 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 18)
        boxes.append(np.concatenate([found.min(1), found.max(1)], 1))
        points.append(np.concatenate([found, np.full((people, 3, 1), 2.0)], 2).astype(np.float32))
    return images, points, boxes


@pytest.mark.parametrize(("head", "people"), [("heatmap", 1), ("centre", 2)])
def test_a_few_figures_are_learnt_by_heart(head: Any, people: int) -> None:
    images, points, boxes = figures(8, people)
    spec = KeypointSpec(
        backbone=replace(MODELS["mobilenet_v2"], width=0.35), head=head, keypoints=3, filters=32
    )
    if head == "heatmap":
        targets = tensors([single_targets(p[0], 96, 96) for p in points])
    else:
        rows = zip(points, boxes, strict=True)
        targets = tensors([centre_targets(p, b, 96, 96) for p, b in rows])
    torch.manual_seed(0)
    network, x = create_keypoints(spec), torch.from_numpy(images)
    steps = 80
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        loss = (single_loss if head == "heatmap" else centre_loss)(network(x), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    with torch.no_grad():
        network(x)
        maps = {name: value.numpy() for name, value in network.eval()(x).items()}
    if head == "heatmap":
        found = [
            People(keypoints=person[None], scores=np.ones(1, np.float32))
            for person in decode_single(maps)
        ]
    else:
        found = decode_people(maps)
    truths = [
        TruePeople(keypoints=p, boxes=b, areas=np.full(people, 700.0), crowd=np.zeros(people, bool))
        for p, b in zip(points, boxes, strict=True)
    ]
    ap = keypoint_scores(truths, found, sigmas=(0.05,) * 3).ap
    assert ap is not None
    assert ap > 0.9

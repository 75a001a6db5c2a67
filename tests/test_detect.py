"""Anchors, boxes, decoding and metric of detectors, against torchvision and two COCO evaluators."""

import math
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms as other_batched_nms
from torchvision.ops import box_iou

from mobilenet.detect import (
    DecodeRules,
    Detections,
    DetectorSpec,
    anchor_boxes,
    batched_nms,
    decode_maps,
    detection_scores,
    fit_anchors,
    nms,
    point_grid,
    select,
    tensorflow_anchors,
    torchvision_anchors,
)
from mobilenet.detect.anchors import size_iou
from mobilenet.detect.boxes import (
    clip,
    decode,
    encode,
    from_distances,
    iou,
    to_centres,
    to_corners,
    to_distances,
)
from mobilenet.detect.decode import flatten
from mobilenet.errors import DataError, MissingDependency, UsageError


def random_boxes(count: int, seed: int = 0, *, size: float = 300) -> np.ndarray:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, size * 0.8, (count, 2))
    high = low + rng.uniform(2, size / 2, (count, 2))
    return np.concatenate([low, high], 1).astype(np.float32)


# --------------------------------------------------------------------------------------- anchors


def test_tensorflows_anchors_are_1917() -> None:
    maps = [(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]
    anchors = tensorflow_anchors()
    boxes = anchor_boxes(anchors, maps, height=300, width=300)
    assert boxes.shape == (1917, 4)
    # the first pixel's, by hand: centre 300 / 38, scale 0.1 square, 0.2 with ratios 2 and 1/2
    centre = 300 / 38
    wide, low = 0.2 * math.sqrt(2) * 300, 0.2 / math.sqrt(2) * 300
    expected = [[centre, centre, 30, 30], [centre, centre, wide, low], [centre, centre, low, wide]]
    np.testing.assert_allclose(to_centres(boxes[:3]), expected, rtol=1e-5)
    # the last map: ratios of scale 0.95, and between it and 1
    between = 300 * math.sqrt(0.95)
    assert to_centres(boxes[-6:])[0] == pytest.approx([150, 150, 285, 285])
    assert to_centres(boxes[-1:])[0] == pytest.approx([150, 150, between, between])
    assert [len(level) for level in anchors] == [3, 6, 6, 6, 6, 6]


@pytest.mark.parametrize(("height", "width"), [(320, 320), (256, 384)])
def test_torchvisions_anchors_are_torchvisions(height: int, width: int) -> None:
    maps = [(math.ceil(height / s), math.ceil(width / s)) for s in (16, 32, 64, 128, 256, 512)]
    generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    (expected,) = generator(images, [torch.zeros(1, 1, *size) for size in maps])
    found = anchor_boxes(torchvision_anchors(), maps, height=height, width=width)
    if height == width:
        assert len(found) == 3234
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_anchors_of_another_number_of_maps_are_refused() -> None:
    with pytest.raises(UsageError, match="2 maps: the anchors are of 6"):
        anchor_boxes(tensorflow_anchors(), [(19, 19), (10, 10)], height=300, width=300)
    with pytest.raises(UsageError, match="1 maps: the strides"):
        point_grid([(3, 3)], (8, 16))


def test_fitted_anchors_are_the_sizes_that_there_are() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array([[0.05, 0.1], [0.2, 0.1], [0.3, 0.3], [0.9, 0.4]])
    sizes = kinds[rng.integers(0, 4, 400)] * rng.uniform(0.97, 1.03, (400, 2))
    fitted = fit_anchors(sizes.astype(np.float32), (1, 2, 1))
    assert [len(level) for level in fitted] == [1, 2, 1]
    flat = np.array([box for level in fitted for box in level])
    np.testing.assert_allclose(flat, kinds, rtol=0.02)
    assert fitted == fit_anchors(sizes.astype(np.float32), (1, 2, 1))  # seeded

    wild = np.exp(rng.normal(-2, 0.8, (500, 2))).clip(0.01, 1).astype(np.float32)
    own = np.array([box for level in fit_anchors(wild) for box in level])
    conventional = np.array([box for level in torchvision_anchors() for box in level])
    assert size_iou(wild, own).max(1).mean() > size_iou(wild, conventional).max(1).mean() + 0.1


def test_anchors_are_not_fitted_to_too_few_or_broken_boxes() -> None:
    with pytest.raises(DataError, match="3 different box sizes for 33 anchors"):
        fit_anchors(np.repeat(np.eye(3, 2) + 0.1, 20, 0))
    with pytest.raises(DataError, match="without width"):
        fit_anchors(np.zeros((50, 2)))


def test_points_stand_in_the_middle_of_their_pixels() -> None:
    points, strides = point_grid([(2, 3), (1, 2)], (8, 16))
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]
    np.testing.assert_array_equal(points, expected)
    np.testing.assert_array_equal(strides, [8] * 6 + [16] * 2)


# ----------------------------------------------------------------------------------------- boxes


def test_boxes_encoded_and_decoded_are_the_same_and_torchvisions() -> None:
    boxes, anchors = random_boxes(200, 1), random_boxes(200, 2)
    coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
    code = encode(boxes, anchors)
    expected = coder.encode_single(torch.from_numpy(boxes), torch.from_numpy(anchors))
    np.testing.assert_allclose(code, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(decode(code, anchors), boxes, atol=1e-3)
    wild = np.random.default_rng(0).normal(0, 20, (200, 4)).astype(np.float32)  # past the clamp
    other = coder.decode_single(torch.from_numpy(wild), torch.from_numpy(anchors)).numpy()
    np.testing.assert_allclose(decode(wild, anchors), other, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(to_corners(to_centres(boxes)), boxes, atol=1e-4)
    points = to_centres(anchors)[:, :2]
    np.testing.assert_allclose(
        from_distances(to_distances(boxes, points), points), boxes, atol=1e-4
    )
    cut = clip(boxes, 100, 50)
    assert cut[:, ::2].max() <= 100
    assert cut[:, 1::2].max() <= 50


def test_overlap_is_torchvisions_and_nothing_of_empty_boxes() -> None:
    first, second = random_boxes(50, 3), random_boxes(70, 4)
    expected = box_iou(torch.from_numpy(first), torch.from_numpy(second))
    np.testing.assert_allclose(iou(first, second), expected, atol=1e-6)
    empty = np.zeros((1, 4), np.float32)
    assert iou(empty, empty) == 0
    assert iou(empty[:0], second).shape == (0, 70)


# -------------------------------------------------------------------------------------- decoding


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 400),
    classes=st.integers(1, 5),
    overlap=st.sampled_from([0.0, 0.3, 0.55, 0.9]),
)
def test_suppression_is_torchvisions(seed: int, count: int, classes: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    # whole pixels, so that both compute the same overlaps, and different scores
    boxes = np.floor(random_boxes(count, seed, size=60))
    boxes[:, 2:] += 1
    scores = rng.permutation(count).astype(np.float32) / 200
    labels = rng.integers(0, classes, count)
    expected = other_batched_nms(
        torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), overlap
    )
    np.testing.assert_array_equal(batched_nms(boxes, scores, labels, overlap), expected)


def test_suppression_keeps_the_first_of_equals_and_other_classes() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 5], [20, 0, 30, 10]], np.float32)
    scores = np.array([0.5, 0.5, 0.9, 0.1], np.float32)
    np.testing.assert_array_equal(nms(boxes, scores, 0.6), [2, 0, 3])
    np.testing.assert_array_equal(nms(boxes, scores, 0.5), [2, 0, 3])  # a half is not above a half
    np.testing.assert_array_equal(nms(boxes, scores, 0.49), [2, 3])
    labels = np.array([0, 1, 0, 0])
    np.testing.assert_array_equal(batched_nms(boxes, scores, labels, 0.49), [2, 1, 3])


def test_selection_follows_its_rules() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 8], [20, 0, 29, 9], [40, 0, 49, 9]], np.float32)
    scores = np.array([[0.9, 0.2], [0.8, 0.0], [0.7, 0.3], [0.1, 0.6]], np.float32)
    rules = DecodeRules(threshold=0.15, top=3, overlap=0.5, most=10)
    found = select(boxes, scores, rules)
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.3, 0.2])
    assert found.labels.tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_array_equal(found.boxes, boxes[[0, 2, 3, 2, 0]])
    assert len(select(boxes, scores, replace(rules, most=2)).scores) == 2
    # the two surest of class 0 overlap: one is left
    assert select(boxes, scores, replace(rules, top=2)).labels.tolist().count(0) == 1
    nothing = select(boxes, scores, replace(rules, threshold=1.0))
    assert nothing.boxes.shape == (0, 4)
    assert nothing.labels.dtype == np.int64


def test_a_points_distances_become_its_box() -> None:
    spec = DetectorSpec(head="fcos", loss="sigmoid", anchors=None, classes=2)
    maps = {}
    for level, side in enumerate((8, 4, 2)):
        maps[f"classes.{level}"] = np.full((1, 2, side, side), -9, np.float32)
        maps[f"boxes.{level}"] = np.zeros((1, 4, side, side), np.float32)
    maps["classes.1"][0, 1, 2, 3] = 2.0
    # softplus(x) = 1, 0.5, 0.25, 0.75 times the stride of 16, from the point (56, 40)
    maps["boxes.1"][0, :, 2, 3] = np.log(np.expm1([1, 0.5, 0.25, 0.75]))
    (found,) = decode_maps(spec, maps, height=64, width=64, rules=DecodeRules(threshold=0.5))
    np.testing.assert_allclose(found.boxes, [[40, 32, 60, 52]], rtol=1e-5)
    assert found.labels.tolist() == [1]
    assert found.scores[0] == pytest.approx(1 / (1 + math.exp(-2)))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
@pytest.mark.parametrize("threshold", [0.0, 0.001, 0.05, 0.6])
def test_rows_that_are_left_out_hold_no_candidate(loss: Any, threshold: float) -> None:
    spec = DetectorSpec(classes=4, loss=loss, anchors=torchvision_anchors())
    rng = np.random.default_rng(0)
    sizes = [(6, 5), (3, 3), (2, 2), (1, 1), (1, 1), (1, 1)]
    maps = {
        f"{name}.{level}": rng.normal(0, spread, (2, 6 * numbers, *size)).astype(np.float32)
        for name, numbers, spread in (("classes", spec.scores, 3), ("boxes", 4, 0.5))
        for level, size in enumerate(sizes)
    }
    rules = DecodeRules(threshold=threshold, top=40, overlap=0.5, most=60)
    found = decode_maps(spec, maps, height=96, width=80, rules=rules)
    anchors = anchor_boxes(spec.anchors or (), sizes, height=96, width=80)
    scores, raw = flatten(maps, "classes", spec.scores), flatten(maps, "boxes", 4)
    for ours, own, offsets in zip(found, scores, raw, strict=True):
        tensor = torch.from_numpy(own)
        sure = tensor.softmax(1)[:, 1:] if loss == "softmax" else tensor.sigmoid()
        expected = select(clip(decode(offsets, anchors), 80, 96), sure.numpy(), rules)
        assert len(expected.scores) > 10
        np.testing.assert_array_equal(ours.labels, expected.labels)
        np.testing.assert_allclose(ours.scores, expected.scores, atol=1e-6)
        np.testing.assert_allclose(ours.boxes, expected.boxes, atol=1e-4)


# ---------------------------------------------------------------------------------------- metric


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    boxes: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray


def picture(
    boxes: list[list[float]], labels: list[int], crowd: list[bool] | None = None
) -> Picture:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Picture(
        boxes=array,
        labels=np.array(labels, np.int64),
        areas=(array[:, 2:] - array[:, :2]).prod(1),
        crowd=np.array(crowd or [False] * len(labels), bool),
    )


def found(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
    )


A, B = [0.0, 0.0, 50.0, 50.0], [100.0, 0.0, 150.0, 50.0]


def test_a_perfect_answer_and_none() -> None:
    pytest.importorskip("pycocotools")
    truth = [picture([A, B], [0, 1]), picture([], [])]
    perfect = detection_scores(
        truth, [found([A, B], [0.9, 0.8], [0, 1]), found([], [], [])], classes=3
    )
    assert (perfect.ap, perfect.ap50, perfect.ap75, perfect.ar) == pytest.approx((1, 1, 1, 1))
    assert perfect.ap_medium == pytest.approx(1)  # both of 50² pixels
    assert math.isnan(perfect.ap_small)
    assert perfect.per_class[:2] == pytest.approx((1, 1))
    assert math.isnan(perfect.per_class[2])
    assert (perfect.pictures, perfect.boxes) == (2, 2)
    nothing = detection_scores(truth, [found([], [], [])] * 2, classes=3)
    assert (nothing.ap, nothing.ar) == (0, 0)


def test_average_precision_by_hand() -> None:
    pytest.importorskip("pycocotools")
    # a false one, surer than the first true one, then the second: precisions 1/2 and 2/3 at
    # recalls 1/2 and 1; COCO takes the best precision at or behind each of 101 recalls: 2/3
    truth = [picture([A, B], [0, 0])]
    answer = [found([[200, 0, 250, 50], A, B], [0.9, 0.8, 0.7], [0, 0, 0])]
    scores = detection_scores(truth, answer, classes=1)
    assert scores.ap50 == pytest.approx(2 / 3)
    assert scores.ar == 1
    # the second box only: 51 of the 101 recalls (0 to 0.5) have precision 1, the others none
    half = detection_scores(truth, [found([B], [0.7], [0])], classes=1)
    assert half.ap50 == pytest.approx(51 / 101)
    # a box moved by 10 of 50 pixels: IoU 40/60, right at 0.50, 0.55, 0.60 and 0.65
    moved = [found([[10, 0, 60, 50]], [0.5], [0])]
    third = detection_scores([picture([A], [0])], moved, classes=1)
    assert (third.ap50, third.ap75) == (pytest.approx(1), 0)
    assert third.ap == pytest.approx(0.4)
    # the same box twice: the second one is wrong, but behind all recall
    twice = detection_scores([picture([A], [0])], [found([A, A], [0.9, 0.8], [0, 0])], classes=1)
    assert twice.ap50 == pytest.approx(1)


def test_crowd_is_neither_right_nor_wrong() -> None:
    pytest.importorskip("pycocotools")
    field = [100.0, 0.0, 300.0, 200.0]
    truth = [picture([A, field], [0, 0], [False, True])]
    inside = [[110.0, 10, 150, 50], [160.0, 10, 200, 50]]
    answer = [found([*inside, A], [0.9, 0.8, 0.7], [0, 0, 0])]
    scores = detection_scores(truth, answer, classes=1)
    assert (scores.ap, scores.boxes) == (pytest.approx(1), 1)
    # without the crowd both would be false, and surer than the true one
    alone = detection_scores([picture([A], [0])], answer, classes=1)
    assert alone.ap50 == pytest.approx(1 / 3)
    # of another class they are false
    other = detection_scores([picture([A, field], [0, 1], [False, True])], answer, classes=2)
    assert other.per_class50[0] == pytest.approx(1 / 3)


def test_two_evaluators_agree() -> None:
    pytest.importorskip("pycocotools")
    faster = pytest.importorskip("faster_coco_eval")
    truth, answers = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(0, 12))
        boxes = random_boxes(count, seed)
        labels = rng.integers(0, 4, count)
        truth.append(
            Picture(
                boxes=boxes,
                labels=labels,
                areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
                crowd=rng.random(count) < 0.15,
            )
        )
        near = boxes + rng.normal(0, 6, boxes.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        boxes = np.concatenate([near, random_boxes(5, seed + 100)]).astype(np.float32)
        guessed = np.where(rng.random(count) < 0.8, labels, rng.integers(0, 4, count))
        answers.append(
            Detections(
                boxes=boxes,
                scores=rng.permutation(len(boxes)).astype(np.float32) / 64,
                labels=np.concatenate([guessed, rng.integers(0, 4, 5)]),
            )
        )
    scores = detection_scores(truth, answers, classes=4)
    assert 0.1 < scores.ap < 0.9

    rows = [
        {
            "id": index,
            "image_id": image,
            "category_id": int(label),
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "area": float(area),
            "iscrowd": int(crowd),
        }
        for index, (image, box, label, area, crowd) in enumerate(
            (
                (image, *row)
                for image, each in enumerate(truth)
                for row in zip(each.boxes, each.labels, each.areas, each.crowd, strict=True)
            ),
            start=1,
        )
    ]
    results = [
        {
            "image_id": image,
            "category_id": int(label),
            "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
            "score": float(score),
        }
        for image, each in enumerate(answers)
        for box, label, score in zip(each.boxes, each.labels, each.scores, strict=True)
    ]
    reference = faster.COCO(
        {
            "images": [{"id": image, "width": 500, "height": 500} for image in range(20)],
            "categories": [{"id": label, "name": str(label)} for label in range(4)],
            "annotations": rows,
        }
    )
    evaluation = faster.COCOeval_faster(reference, reference.loadRes(results), "bbox")
    evaluation.run()
    expected = evaluation.stats
    ours = [getattr(scores, name) for name in ("ap", "ap50", "ap75")]
    sizes = [scores.ap_small, scores.ap_medium, scores.ap_large]
    sizes = [-1.0 if math.isnan(value) else value for value in sizes]  # no truth of that size
    np.testing.assert_allclose([*ours, *sizes], expected[:6], atol=1e-9)
    assert scores.ar == pytest.approx(expected[8])


def test_without_pycocotools_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingDependency, match=r"mobilenet\[detect\]"):
        detection_scores([], [], classes=1)


def test_the_device_needs_no_torch() -> None:
    code = "import sys, mobilenet.detect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

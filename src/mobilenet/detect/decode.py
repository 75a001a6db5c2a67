"""From the maps that a detector answers to boxes: what the device does behind the network (NumPy).

A detector's program answers for every level i a map "classes.i" (N, A * C, H, W) and "boxes.i"
(N, A * 4, H, W); A boxes a pixel, C scores each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..program import Floats
from .anchors import anchor_boxes, point_grid
from .boxes import clip, decode, from_distances, iou
from .rules import DecodeRules
from .spec import STRIDES, DetectorSpec

CLASSES, BOXES = "classes", "boxes"
_TOGETHER = 256  # boxes of all classes that are compared at once
_SLACK = 1e-3  # of a score, for roundings
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What was found in one picture, the surest first: boxes (N, 4) in pixels, scores (N,), and
    labels (N,), indices of the classes without background."""

    boxes: Floats
    scores: Floats
    labels: Labels


def nms(boxes: Floats, scores: Floats, overlap: float) -> NDArray[np.intp]:
    """Indices of the boxes that no surer one kept overlaps by more than `overlap` (IoU), the
    surest first; of equal scores the first."""
    return batched_nms(boxes, scores, np.zeros(len(scores), np.int64), overlap)


def batched_nms(boxes: Floats, scores: Floats, labels: Labels, overlap: float) -> NDArray[np.intp]:
    """`nms` of every class by itself; the indices of all, the surest first."""
    if len(scores) <= _TOGETHER:
        return _greedy(boxes, scores, labels, overlap)
    kept = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        kept.append(own[_greedy(boxes[own], scores[own], labels[own], overlap)])
    found = np.sort(np.concatenate(kept))
    return found[np.argsort(-scores[found], kind="stable")]


def _greedy(boxes: Floats, scores: Floats, labels: Labels, overlap: float) -> NDArray[np.intp]:
    order = np.argsort(-scores, kind="stable")
    boxes, labels = boxes[order], labels[order]
    clash = iou(boxes, boxes).astype(np.float64) > overlap  # in float64, as torchvision compares
    clash &= labels[:, None] == labels
    kept: list[int] = []
    gone = np.zeros(len(order), bool)
    for place in range(len(order)):
        if not gone[place]:
            kept.append(place)
            gone |= clash[place]
    return order[kept]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Scores (K,) worth a look, class by class, of which rows (K,) and labels (K,)."""

    rows: NDArray[np.intp]
    labels: Labels
    scores: Floats


def candidates(scores: Floats, rules: DecodeRules) -> Candidates:
    """The scores (P, C) above the threshold, at most `rules.top` of each class."""
    rows, labels = np.nonzero(scores > rules.threshold)
    found = scores[rows, labels]
    order = np.lexsort((rows, -found, labels))
    labels = labels[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, labels)
    order = order[rank < rules.top]
    return Candidates(
        rows=rows[order], labels=labels[rank < rules.top].astype(np.int64), scores=found[order]
    )


def select(boxes: Floats, scores: Floats, rules: DecodeRules) -> Detections:
    """Detections among boxes (P, 4) with a score for each class (P, C)."""
    likely = candidates(scores, rules)
    return _without_doubles(boxes[likely.rows], likely, rules)


def _without_doubles(boxes: Floats, likely: Candidates, rules: DecodeRules) -> Detections:
    """Detections of candidates whose boxes are (K, 4)."""
    kept = batched_nms(boxes, likely.scores, likely.labels, rules.overlap)[: rules.most]
    return Detections(boxes=boxes[kept], scores=likely.scores[kept], labels=likely.labels[kept])


def flatten(maps: Mapping[str, Floats], name: str, numbers: int) -> Floats:
    """The maps "name.0", "name.1" ... (N, A * numbers, H, W) as one (N, P, numbers): level by
    level, row by row, pixel by pixel, box by box."""
    return np.concatenate([_flat(level, numbers) for level in _levels(maps, name)], axis=1)


def _levels(maps: Mapping[str, Floats], name: str) -> list[Floats]:
    count = sum(key.split(".")[0] == name for key in maps)
    return [maps[f"{name}.{index}"] for index in range(count)]


def _flat(level: Floats, numbers: int) -> Floats:
    batch, channels, height, width = level.shape
    apart = level.reshape(batch, channels // numbers, numbers, height, width)
    return apart.transpose(0, 3, 4, 1, 2).reshape(batch, -1, numbers)


def probabilities(spec: DetectorSpec, classes: Floats) -> Floats:
    """Raw scores (P, C) as probabilities of the classes without background."""
    if spec.loss == "softmax":
        raised = np.exp(classes - classes.max(1, keepdims=True))
        return (raised / raised.sum(1, keepdims=True))[:, 1:]
    return sigmoid(classes)


def sigmoid(raw: Floats) -> Floats:
    """Raw scores of any shape as probabilities."""
    with np.errstate(over="ignore"):  # exp of a large number is inf, and its inverse 0
        return np.reciprocal(1 + np.exp(-raw))


def _promising(spec: DetectorSpec, classes: Floats, threshold: float) -> NDArray[np.intp]:
    """The rows of raw scores (P, C) that can hold a probability above the threshold, and few
    others: under softmax one is below exp(its score - the background's)."""
    if not 0 < threshold < 1:
        return np.arange(len(classes))
    if spec.loss == "softmax":
        return np.flatnonzero(classes[:, 1:].max(1) - classes[:, 0] > np.log(threshold) - _SLACK)
    return np.flatnonzero(classes.max(1) > np.log(threshold / (1 - threshold)) - _SLACK)


def decode_maps(
    spec: DetectorSpec,
    maps: Mapping[str, Floats],
    *,
    height: int,
    width: int,
    rules: DecodeRules | None = None,
) -> list[Detections]:
    """Detections of each of N pictures of height x width pixels, in those pixels."""
    rules = rules or DecodeRules()
    decoder = box_decoder(spec, map_sizes(maps), height=height, width=width)
    found = []
    scores = flatten(maps, CLASSES, spec.scores)
    for raw, own in zip(flatten(maps, BOXES, 4), scores, strict=True):
        some = _promising(spec, own, rules.threshold)
        likely = candidates(probabilities(spec, own[some]), rules)
        rows = some[likely.rows]
        boxes = clip(decoder(raw[rows], rows), width, height)
        found.append(_without_doubles(boxes, likely, rules))
    return found


def map_sizes(maps: Mapping[str, Floats]) -> tuple[tuple[int, int], ...]:
    """Height and width of every level."""
    return tuple((level.shape[2], level.shape[3]) for level in _levels(maps, BOXES))


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxDecoder:
    """Raw boxes to corners in pixels: of offsets from `anchors` (P, 4), or of distances from
    `points` (P, 2), softplus(raw) times `strides` (P,)."""

    anchors: Floats | None
    points: Floats | None
    strides: Floats | None

    def __call__(self, raw: Floats, rows: NDArray[np.intp]) -> Floats:
        """Boxes (K, 4) of raw ones (K, 4), which are these rows (K,) of the P."""
        if self.anchors is not None:
            return decode(raw, self.anchors[rows])
        assert self.points is not None
        assert self.strides is not None
        reach = np.logaddexp(0, raw) * self.strides[rows, None]
        return from_distances(reach, self.points[rows])


@lru_cache(maxsize=16)
def box_decoder(
    spec: DetectorSpec, maps: tuple[tuple[int, int], ...], *, height: int, width: int
) -> BoxDecoder:
    """That of a detector whose maps have these sizes for pictures of height x width."""
    if spec.anchors is not None:
        anchors = anchor_boxes(spec.anchors, maps, height=height, width=width)
        return BoxDecoder(anchors=anchors, points=None, strides=None)
    points, strides = point_grid(maps, STRIDES)
    return BoxDecoder(anchors=None, points=points, strides=strides)

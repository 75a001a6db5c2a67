"""What a detector's raw maps cost against the truth."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .anchors import anchor_boxes, point_grid
from .assign import align, match
from .boxes import CODE_WEIGHTS
from .decode import BOXES, CLASSES
from .model import flatten
from .spec import STRIDES, DetectorSpec

NEGATIVES = 3  # hard ones for each positive (SSD paper, 2.2)
FOCAL_ALPHA, FOCAL_GAMMA = 0.75, 2.0  # V3's configuration in OD
BOX_WEIGHT = 2.0  # of GIoU against the scores (TOOD; GFL)

Sizes = tuple[tuple[int, int], ...]


class Losses(NamedTuple):
    """What is minimised is the sum."""

    classes: Tensor
    boxes: Tensor


def detector_loss(
    spec: DetectorSpec,
    maps: Mapping[str, Tensor],
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    height: int,
    width: int,
) -> Losses:
    """The loss of a batch: raw maps, each picture's boxes (G, 4) in pixels of the input of height x
    width, and labels (G,) without background. A picture may have none."""
    scores = flatten(maps, CLASSES, spec.scores)
    raw = flatten(maps, BOXES, 4)
    sizes = tuple(
        (level.shape[2], level.shape[3]) for name, level in maps.items() if name.startswith(BOXES)
    )
    if spec.anchors is None:
        return point_loss(scores, raw, *_points(sizes), boxes, labels)
    anchors = _anchors(spec, sizes, height, width)
    loss = softmax_loss if spec.loss == "softmax" else focal_loss
    return loss(scores, raw, anchors, boxes, labels)


@lru_cache(maxsize=16)
def _anchors(spec: DetectorSpec, sizes: Sizes, height: int, width: int) -> Tensor:
    assert spec.anchors is not None
    return torch.from_numpy(anchor_boxes(spec.anchors, sizes, height=height, width=width))


@lru_cache(maxsize=16)
def _points(sizes: Sizes) -> tuple[Tensor, Tensor]:
    points, strides = point_grid(sizes, STRIDES)
    return torch.from_numpy(points), torch.from_numpy(strides)


# ---------------------------------------------------------------------------------- with anchors


def softmax_loss(
    scores: Tensor,
    raw: Tensor,
    anchors: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> Losses:
    """Softmax cross-entropy of the matched anchors and of the three times as many of a picture that
    are the most wrong of the others (SSD paper, 2.2; torchvision's `SSD.compute_loss`).

    `scores` (N, P, 1 + C), the background first; `raw` (N, P, 4); `anchors` (P, 4).
    """
    matched = [match(anchors, own) for own in boxes]
    wanted = torch.stack(
        [_wanted(index, own + 1) for index, own in zip(matched, labels, strict=True)]
    )
    cost = F.cross_entropy(scores.flatten(0, 1), wanted.flatten(), reduction="none")
    cost = cost.view(wanted.shape)
    positive = wanted > 0
    others = cost.detach().masked_fill(positive, -torch.inf)
    rank = others.argsort(1, descending=True).argsort(1)
    hard = rank < NEGATIVES * positive.sum(1, keepdim=True)
    count = positive.sum().clamp(min=1)
    classes = (cost[positive].sum() + cost[hard].sum()) / count
    return Losses(classes, _offsets(raw, anchors, matched, boxes) / count)


def focal_loss(
    scores: Tensor,
    raw: Tensor,
    anchors: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> Losses:
    """Sigmoid focal loss of every anchor (arXiv 1708.02002, Eq. 5); `scores` (N, P, C)."""
    matched = [match(anchors, own) for own in boxes]
    wanted = torch.stack(
        [_wanted(index, own + 1) for index, own in zip(matched, labels, strict=True)]
    )
    target = F.one_hot(wanted, scores.shape[2] + 1)[..., 1:].to(scores.dtype)
    cost = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    sure = scores.sigmoid()
    right = sure * target + (1 - sure) * (1 - target)
    alpha = FOCAL_ALPHA * target + (1 - FOCAL_ALPHA) * (1 - target)
    count = (wanted > 0).sum().clamp(min=1)
    classes = (alpha * (1 - right) ** FOCAL_GAMMA * cost).sum() / count
    return Losses(classes, _offsets(raw, anchors, matched, boxes) / count)


def _wanted(index: Tensor, labels: Tensor) -> Tensor:
    """The class of every anchor, 0 for the background."""
    if len(labels) == 0:
        return torch.zeros_like(index)
    return torch.where(index >= 0, labels[index.clamp(min=0)], 0)


def _offsets(
    raw: Tensor, anchors: Tensor, matched: Sequence[Tensor], boxes: Sequence[Tensor]
) -> Tensor:
    """Smooth L1 of the matched anchors' offsets, summed."""
    total = raw.new_zeros(())
    for own, index, truth in zip(raw, matched, boxes, strict=True):
        chosen = index >= 0
        if chosen.any():
            target = encode(truth[index[chosen]], anchors[chosen])
            total = total + F.smooth_l1_loss(own[chosen], target, reduction="sum")
    return total


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """As `boxes.encode`."""
    size, length = boxes[:, 2:] - boxes[:, :2], anchors[:, 2:] - anchors[:, :2]
    shift = (boxes[:, :2] + size / 2 - anchors[:, :2] - length / 2) / length
    return torch.cat([shift, torch.log(size / length)], 1) * boxes.new_tensor(CODE_WEIGHTS)


# ------------------------------------------------------------------------------- without anchors


def point_loss(
    scores: Tensor,
    raw: Tensor,
    points: Tensor,
    strides: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
) -> Losses:
    """Quality focal loss of every point (arXiv 2006.04388, Eq. 4) and GIoU of those with a box,
    each by its quality; assigned as `assign.align` does. `scores` (N, P, C); `raw` (N, P, 4)."""
    reach = F.softplus(raw) * strides[:, None]
    found = torch.cat([points - reach[..., :2], points + reach[..., 2:]], 2)
    target = torch.zeros_like(scores)
    box_cost = raw.new_zeros(())
    weight = raw.new_zeros(())
    sure = scores.detach().sigmoid()
    for picture, (truth, own) in enumerate(zip(boxes, labels, strict=True)):
        aligned = align(points, sure[picture], found[picture].detach(), truth, own)
        chosen = aligned.box >= 0
        if not chosen.any():
            continue
        index, quality = aligned.box[chosen], aligned.quality[chosen]
        target[picture, chosen, own[index]] = quality
        box_cost = box_cost + ((1 - giou(found[picture, chosen], truth[index])) * quality).sum()
        weight = weight + quality.sum()
    cost = F.binary_cross_entropy_with_logits(scores, target, reduction="none")
    distance = (scores.sigmoid() - target).abs() ** 2
    weight = weight.clamp(min=1)
    return Losses((distance * cost).sum() / weight, BOX_WEIGHT * box_cost / weight)


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU (N,) of pairs of boxes (N, 4) (arXiv 1902.09630)."""
    low, high = (
        torch.maximum(first[:, :2], second[:, :2]),
        torch.minimum(first[:, 2:], second[:, 2:]),
    )
    inside = (high - low).clamp(min=0).prod(1)
    area = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1)
    union = area - inside
    hull = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    around = hull.prod(1)
    return inside / union - (around - union) / around

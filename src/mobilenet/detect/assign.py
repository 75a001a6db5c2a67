"""Which box every anchor or point of a picture has to answer (PyTorch, without gradients)."""

from dataclasses import dataclass

import torch
from torch import Tensor

OVERLAP = 0.5  # IoU from which an anchor belongs to a box (SSD paper, 2.2)
# of a point's fitness, score^alpha IoU^beta, and how many points a box takes (arXiv 2108.07755, 4)
ALPHA, BETA, TOP = 1.0, 6.0, 13
_NONE = -1


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU (N, M) of boxes (N, 4) and (M, 4), corners."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(2)
    union = _area(first)[:, None] + _area(second)[None] - inside
    return inside / union


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


@torch.no_grad()
def match(
    anchors: Tensor, boxes: Tensor, *, overlap: float = OVERLAP, least: float = 0.0
) -> Tensor:
    """For each anchor (P, 4) the index of its box (G, 4), or -1: the box that it overlaps most, by
    at least `overlap` (IoU); and each box's best anchor is its own from an overlap of `least`."""
    if len(boxes) == 0:
        return torch.full((len(anchors),), _NONE)
    shared = pairwise_iou(boxes, anchors)
    most, chosen = shared.max(0)
    chosen[most < overlap] = _NONE
    own = shared.amax(1) >= least
    chosen[shared.argmax(1)[own]] = torch.arange(len(boxes))[own]
    return chosen


@dataclass(frozen=True, kw_only=True, eq=False)
class Aligned:
    """Index (P,) of each point's box, -1 for none, and the quality (P,) that its score should tell,
    0 to 1."""

    box: Tensor
    quality: Tensor


@torch.no_grad()
def align(points: Tensor, scores: Tensor, found: Tensor, boxes: Tensor, labels: Tensor) -> Aligned:
    """Task-aligned assignment (TOOD, arXiv 2108.07755, 3.2): each box takes the points inside it
    that answer it best already.

    `points` (P, 2); `scores` (P, C), probabilities; `found` (P, 4), the boxes answered; `boxes`
    (G, 4) and `labels` (G,), the truth. A box without a point inside has the nearest.
    """
    if len(boxes) == 0:
        return Aligned(box=torch.full((len(points),), _NONE), quality=torch.zeros(len(points)))
    low, high = points - boxes[:, None, :2], boxes[:, None, 2:] - points
    inside = torch.cat([low, high], 2).amin(2) > 0
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = torch.cdist(centres, points).argmin(1)
    rows = torch.arange(len(boxes))
    lonely = ~inside.any(1)
    inside[rows[lonely], nearest[lonely]] = True

    overlap = pairwise_iou(boxes, found).clamp(1e-6, 1)  # so that some point is always the best
    fitness = scores.T[labels] ** ALPHA * overlap**BETA * inside
    best = fitness.topk(min(TOP, len(points)), dim=1).indices
    taken = torch.zeros_like(inside).scatter_(1, best, True) & inside
    # a point of several boxes belongs to the one that it overlaps most
    shared = torch.where(taken, overlap, overlap.new_tensor(-1.0))
    most, chosen = shared.max(0)
    chosen[most < 0] = _NONE
    own = taken & (chosen == rows[:, None])
    share = fitness / (fitness * taken).amax(1, keepdim=True).clamp(min=1e-30)
    quality = share * (overlap * taken).amax(1, keepdim=True) * own
    return Aligned(box=chosen, quality=quality.amax(0).clamp(max=1.0))

"""What networks for poses learn from; targets are those of `targets`, in batches (N, C, h, w)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

REGRESSION = 0.1  # whole figures are many cells long, offsets a part of one


def single_loss(found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """For head "heatmap": squared error of the heatmaps (arXiv 1804.06208, 3), by keypoint and
    relative to the Gaussian's own mass so that its size does not matter, and of the offsets."""
    weight = targets["heatmaps_weight"]
    target = targets["heatmaps"]
    error = (weight * (found["heatmaps"] - target) ** 2).sum()
    mass = (weight * target**2).sum().clamp(min=1.0)
    return error / mass + masked_l1(found["offsets"], targets["offsets"], targets["offsets_weight"])


def centre_loss(found: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
    """For head "centre": focal loss of both kinds of heatmap, L1 of the offsets and the ways."""
    loss = torch.zeros((), device=found["centres"].device)
    for name in ("centres", "heatmaps"):
        loss = loss + focal(found[name], targets[name], targets[f"{name}_weight"])
    for name, share in (("offsets", 1.0), ("regression", REGRESSION)):
        loss = loss + share * masked_l1(found[name], targets[name], targets[f"{name}_weight"])
    return loss


def focal(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The penalty-reduced focal loss (arXiv 1904.07850, eq. 1) with alpha 2 and beta 4; cells whose
    target is 1 are positive, and the sum is divided by their number, at least 1."""
    positive = (target == 1).to(logits.dtype)
    chance = torch.sigmoid(logits)
    hit = positive * (1 - chance) ** 2 * F.softplus(-logits)
    miss = (1 - positive) * (1 - target) ** 4 * chance**2 * F.softplus(logits)
    return (weight * (hit + miss)).sum() / positive.sum().clamp(min=1.0)


def masked_l1(found: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The mean of the absolute error over the cells that count, 0 without one."""
    return (weight * (found - target).abs()).sum() / weight.sum().clamp(min=1.0)

"""What a segmenter learns from: cross-entropy over the pixels that are not void."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from .metric import VOID

AUXILIARY = 0.5  # torchvision's references/segmentation


def cross_entropy(scores: Tensor, masks: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """The mean over all pixels but void of the cross-entropy of `scores` (N, classes, h, w), taken
    to the size of `masks` (N, H, W), whole numbers; with `weights` (classes,) the weighted mean.

    Where all is void it is 0, not the nan of torch's.
    """
    scores = F.interpolate(scores, masks.shape[1:], mode="bilinear", align_corners=False)
    target = masks.long()
    total = F.cross_entropy(scores, target, weight=weights, ignore_index=VOID, reduction="sum")
    seen = target != VOID
    share = seen.sum() if weights is None else weights[target[seen]].sum()
    return total / share.clamp(min=torch.finfo(total.dtype).tiny)


def segment_loss(
    found: Mapping[str, Tensor],
    masks: Tensor,
    *,
    weights: Tensor | None = None,
    auxiliary: float = AUXILIARY,
) -> Tensor:
    """The loss of `Segmenter.scores`: "segments", and "auxiliary" at that weight where it is."""
    loss = cross_entropy(found["segments"], masks, weights=weights)
    if "auxiliary" in found:
        loss = loss + auxiliary * cross_entropy(found["auxiliary"], masks, weights=weights)
    return loss

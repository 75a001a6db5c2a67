"""Training a segmenter: batches of pictures and masks."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError
from ..heads import HeadTraining, Report, train_heads
from .loss import AUXILIARY, segment_loss
from .model import Segmenter


@dataclass(frozen=True, kw_only=True)
class SegmentTraining(HeadTraining):
    """`auxiliary` is the weight of the auxiliary head's loss, `class_weights` one a class, the
    background first."""

    auxiliary: float = AUXILIARY
    class_weights: tuple[float, ...] | None = None


def train_segmenter(
    segmenter: Segmenter,
    batches: Iterable[tuple[Tensor, Tensor]],
    options: SegmentTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train in place on (images (N, 3, H, W), masks (N, H, W) with 255 void); the averaged state
    dict. Otherwise as `train_heads`."""
    weights = (
        None
        if options.class_weights is None
        else torch.tensor(options.class_weights, dtype=torch.float32)
    )
    if weights is not None and len(weights) != segmenter.spec.classes:
        raise UsageError(
            f"class weights: {len(weights)} for {segmenter.spec.classes} classes, the "
            "background among them"
        )

    def loss_of(batch: tuple[Tensor, Tensor]) -> Tensor:
        images, masks = batch
        scores = segmenter.scores(images)
        return segment_loss(scores, masks, weights=weights, auxiliary=options.auxiliary)

    return train_heads(segmenter, batches, loss_of, options, report=report)

"""Training a detector: batches of pictures, boxes and labels."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from ..heads import HeadTraining, Report, train_heads
from .loss import detector_loss
from .model import Detector

Batch = tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]


def train_detector(
    detector: Detector,
    batches: Iterable[Batch],
    options: HeadTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train in place on (images (N, 3, H, W), N times boxes (G, 4) in pixels of the images, N times
    labels (G,)); the averaged state dict. Crowd boxes are left out by the caller.

    Otherwise as `train_heads`.
    """

    def loss_of(batch: Batch) -> Tensor:
        images, boxes, labels = batch
        height, width = images.shape[2:]
        found = detector_loss(
            detector.spec, detector(images), boxes, labels, height=height, width=width
        )
        return found.classes + found.boxes

    return train_heads(detector, batches, loss_of, options, report=report)

"""Training a detector of faces: batches of pictures and what is on them."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from ..heads import HeadTraining, Report, train_heads
from .loss import TrueFaces, face_loss
from .model import FaceDetector

Batch = tuple[Tensor, Sequence[TrueFaces]]


def train_faces(
    network: FaceDetector,
    batches: Iterable[Batch],
    options: HeadTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train in place on (images (N, 3, H, W), N times `TrueFaces`); the averaged state dict.

    Otherwise as `train_heads`. BlazeFace has no pretrained backbone: train it at `backbone_rate` 1.
    """

    def loss_of(batch: Batch) -> Tensor:
        images, truths = batch
        return face_loss(network.spec, network(images), truths).total

    return train_heads(network, batches, loss_of, options, report=report)

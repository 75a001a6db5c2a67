"""Training embeddings: people as classes, told apart by angles (ArcFace, arXiv 1801.07698)."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UsageError
from ..heads import HeadTraining, Report, train_heads
from .mobilefacenet import MobileFaceNet

Batch = tuple[Tensor, Tensor]


class ArcFace(nn.Module):
    """A centre for each of `people`, and the loss of embeddings (N, D) of length 1 against labels
    (N,): cross-entropy of `scale` times their cosines to all centres, the angle to their own
    widened by `margin` radians (Eq. 3).

    Beyond an angle of pi - margin its cosine would rise again; there it goes on falling as
    cos(angle) - margin sin(margin), as the authors' code has it.
    """

    def __init__(
        self, dimension: int, people: int, *, scale: float = 64.0, margin: float = 0.5
    ) -> None:
        super().__init__()
        if people < 2 or not scale > 0 or not 0 <= margin < math.pi / 2:
            raise UsageError(
                f"people {people}, scale {scale}, margin {margin}: expected at least 2, above 0 "
                "and from 0 to below pi / 2"
            )
        self.scale, self.margin = scale, margin
        self.centres = nn.Parameter(torch.empty(people, dimension))
        nn.init.normal_(self.centres, 0.0, 0.01)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        cosine = F.linear(embeddings, F.normalize(self.centres)).clamp(-1, 1)
        own = cosine.gather(1, labels[:, None])
        widened = arc(own, self.margin)
        return F.cross_entropy(self.scale * cosine.scatter(1, labels[:, None], widened), labels)


def arc(cosine: Tensor, margin: float) -> Tensor:
    """cos(angle + margin) of cosines, and cos(angle) - margin sin(margin) beyond pi - margin."""
    # the slope of the root has no end at a sine of 0
    sine = (1 - cosine**2).clamp(min=1e-12).sqrt()
    moved = cosine * math.cos(margin) - sine * math.sin(margin)
    beyond = cosine - margin * math.sin(margin)
    return torch.where(cosine > math.cos(math.pi - margin), moved, beyond)


class _Training(nn.Module):
    """The network under the name by which `train_heads` knows a backbone."""

    def __init__(self, network: MobileFaceNet, people: ArcFace) -> None:
        super().__init__()
        self.backbone = network
        self.people = people

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.people(self.backbone(images), labels)


def train_embedding(
    network: MobileFaceNet,
    people: ArcFace,
    batches: Iterable[Batch],
    options: HeadTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train both in place on (aligned faces (N, 3, size, size), labels (N,)); the network's
    averaged state dict.

    The network learns at `backbone_rate` times `lr`, which is 1 from scratch, the centres at `lr`.
    Otherwise as `train_heads`.
    """
    training = _Training(network, people)

    def loss_of(batch: Batch) -> Tensor:
        return training(*batch)

    average = train_heads(training, batches, loss_of, options, report=report)
    own = "backbone."
    return {key.removeprefix(own): value for key, value in average.items() if key.startswith(own)}

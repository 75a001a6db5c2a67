"""What a face detector's raw maps cost against the truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..detect import BOXES, CLASSES
from ..detect.assign import match
from ..detect.boxes import CODE_WEIGHTS
from ..detect.loss import encode
from ..detect.model import flatten
from ..errors import DataError
from ..program import Floats
from .anchors import face_anchors
from .decode import LANDMARKS
from .spec import FaceSpec

# of an anchor with its face: from where it answers for it, and how little the best one may overlap
# it (RetinaFace's authors' code)
OVERLAP, LEAST = 0.35, 0.2
NEGATIVES = 7  # hard ones for each positive (there too)
BOX_WEIGHT = 2.0  # against the scores and the landmarks (there too)
COVERED = 0.5  # share of an anchor in an ignored box from where nothing is learnt of it

Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrueFaces:
    """The faces of one picture: boxes (G, 4) in pixels of the input; landmarks (G, K, 3), x, y and
    0 for those that are not labelled; and ignored (M, 4), boxes that are neither faces nor none."""

    boxes: Tensor
    landmarks: Tensor
    ignored: Tensor

    @classmethod
    def of(
        cls, boxes: Floats, crowd: NDArray[np.bool_], keypoints: Floats | None, *, landmarks: int
    ) -> "TrueFaces":
        """From a scene's arrays: boxes (N, 4); crowd (N,), which become the ignored ones; keypoints
        (N, landmarks, 3), None where no landmark is labelled."""
        points = np.zeros((len(boxes), landmarks, 3)) if keypoints is None else keypoints
        return cls(
            boxes=torch.tensor(boxes[~crowd], dtype=torch.float32),
            landmarks=torch.tensor(points[~crowd], dtype=torch.float32),
            ignored=torch.tensor(boxes[crowd], dtype=torch.float32),
        )


class FaceLosses(NamedTuple):
    """Means over the anchors with a face; what is minimised is `total`."""

    classes: Tensor
    boxes: Tensor
    landmarks: Tensor

    @property
    def total(self) -> Tensor:
        return self.classes + BOX_WEIGHT * self.boxes + self.landmarks


def face_loss(
    spec: FaceSpec, maps: Mapping[str, Tensor], truths: Sequence[TrueFaces]
) -> FaceLosses:
    """The loss of a batch of raw maps. A picture may have no face, a face no landmark.

    Scores: cross-entropy of the anchors with a face and of the seven times as many of a picture
    that are the most wrong of the others, seven where there is no face. Boxes and landmarks: smooth
    L1 of their offsets, of the landmarks that are labelled. Faces smaller than the
    anchors can tell (IoU below 0.2 with each) are not learnt.

    Raises DataError for a face without width or height, or with another number of landmarks.
    """
    for index, truth in enumerate(truths):
        _check(spec, truth, index)
    scores = flatten(maps, CLASSES, 1)[..., 0]
    raw = flatten(maps, BOXES, 4)
    points = flatten(maps, LANDMARKS, 2 * spec.landmarks)
    points = points.view(*points.shape[:2], spec.landmarks, 2)
    sizes = tuple(
        (level.shape[2], level.shape[3]) for name, level in maps.items() if name.startswith(BOXES)
    )
    anchors = _anchors(spec, sizes)
    matched = torch.stack(
        [match(anchors, truth.boxes, overlap=OVERLAP, least=LEAST) for truth in truths]
    )
    positive = matched >= 0
    ignored = torch.stack([covered(anchors, truth.ignored) for truth in truths])
    background = ~(positive | ignored)
    count = positive.sum().clamp(min=1)

    cost = F.binary_cross_entropy_with_logits(scores, positive.to(scores.dtype), reduction="none")
    others = cost.detach().masked_fill(~background, -torch.inf)
    rank = others.argsort(1, descending=True).argsort(1)
    hard = rank < NEGATIVES * positive.sum(1, keepdim=True).clamp(min=1)
    classes = (cost[positive].sum() + cost[hard & background].sum()) / count

    boxes, landmarks = raw.new_zeros(()), raw.new_zeros(())
    for picture, truth in enumerate(truths):
        chosen = positive[picture]
        if not chosen.any():
            continue
        index, near = matched[picture, chosen], anchors[chosen]
        target = encode(truth.boxes[index], near)
        boxes = boxes + F.smooth_l1_loss(raw[picture, chosen], target, reduction="sum")
        wanted = encode_landmarks(truth.landmarks[index, :, :2], near)
        labelled = truth.landmarks[index, :, 2] > 0
        found = points[picture, chosen]
        landmarks = landmarks + F.smooth_l1_loss(found[labelled], wanted[labelled], reduction="sum")
    return FaceLosses(classes, boxes / count, landmarks / count)


def encode_landmarks(points: Tensor, anchors: Tensor) -> Tensor:
    """As `anchors.encode_landmarks`."""
    sides = (anchors[:, 2:] - anchors[:, :2])[:, None]
    middles = (anchors[:, 2:] + anchors[:, :2])[:, None] / 2
    return (points - middles) / sides * CODE_WEIGHTS[0]


def covered(anchors: Tensor, ignored: Tensor) -> Tensor:
    """Which anchors (P, 4) lie to a half or more in one of the boxes (M, 4)."""
    if len(ignored) == 0:
        return torch.zeros(len(anchors), dtype=torch.bool)
    low = torch.maximum(anchors[:, None, :2], ignored[None, :, :2])
    high = torch.minimum(anchors[:, None, 2:], ignored[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(2)
    whole = (anchors[:, 2:] - anchors[:, :2]).prod(1)
    return inside.amax(1) >= COVERED * whole


def _check(spec: FaceSpec, truth: TrueFaces, picture: int) -> None:
    where = f"picture {picture} of the batch"
    count = len(truth.boxes)
    if truth.landmarks.shape != (count, spec.landmarks, 3):
        raise DataError(
            f"{where}: landmarks {tuple(truth.landmarks.shape)} of {count} faces: expected "
            f"{(count, spec.landmarks, 3)}, x, y and 0 for not labelled"
        )
    low, high = truth.boxes[:, :2], truth.boxes[:, 2:]
    wrong = ~(torch.isfinite(truth.boxes).all(1) & (high > low).all(1))
    if wrong.any():
        index = int(wrong.nonzero()[0])
        raise DataError(
            f"{where}: face {index}, {truth.boxes[index].tolist()}, has no width or height; leave "
            "it out, or hand it over as ignored"
        )
    labelled = truth.landmarks[..., 2] > 0
    if not torch.isfinite(truth.landmarks[labelled]).all():
        raise DataError(f"{where}: labelled landmarks that are no numbers; mark them 0")


@lru_cache(maxsize=16)
def _anchors(spec: FaceSpec, sizes: Sizes) -> Tensor:
    return torch.from_numpy(face_anchors(spec, sizes))

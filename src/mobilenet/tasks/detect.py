"""Detection, as the verbs need it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..detect import DecodeRules, Detections, DetectorSpec, decode_maps
from ..detect.boxes import iou
from ..detect.metric import DetectionCount
from ..networks import Rules, SceneSpec, Task
from ..program import Floats
from ..scenes import SceneData
from ..scenes.augment import distort, iou_crop, jitter_scale, mirror
from ..scenes.draw import draw_boxes
from ..scenes.sample import Sample
from .reading import Example
from .task import Ints, Maps, SceneScores, Size, share

if TYPE_CHECKING:
    from torch import Tensor, nn

SHOWN = 0.3  # scores from which boxes are drawn and compared
_SAME = 0.5  # IoU
_SMALLER = (0.5, 1.0)  # scales of samples that are made smaller, on grey


@dataclass(frozen=True, kw_only=True, eq=False)
class _Target:
    boxes: Floats
    labels: Ints


@dataclass(frozen=True, kw_only=True, eq=False)
class _Truth:
    boxes: Floats
    labels: Ints
    areas: Floats
    crowd: np.ndarray


class _DetectionTally:
    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._truths: list[_Truth] = []
        self._found: list[Detections] = []
        self._counted: DetectionCount | None = None

    def add(self, example: Example, sample: Sample, found: Detections) -> None:
        truth = _Truth(
            boxes=sample.boxes, labels=sample.labels, areas=example.areas, crowd=sample.crowd
        )
        self._truths.append(truth)
        self._found.append(found)
        self._counted = None

    def scores(self) -> SceneScores:
        found = self._count().scores()
        figures = {
            "mAP": found.ap,
            "mAP50": found.ap50,
            "mAP75": found.ap75,
            "mAP_small": found.ap_small,
            "mAP_medium": found.ap_medium,
            "mAP_large": found.ap_large,
            "AR": found.ar,
        }
        per_class = zip(self._labels, found.per_class, found.per_class50, strict=True)
        return SceneScores(
            primary="mAP",
            figures={name: share(value) for name, value in figures.items()},
            per_class={
                label: {"mAP": share(whole), "mAP50": share(half)}
                for label, whole, half in per_class
            },
            n=len(self._truths),
        )

    def resampled(self, rows: Ints) -> float:
        return self._count().resampled(rows)

    def _count(self) -> DetectionCount:
        if self._counted is None:
            self._counted = DetectionCount(self._truths, self._found, classes=len(self._labels))
        return self._counted


class _Detect:
    name: Task = "detect"
    mask = False

    def spec_for(self, named: SceneSpec, data: SceneData, size: int) -> DetectorSpec:
        assert isinstance(named, DetectorSpec)
        return replace(named, classes=len(data.classes), size=size)

    def labels(self, data: SceneData) -> tuple[str, ...]:
        return data.classes

    def rules(self, spec: SceneSpec, data: SceneData) -> DecodeRules:
        return DecodeRules()

    def windowed(self, spec: SceneSpec) -> bool:
        return False

    def vary(self, sample: Sample, rng: np.random.Generator, size: int, rules: Rules) -> Sample:
        draw = rng.random()
        if draw < 0.6:
            sample = iou_crop(sample, rng)
        elif draw < 0.8:
            sample = jitter_scale(sample, size, size, rng, scale=_SMALLER)
        if rng.random() < 0.5:
            sample = mirror(sample)
        return replace(sample, picture=distort(sample.picture, rng))

    def target(self, spec: SceneSpec, sample: Sample) -> _Target:
        own = sample.only(np.flatnonzero(~sample.crowd))
        return _Target(boxes=own.boxes.astype(np.float32), labels=own.labels.astype(np.int64))

    def loss(self, network: "nn.Module", images: "Tensor", targets: Sequence[Any]) -> "Tensor":
        import torch

        from ..detect.loss import detector_loss
        from ..detect.model import Detector

        assert isinstance(network, Detector)
        height, width = images.shape[2:]
        found = detector_loss(
            network.spec,
            network(images),
            [torch.from_numpy(target.boxes).to(images.device) for target in targets],
            [torch.from_numpy(target.labels).to(images.device) for target in targets],
            height=height,
            width=width,
        )
        return found.classes + found.boxes

    def decode(
        self, spec: SceneSpec, rules: Rules, maps: Maps, sizes: Sequence[Size], side: int
    ) -> list[Detections]:
        assert isinstance(spec, DetectorSpec)
        assert isinstance(rules, DecodeRules)
        found = decode_maps(spec, maps, height=side, width=side, rules=rules)
        return [
            replace(one, boxes=one.boxes * np.array([*size, *size], np.float32) / np.float32(side))
            for one, size in zip(found, sizes, strict=True)
        ]

    def agreement(self, found: Detections, other: Detections) -> tuple[float, float]:
        """Boxes with a score of at least 0.3 in either; the same where the label is and the IoU is
        at least 0.5, each matched once."""
        one, two = sure(found), sure(other)
        same = iou(one.boxes, two.boxes) * (one.labels[:, None] == two.labels)
        matched = 0
        while same.size and same.max() >= _SAME:
            row, column = np.unravel_index(same.argmax(), same.shape)
            same[row, :] = same[:, column] = 0
            matched += 1
        return float(matched), float(len(one.boxes) + len(two.boxes) - matched)

    def tally(self, spec: SceneSpec, rules: Rules, labels: Sequence[str]) -> _DetectionTally:
        return _DetectionTally(labels)

    def to_json(self, found: Detections, labels: Sequence[str], rules: Rules) -> dict[str, Any]:
        predictions = [
            {
                "label": labels[label],
                "score": float(score),
                "box": [round(float(end), 2) for end in box],
            }
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
        ]
        return {"predictions": predictions}

    def draw(
        self, picture: Image.Image, found: Detections, labels: Sequence[str], rules: Rules
    ) -> Image.Image:
        one = sure(found)
        whole = (one.boxes[:, 2:] > one.boxes[:, :2]).all(1)
        return draw_boxes(picture, one.boxes[whole], one.labels[whole], labels, one.scores[whole])

    def describe(self, found: Detections, labels: Sequence[str]) -> str:
        one = sure(found)
        named = [
            f"{labels[label]} {100 * score:.0f} % at "
            + ",".join(f"{end:.0f}" for end in box.tolist())
            for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
        ]
        return "; ".join(named) or f"nothing with a score of {SHOWN} or more"


def sure(found: Detections) -> Detections:
    """Those with a score of at least `SHOWN`."""
    kept = found.scores >= SHOWN
    return Detections(boxes=found.boxes[kept], scores=found.scores[kept], labels=found.labels[kept])


DETECT = _Detect()

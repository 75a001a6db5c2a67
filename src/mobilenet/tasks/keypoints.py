"""Poses, as the verbs need them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..keypoints import (
    KeypointRules,
    KeypointSpec,
    People,
    TruePeople,
    centre_targets,
    decode_people,
    decode_single,
    keypoint_scores,
    sigmas_of,
    single_targets,
)
from ..networks import Rules, SceneSpec, Task
from ..program import Floats
from ..scenes import SceneData
from ..scenes.augment import distort, jitter_scale, mirror
from ..scenes.draw import draw_keypoints
from ..scenes.sample import Sample
from .reading import Example
from .task import Ints, Maps, SceneScores, Size, share

if TYPE_CHECKING:
    from torch import Tensor, nn

SHOWN = 0.2  # scores from which a keypoint is drawn and compared
_NEAR = 0.1  # of a figure's size: keypoints as near as this are the same
_SCALES = (0.75, 1.33)


class _KeypointTally:
    def __init__(self, rules: KeypointRules) -> None:
        self._sigmas = rules.sigmas
        self._truths: list[TruePeople] = []
        self._found: list[People] = []

    def add(self, example: Example, sample: Sample, found: People) -> None:
        assert sample.keypoints is not None
        truth = TruePeople(
            keypoints=sample.keypoints, boxes=sample.boxes, areas=example.areas, crowd=sample.crowd
        )
        self._truths.append(truth)
        self._found.append(found)

    def scores(self) -> SceneScores:
        found = keypoint_scores(self._truths, self._found, sigmas=self._sigmas)
        figures = {
            "AP": found.ap,
            "AP50": found.ap50,
            "AP75": found.ap75,
            "AP_medium": found.ap_medium,
            "AP_large": found.ap_large,
            "AR": found.ar,
        }
        return SceneScores(
            primary="AP",
            figures={name: share(value) for name, value in figures.items()},
            per_class={},
            n=len(self._truths),
        )

    def resampled(self, rows: Ints) -> float:
        truths, found = [self._truths[row] for row in rows], [self._found[row] for row in rows]
        ap = keypoint_scores(truths, found, sigmas=self._sigmas).ap
        return float("nan") if ap is None else ap


class _Keypoints:
    name: Task = "keypoints"
    mask = False

    def spec_for(self, named: SceneSpec, data: SceneData, size: int) -> KeypointSpec:
        assert isinstance(named, KeypointSpec)
        if not data.keypoints:
            raise DataError(f"{data.source}: no named keypoints; detect or segment instead")
        return replace(named, keypoints=len(data.keypoints))

    def labels(self, data: SceneData) -> tuple[str, ...]:
        return data.classes

    def rules(self, spec: SceneSpec, data: SceneData) -> KeypointRules:
        return KeypointRules(
            names=data.keypoints,
            skeleton=tuple((first, second) for first, second in data.skeleton),
            flipped=tuple(data.flipped),
            sigmas=sigmas_of(data.keypoints),
        )

    def windowed(self, spec: SceneSpec) -> bool:
        assert isinstance(spec, KeypointSpec)
        return spec.head == "heatmap"

    def vary(self, sample: Sample, rng: np.random.Generator, size: int, rules: Rules) -> Sample:
        assert isinstance(rules, KeypointRules)
        sample = jitter_scale(sample, size, size, rng, scale=_SCALES)
        if rules.flipped and rng.random() < 0.5:
            sample = mirror(sample, rules.flipped)
        return replace(sample, picture=distort(sample.picture, rng))

    def target(self, spec: SceneSpec, sample: Sample) -> dict[str, Floats]:
        assert isinstance(spec, KeypointSpec)
        width, height = sample.size
        points = sample.keypoints
        if points is None:
            points = np.zeros((len(sample.boxes), spec.keypoints, 3), np.float32)
        if spec.head == "heatmap":
            one = points[0] if len(points) else np.zeros((spec.keypoints, 3), np.float32)
            return single_targets(one, height, width)
        own = ~sample.crowd
        return centre_targets(
            points[own], sample.boxes[own], height, width, ignored=sample.boxes[sample.crowd]
        )

    def loss(self, network: "nn.Module", images: "Tensor", targets: Sequence[Any]) -> "Tensor":
        import torch

        from ..keypoints.loss import centre_loss, single_loss
        from ..keypoints.model import KeypointNetwork

        assert isinstance(network, KeypointNetwork)
        stacked = {
            name: torch.from_numpy(np.stack([target[name] for target in targets])).to(images.device)
            for name in targets[0]
        }
        loss = single_loss if network.spec.head == "heatmap" else centre_loss
        return loss(network(images), stacked)

    def decode(
        self, spec: SceneSpec, rules: Rules, maps: Maps, sizes: Sequence[Size], side: int
    ) -> list[People]:
        assert isinstance(spec, KeypointSpec)
        assert isinstance(rules, KeypointRules)
        if spec.head == "heatmap":
            points = decode_single(maps)
            found = [People(keypoints=one[None], scores=one[None, :, 2].mean(1)) for one in points]
        else:
            found = decode_people(maps, limit=rules.limit, threshold=rules.threshold)
        return [
            replace(one, keypoints=one.keypoints * np.array([w / side, h / side, 1], np.float32))
            for one, (w, h) in zip(found, sizes, strict=True)
        ]

    def agreement(self, found: People, other: People) -> tuple[float, float]:
        """Keypoints with a score of at least 0.2 of each person in either; the same where they are
        nearer than a tenth of the figure's size. People are paired by their nearest, once each."""
        total = sum(float((one.keypoints[..., 2] >= SHOWN).sum()) for one in (found, other))
        same, free = 0.0, list(range(len(other.scores)))
        for person in found.keypoints:
            if not free:
                break
            apart = [np.abs(other.keypoints[i, :, :2] - person[:, :2]).mean() for i in free]
            beside = other.keypoints[free.pop(int(np.argmin(apart)))]
            seen = (person[:, 2] >= SHOWN) & (beside[:, 2] >= SHOWN)
            size = max(float(np.ptp(person[:, :2], axis=0).max()), 1.0)
            near = np.hypot(*(person[:, :2] - beside[:, :2]).T) <= _NEAR * size
            same += float((seen & near).sum())
        return same, total - same

    def tally(self, spec: SceneSpec, rules: Rules, labels: Sequence[str]) -> _KeypointTally:
        assert isinstance(rules, KeypointRules)
        return _KeypointTally(rules)

    def to_json(self, found: People, labels: Sequence[str], rules: Rules) -> dict[str, Any]:
        assert isinstance(rules, KeypointRules)
        people = [
            {
                "label": labels[0],
                "score": float(score),
                "keypoints": {
                    name: [round(float(number), 4) for number in point]
                    for name, point in zip(rules.names, points, strict=True)
                },
            }
            for points, score in zip(found.keypoints, found.scores, strict=True)
        ]
        return {"predictions": people}

    def draw(
        self, picture: Image.Image, found: People, labels: Sequence[str], rules: Rules
    ) -> Image.Image:
        assert isinstance(rules, KeypointRules)
        seen = found.keypoints[found.scores >= SHOWN].copy()
        seen[..., 2] = np.where(seen[..., 2] >= SHOWN, 2, 0)
        return draw_keypoints(picture, seen, rules.skeleton)

    def describe(self, found: People, labels: Sequence[str]) -> str:
        sure = found.scores[found.scores >= SHOWN]
        return ", ".join(f"{labels[0]} {100 * score:.0f} %" for score in sure) or "nobody"


KEYPOINTS = _Keypoints()

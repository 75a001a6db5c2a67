"""Finding faces, as the verbs need it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..detect.boxes import iou
from ..faces import (
    HEIGHTS,
    RULES,
    FaceRules,
    Faces,
    FaceSpec,
    JudgedFaces,
    blazeface_anchors,
    box_side,
    decode_faces,
    interocular,
    judge_faces,
    landmark_error,
    pair_faces,
    score_faces,
)
from ..networks import Rules, SceneSpec, Task
from ..program import Floats
from ..scenes import SceneData
from ..scenes.augment import distort, jitter_scale, mirror, square_crop
from ..scenes.draw import draw_boxes, draw_keypoints
from ..scenes.sample import Sample
from .reading import Example
from .task import Ints, Maps, SceneScores, Size, share

if TYPE_CHECKING:
    from torch import Tensor, nn

Doubles = NDArray[np.float64]
SHOWN = 0.3  # scores from which faces are drawn and compared
LEAST = 0.02  # scores from which they are found: precision is of unsure ones too
_SAME = 0.5  # IoU
_SMALLER = (0.4, 1.0)  # scales of samples that are made smaller, on grey
_SEEN = 1.0  # pixels of the input, of either side: smaller faces are neither faces nor none


@dataclass(frozen=True, kw_only=True, eq=False)
class _Target:
    boxes: Floats
    ignored: np.ndarray
    keypoints: Floats | None


class _FaceTally:
    """`AP` is of all faces. Those of AP_easy, AP_medium and AP_hard are at least so many pixels of
    their picture high (`HEIGHTS`). `landmark_error`: the mean over faces found whose landmarks are
    labelled, over the distance of their eyes; without two eyes among the landmarks, over the side
    of a square as large as the box."""

    def __init__(self, names: Sequence[str]) -> None:
        self._eyes = [place for place, name in enumerate(names) if "eye" in name.lower()]
        self._landmarks = len(names)
        self._judged: dict[str, list[JudgedFaces]] = {name: [] for name in ("AP", *_BY_HEIGHT)}
        self._errors: list[Doubles] = []

    def add(self, example: Example, sample: Sample, found: Faces) -> None:
        heights = sample.boxes[:, 3] - sample.boxes[:, 1]
        for name, least in {"AP": 0.0, **_BY_HEIGHT}.items():
            counted = ~sample.crowd & (heights >= least)
            self._judged[name].append(judge_faces(sample.boxes, counted, found))
        if self._landmarks and sample.keypoints is not None:
            self._errors.append(self._landmark_errors(sample, found))

    def scores(self) -> SceneScores:
        found = {name: score_faces(judged).ap for name, judged in self._judged.items()}
        errors = np.concatenate([np.zeros(0), *self._errors])
        if self._landmarks:
            found["landmark_error"] = float(errors.mean()) if len(errors) else float("nan")
        return SceneScores(
            primary="AP",
            figures={name: share(value) for name, value in found.items()},
            per_class={},
            n=len(self._judged["AP"]),
        )

    def resampled(self, rows: Ints) -> float:
        return score_faces([self._judged["AP"][row] for row in rows]).ap

    def _landmark_errors(self, sample: Sample, found: Faces) -> Doubles:
        """Of the faces that were found and whose landmarks are labelled, float64 (N,)."""
        assert sample.keypoints is not None
        own = np.flatnonzero(~sample.crowd)
        rows, places = pair_faces(sample.boxes[own], found)
        truth, marks = sample.keypoints[own[rows]], found.landmarks[places]
        sizes = box_side(sample.boxes[own[rows]])
        if len(self._eyes) == 2:
            eyes = truth[:, self._eyes]
            sizes = np.where((eyes[..., 2] > 0).all(1), interocular(eyes), 0)
        known = (truth[..., 2] > 0).any(1) & (sizes > 0)
        return landmark_error(marks[known], truth[known], sizes[known])


_BY_HEIGHT = {f"AP_{name}": least for name, least in HEIGHTS.items()}


class _Faces:
    name: Task = "faces"
    mask = False

    def spec_for(self, named: SceneSpec, data: SceneData, size: int) -> FaceSpec:
        assert isinstance(named, FaceSpec)
        landmarks = len(data.keypoints) or named.landmarks
        anchors = blazeface_anchors(size) if named.head == "blazeface" else named.anchors
        return replace(named, size=size, landmarks=landmarks, anchors=anchors)

    def labels(self, data: SceneData) -> tuple[str, ...]:
        return data.classes

    def rules(self, spec: SceneSpec, data: SceneData) -> FaceRules:
        assert isinstance(spec, FaceSpec)
        return replace(
            RULES[spec.head],
            threshold=LEAST,
            names=tuple(data.keypoints),
            flipped=tuple(data.flipped),
        )

    def windowed(self, spec: SceneSpec) -> bool:
        return False

    def vary(self, sample: Sample, rng: np.random.Generator, size: int, rules: Rules) -> Sample:
        assert isinstance(rules, FaceRules)
        draw = rng.random()
        if draw < 0.4:
            sample = square_crop(sample, rng)
        elif draw < 0.8:
            sample = jitter_scale(sample, size, size, rng, scale=_SMALLER)
        if (rules.flipped or not rules.names) and rng.random() < 0.5:
            sample = mirror(sample, rules.flipped)
        return replace(sample, picture=distort(sample.picture, rng))

    def target(self, spec: SceneSpec, sample: Sample) -> _Target:
        boxes = sample.boxes.astype(np.float32)
        tiny = (boxes[:, 2:] - boxes[:, :2] < _SEEN).any(1)
        return _Target(boxes=boxes, ignored=sample.crowd | tiny, keypoints=sample.keypoints)

    def loss(self, network: "nn.Module", images: "Tensor", targets: Sequence[Any]) -> "Tensor":
        from ..faces.loss import TrueFaces, face_loss
        from ..faces.model import FaceDetector

        assert isinstance(network, FaceDetector)
        truths = [
            TrueFaces.of(
                target.boxes,
                target.ignored,
                target.keypoints,
                landmarks=network.spec.landmarks,
            )
            for target in targets
        ]
        return face_loss(network.spec, network(images), truths).total

    def decode(
        self, spec: SceneSpec, rules: Rules, maps: Maps, sizes: Sequence[Size], side: int
    ) -> list[Faces]:
        assert isinstance(spec, FaceSpec)
        assert isinstance(rules, FaceRules)
        found = decode_faces(spec, maps, height=side, width=side, rules=rules)
        shares = [np.array(size, np.float32) / np.float32(side) for size in sizes]
        return [
            replace(one, boxes=one.boxes * np.tile(share, 2), landmarks=one.landmarks * share)
            for one, share in zip(found, shares, strict=True)
        ]

    def agreement(self, found: Faces, other: Faces) -> tuple[float, float]:
        """Faces with a score of at least 0.3 in either; the same where the IoU is at least 0.5,
        each matched once."""
        one, two = sure(found), sure(other)
        same, matched = iou(one.boxes, two.boxes), 0
        while same.size and same.max() >= _SAME:
            row, column = np.unravel_index(same.argmax(), same.shape)
            same[row, :] = same[:, column] = 0
            matched += 1
        return float(matched), float(len(one.boxes) + len(two.boxes) - matched)

    def tally(self, spec: SceneSpec, rules: Rules, labels: Sequence[str]) -> _FaceTally:
        assert isinstance(rules, FaceRules)
        return _FaceTally(rules.names)

    def to_json(self, found: Faces, labels: Sequence[str], rules: Rules) -> dict[str, Any]:
        assert isinstance(rules, FaceRules)
        predictions = []
        for box, score, points in zip(found.boxes, found.scores, found.landmarks, strict=True):
            face: dict[str, Any] = {
                "label": labels[0],
                "score": float(score),
                "box": [round(float(end), 2) for end in box],
            }
            if rules.names:
                face["landmarks"] = {
                    name: [round(float(end), 2) for end in point]
                    for name, point in zip(rules.names, points, strict=True)
                }
            predictions.append(face)
        return {"predictions": predictions}

    def draw(
        self, picture: Image.Image, found: Faces, labels: Sequence[str], rules: Rules
    ) -> Image.Image:
        assert isinstance(rules, FaceRules)
        one = sure(found)
        whole = (one.boxes[:, 2:] > one.boxes[:, :2]).all(1)
        classes = np.zeros(int(whole.sum()), np.int64)
        drawn = draw_boxes(picture, one.boxes[whole], classes, labels, one.scores[whole])
        if not rules.names:
            return drawn
        seen = np.full((*one.landmarks.shape[:2], 1), 2, np.float32)
        return draw_keypoints(drawn, np.concatenate([one.landmarks, seen], 2))

    def describe(self, found: Faces, labels: Sequence[str]) -> str:
        one = sure(found)
        named = [
            f"{labels[0]} {100 * score:.0f} % at " + ",".join(f"{end:.0f}" for end in box.tolist())
            for box, score in zip(one.boxes, one.scores, strict=True)
        ]
        return "; ".join(named) or f"no face with a score of {SHOWN} or more"


def sure(found: Faces) -> Faces:
    """Those with a score of at least `SHOWN`."""
    kept = found.scores >= SHOWN
    return Faces(
        boxes=found.boxes[kept], scores=found.scores[kept], landmarks=found.landmarks[kept]
    )


FACES = _Faces()

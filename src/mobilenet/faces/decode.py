"""From the maps that a face detector answers to faces: what the device does behind it (NumPy)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..detect import BOXES, CLASSES, nms
from ..detect.boxes import area, clip, decode, iou
from ..detect.decode import flatten, map_sizes, sigmoid
from ..program import Floats
from .anchors import decode_landmarks, face_anchors
from .rules import RULES, FaceRules
from .spec import FaceSpec

LANDMARKS = "landmarks"


@dataclass(frozen=True, kw_only=True, eq=False)
class Faces:
    """What was found in one picture, the surest first: boxes (N, 4) in pixels, scores (N,) from 0
    to 1, and landmarks (N, K, 2), x and y in pixels, which may lie outside the picture."""

    boxes: Floats
    scores: Floats
    landmarks: Floats


def suppress(faces: Faces, overlap: float) -> Faces:
    """The faces that no surer one kept overlaps by more than `overlap` (IoU)."""
    kept = nms(faces.boxes, faces.scores, overlap)
    return Faces(
        boxes=faces.boxes[kept], scores=faces.scores[kept], landmarks=faces.landmarks[kept]
    )


def blend(faces: Faces, overlap: float) -> Faces:
    """The surest face and all that overlap it by more than `overlap` (IoU) become their mean,
    weighted by their scores, with the surest's score; then the same with what is left."""
    left = np.argsort(-faces.scores, kind="stable")
    boxes, scores, landmarks = [], [], []
    while len(left):
        near = iou(faces.boxes[left[:1]], faces.boxes[left])[0] > overlap
        near[0] = True
        own = left[near]
        weights = faces.scores[own] / faces.scores[own].sum()
        boxes.append(np.einsum("n,nc->c", weights, faces.boxes[own]))
        landmarks.append(np.einsum("n,nkc->kc", weights, faces.landmarks[own]))
        scores.append(faces.scores[own[0]])
        left = left[~near]
    return Faces(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        landmarks=np.array(landmarks, np.float32).reshape(-1, *faces.landmarks.shape[1:]),
    )


_MERGES: dict[str, Callable[[Faces, float], Faces]] = {"nms": suppress, "blend": blend}


def decode_faces(
    spec: FaceSpec,
    maps: Mapping[str, Floats],
    *,
    height: int,
    width: int,
    rules: FaceRules | None = None,
) -> list[Faces]:
    """Faces in each of N pictures of height x width pixels, in those pixels; `rules` None: the
    head's. Boxes are cut to the picture, and left out where nothing of them is in it."""
    rules = rules or RULES[spec.head]
    anchors = _anchors(spec, map_sizes(maps))
    scores = sigmoid(flatten(maps, CLASSES, 1)[..., 0])
    raw = flatten(maps, BOXES, 4)
    points = flatten(maps, LANDMARKS, 2 * spec.landmarks)
    points = points.reshape(*points.shape[:2], spec.landmarks, 2)
    found = []
    for own, offsets, marks in zip(scores, raw, points, strict=True):
        rows = np.flatnonzero(own > rules.threshold)
        rows = rows[np.argsort(-own[rows], kind="stable")][: rules.top]
        boxes = clip(decode(offsets[rows], anchors[rows]), width, height)
        inside = area(boxes) > 0
        rows = rows[inside]
        likely = Faces(
            boxes=boxes[inside],
            scores=own[rows],
            landmarks=decode_landmarks(marks[rows], anchors[rows]),
        )
        merged = _MERGES[rules.merge](likely, rules.overlap)
        found.append(
            Faces(
                boxes=merged.boxes[: rules.most],
                scores=merged.scores[: rules.most],
                landmarks=merged.landmarks[: rules.most],
            )
        )
    return found


@lru_cache(maxsize=16)
def _anchors(spec: FaceSpec, maps: tuple[tuple[int, int], ...]) -> Floats:
    return face_anchors(spec, maps)

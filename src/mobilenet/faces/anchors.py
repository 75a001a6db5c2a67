"""Anchors of face detectors, and landmarks as offsets from them (NumPy)."""

from collections.abc import Sequence

import numpy as np

from ..detect import point_grid
from ..detect.boxes import CODE_WEIGHTS, to_centres
from ..program import Floats
from .spec import FaceSpec


def face_anchors(spec: FaceSpec, maps: Sequence[tuple[int, int]]) -> Floats:
    """Every anchor as corners (P, 4) in pixels of the input: map by map, then row by row, pixel by
    pixel, in the order of the spec. `maps`: height and width of every map.

    Raises UsageError for another number of maps than the spec has.
    """
    points, strides = point_grid(maps, spec.strides)
    levels = []
    for sides, stride in zip(spec.anchors, spec.strides, strict=True):
        half = np.array(sides, np.float32)[None, :, None] / 2
        centres = points[strides == stride][:, None]
        levels.append(np.concatenate([centres - half, centres + half], axis=2).reshape(-1, 4))
    return np.concatenate(levels)


def encode_landmarks(points: Floats, anchors: Floats) -> Floats:
    """Points (P, K, 2) as offsets from the middles of anchors (P, 4), in tenths of their sides as
    boxes are (RetinaFace's variance 0.1)."""
    anchor = to_centres(anchors)[:, None]
    return (points - anchor[..., :2]) / anchor[..., 2:] * np.float32(CODE_WEIGHTS[0])


def decode_landmarks(offsets: Floats, anchors: Floats) -> Floats:
    """The inverse of `encode_landmarks`."""
    anchor = to_centres(anchors)[:, None]
    return offsets / np.float32(CODE_WEIGHTS[0]) * anchor[..., 2:] + anchor[..., :2]

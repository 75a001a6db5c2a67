"""Boxes in NumPy: corners x0, y0, x1, y1, float32, in pixels unless said otherwise."""

import math

import numpy as np

from ..program import Floats

# How a box's offsets from its anchor are scaled: 1 / variances 0.1, 0.1, 0.2, 0.2 (SSD)
CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
LARGEST_LOG = math.log(1000 / 16)  # of a size over its anchor's, as torchvision clamps it


def area(boxes: Floats) -> Floats:
    """Areas (N,) of boxes (N, 4)."""
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def iou(first: Floats, second: Floats) -> Floats:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 where both are empty."""
    wide = np.minimum(first[:, None, 2], second[:, 2]) - np.maximum(first[:, None, 0], second[:, 0])
    high = np.minimum(first[:, None, 3], second[:, 3]) - np.maximum(first[:, None, 1], second[:, 1])
    inside = np.maximum(wide, 0) * np.maximum(high, 0)
    union = area(first)[:, None] + area(second) - inside
    return np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)


def to_centres(corners: Floats) -> Floats:
    """Corners to centre x, centre y, width, height."""
    size = corners[:, 2:] - corners[:, :2]
    return np.concatenate([corners[:, :2] + size / 2, size], axis=1)


def to_corners(centres: Floats) -> Floats:
    """The inverse of `to_centres`."""
    half = np.multiply(centres[:, 2:], np.float32(0.5))
    return np.concatenate([centres[:, :2] - half, centres[:, :2] + half], axis=1)


def encode(boxes: Floats, anchors: Floats) -> Floats:
    """Boxes (P, 4) as offsets from anchors (P, 4), both in corners (Faster R-CNN, 3.1.2)."""
    target, anchor = to_centres(boxes), to_centres(anchors)
    shift = (target[:, :2] - anchor[:, :2]) / anchor[:, 2:]
    scale = np.log(target[:, 2:] / anchor[:, 2:])
    return np.concatenate([shift, scale], axis=1) * np.array(CODE_WEIGHTS, np.float32)


def decode(offsets: Floats, anchors: Floats) -> Floats:
    """The inverse of `encode`: boxes at most 62.5 times as long as their anchors."""
    anchor, plain = to_centres(anchors), offsets / np.array(CODE_WEIGHTS, np.float32)
    centre = plain[:, :2] * anchor[:, 2:] + anchor[:, :2]
    size = np.exp(np.minimum(plain[:, 2:], np.float32(LARGEST_LOG))) * anchor[:, 2:]
    return to_corners(np.concatenate([centre, size], axis=1))


def to_distances(boxes: Floats, points: Floats) -> Floats:
    """How far a box's left, top, right and bottom lie from a point: (P, 4) of points (P, 2)."""
    return np.concatenate([points - boxes[:, :2], boxes[:, 2:] - points], axis=1)


def from_distances(distances: Floats, points: Floats) -> Floats:
    """The inverse of `to_distances`."""
    return np.concatenate([points - distances[:, :2], points + distances[:, 2:]], axis=1)


def clip(boxes: Floats, width: float, height: float) -> Floats:
    """Boxes cut to the picture."""
    return np.clip(boxes, 0, np.array([width, height, width, height], boxes.dtype))

"""How good masks are: intersection over union, pixel accuracy, boundary F; NumPy only.

Masks are whole numbers (H, W), class indices with 0 the background; void pixels of the truth
(255) count neither way. Counts of many pictures are added, then scored once.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOID = 255
Counts = NDArray[np.int64]
Bools = NDArray[np.bool_]


def confusion(truth: NDArray, found: NDArray, classes: int) -> Counts:
    """Pixels (classes, classes) by true class, then by found class.

    Raises ValueError for masks of different shapes, and for classes that are not there.
    """
    if truth.shape != found.shape:
        raise ValueError(f"masks {truth.shape} and {found.shape}: expected one shape")
    seen = truth != VOID
    rows, columns = truth[seen].astype(np.int64), found[seen].astype(np.int64)
    for name, values in (("true", rows), ("found", columns)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"{name} classes {values.min()} to {values.max()}: expected 0 to {classes - 1}"
            )
    flat = np.bincount(rows * classes + columns, minlength=classes * classes)
    return flat.reshape(classes, classes)


def boundaries(truth: NDArray, found: NDArray, classes: int, *, tolerance: float) -> Counts:
    """Boundary pixels (classes, 4): found, of them near a true one; true, of them near a found one.

    A class's boundary is its pixels with a pixel of another class above, below, left or right;
    void is no other class. Near: at most `tolerance` pixels apart, in a straight line.
    """
    if truth.shape != found.shape:
        raise ValueError(f"masks {truth.shape} and {found.shape}: expected one shape")
    found = np.where(truth == VOID, VOID, found)
    edges_true, edges_found = _edges(truth), _edges(found)
    counts = np.zeros((classes, 4), np.int64)
    for index in range(classes):
        true, mine = edges_true & (truth == index), edges_found & (found == index)
        counts[index] = (
            mine.sum(),
            (mine & _near(true, tolerance)).sum(),
            true.sum(),
            (true & _near(mine, tolerance)).sum(),
        )
    return counts


def default_tolerance(height: int, width: int) -> float:
    """0.75 % of the picture's diagonal (Csurka et al., BMVC 2013), in pixels."""
    return 0.0075 * math.hypot(height, width)


@dataclass(frozen=True, kw_only=True)
class SegmentScores:
    """Shares from 0 to 1. A class that is neither there nor found has `None`, and no part in a
    mean; `boundary_f` is None where boundaries were not counted."""

    mean_iou: float
    iou: tuple[float | None, ...]
    pixel_accuracy: float
    mean_accuracy: float
    boundary_f: float | None
    class_boundary_f: tuple[float | None, ...] | None
    pixels: int


def segment_scores(counts: Counts, edges: Counts | None = None) -> SegmentScores:
    """The scores of summed `confusion` and `boundaries`. Raises ValueError without a pixel.

    mIoU is the mean of TP / (TP + FP + FN) over the classes that the truth or the masks have
    (PASCAL VOC); boundary F is 2PR / (P + R) of the boundary pixels near one another, by class.
    """
    pixels = int(counts.sum())
    if pixels == 0:
        raise ValueError("no pixel is counted: every mask is void")
    right, true, found = np.diag(counts), counts.sum(1), counts.sum(0)
    iou = _shares(right, true + found - right)
    recall = [share for share in _shares(right, true) if share is not None]
    by_edge = None if edges is None else tuple(_f(*map(int, row)) for row in edges)
    return SegmentScores(
        mean_iou=_mean(iou),
        iou=iou,
        pixel_accuracy=float(right.sum() / pixels),
        mean_accuracy=_mean(tuple(recall)),
        boundary_f=None if by_edge is None else _mean(by_edge),
        class_boundary_f=by_edge,
        pixels=pixels,
    )


def _shares(parts: Counts, wholes: Counts) -> tuple[float | None, ...]:
    return tuple(
        float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)
    )


def _mean(values: tuple[float | None, ...]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else 0.0


def _f(found: int, matched: int, true: int, reached: int) -> float | None:
    if found == true == 0:
        return None
    precision, recall = matched / max(found, 1), reached / max(true, 1)
    total = precision + recall
    return 2 * precision * recall / total if total else 0.0


def _edges(mask: NDArray) -> Bools:
    """Pixels beside one of another class."""
    edges = np.zeros(mask.shape, bool)
    for axis in (0, 1):
        first = (slice(None),) * axis + (slice(None, -1),)
        second = (slice(None),) * axis + (slice(1, None),)
        one, other = mask[first], mask[second]
        differ = (one != other) & (one != VOID) & (other != VOID)
        edges[first] |= differ
        edges[second] |= differ
    return edges


def _near(points: Bools, distance: float) -> Bools:
    """Pixels at most `distance` away from a point: row by row of the disc, by running sums."""
    height, width = points.shape
    near = np.zeros_like(points)
    if not points.any():
        return near
    reach = min(math.floor(distance), height - 1)
    sums = np.zeros((height, width + 1), np.int32)
    np.cumsum(points, axis=1, out=sums[:, 1:])
    columns = np.arange(width)
    for down in range(reach + 1):
        half = math.floor(math.sqrt(distance * distance - down * down))
        left, right = np.maximum(columns - half, 0), np.minimum(columns + half + 1, width)
        across = sums[:, right] > sums[:, left]
        near[down:] |= across[: height - down]
        near[: height - down] |= across[down:]
    return near

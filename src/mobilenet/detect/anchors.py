"""Anchors of SSD: which boxes every pixel of a feature map is asked about (NumPy).

`Anchors` lists for every map the boxes (width, height) of one pixel, as shares of the picture's
width and height; they stand centred on the pixel.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..errors import DataError, UsageError
from ..program import Floats
from .boxes import to_corners

Anchors = tuple[tuple[tuple[float, float], ...], ...]

SMALLEST, LARGEST = 0.2, 0.95  # of the first and last map, as shares (SSD paper, Eq. 4)
_FIRST = 0.1  # OD's small extra box of the first map


def _scales(maps: int) -> list[float]:
    """The size of each map's anchors, and one more for the box between it and the next."""
    step = (LARGEST - SMALLEST) / (maps - 1)
    return [*(SMALLEST + step * index for index in range(maps)), 1.0]


def tensorflow_anchors(maps: int = 6) -> Anchors:
    """Those of TensorFlow's object detection (`ssd_anchor_generator`, reduced lowest layer): 3
    boxes on the first map, 6 on the others; 1917 on maps of 19, 10, 5, 3, 2, 1 pixels."""
    scales = _scales(maps)
    levels = [_with_ratios([(_FIRST, 1.0), (scales[0], 2.0), (scales[0], 0.5)])]
    for scale, following in pairwise(scales[1:]):
        ratios = [1.0, 2.0, 0.5, 3.0, 1 / 3]
        between = (math.sqrt(scale * following), 1.0)
        levels.append(_with_ratios([*((scale, ratio) for ratio in ratios), between]))
    return tuple(levels)


def torchvision_anchors(maps: int = 6, ratios: Sequence[float] = (2.0, 3.0)) -> Anchors:
    """Those of torchvision's `DefaultBoxGenerator`: two squares, then every ratio and its
    reciprocal, no side longer than the picture's; 3234 on maps of 20, 10, 5, 3, 2, 1 pixels."""
    scales = _scales(maps)
    levels = []
    for scale, following in pairwise(scales):
        both = [(scale, value) for ratio in ratios for value in (ratio, 1 / ratio)]
        levels.append(_with_ratios([(scale, 1.0), (math.sqrt(scale * following), 1.0), *both]))
    return tuple(
        tuple((min(width, 1.0), min(height, 1.0)) for width, height in level) for level in levels
    )


def _with_ratios(rows: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """(scale, width over height) to (width, height)."""
    return tuple((scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for scale, ratio in rows)


def fit_anchors(
    sizes: Floats, counts: Sequence[int] = (3, 6, 6, 6, 6, 6), *, seed: int = 0
) -> Anchors:
    """Anchors that lie near a dataset's boxes: k-means of their sizes (N, 2), as shares of the
    picture, under the distance 1 - IoU (YOLO9000, 2), with medians; the smallest go to the first
    map.

    `counts`: boxes of a pixel of every map. Raises DataError for fewer different sizes than that.
    """
    wanted = sum(counts)
    given = np.asarray(sizes, np.float64)
    distinct = np.unique(given, axis=0)
    if not np.isfinite(given).all() or (given <= 0).any():
        raise DataError("anchors: boxes without width or height; leave them out")
    if len(distinct) < wanted:
        raise DataError(
            f"anchors: {len(distinct)} different box sizes for {wanted} anchors; give more boxes, "
            "or keep the anchors of the convention"
        )
    rng = np.random.default_rng(seed)
    centres = _spread(distinct, wanted, rng)
    for _ in range(100):
        nearest = size_iou(given, centres).argmax(1)
        moved = np.stack(
            [
                np.median(given[nearest == index], axis=0) if (nearest == index).any() else centre
                for index, centre in enumerate(centres)
            ]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    ordered = centres[np.argsort(centres.prod(1), kind="stable")]
    ends = np.cumsum(counts)
    return tuple(
        tuple((float(width), float(height)) for width, height in ordered[end - count : end])
        for count, end in zip(counts, ends, strict=True)
    )


def _spread(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """First centres as k-means++ draws them: far from those drawn before."""
    chosen = [sizes[rng.integers(len(sizes))]]
    while len(chosen) < count:
        far = (1 - size_iou(sizes, np.stack(chosen)).max(1)).clip(0) ** 2
        chosen.append(sizes[rng.choice(len(sizes), p=far / far.sum())])
    return np.stack(chosen)


def size_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU (N, M) of sizes (N, 2) and (M, 2), as of boxes with one centre."""
    inside = np.minimum(first[:, None], second[None]).prod(2)
    return inside / (first.prod(1)[:, None] + second.prod(1)[None] - inside)


def anchor_boxes(
    anchors: Anchors, maps: Sequence[tuple[int, int]], *, height: int, width: int
) -> Floats:
    """Every anchor as corners (P, 4) in pixels of the input: map by map, then row by row, pixel by
    pixel, in the order of the table. `maps`: height and width of every map.

    Raises UsageError for another number of maps than the table has.
    """
    if len(anchors) != len(maps):
        raise UsageError(f"{len(maps)} maps: the anchors are of {len(anchors)}")
    levels = []
    for table, (rows, columns) in zip(anchors, maps, strict=True):
        down = (np.arange(rows, dtype=np.float32) + np.float32(0.5)) / rows * height
        across = (np.arange(columns, dtype=np.float32) + np.float32(0.5)) / columns * width
        sizes = np.array(table, np.float32) * np.array([width, height], np.float32)
        level = np.empty((rows, columns, len(table), 4), np.float32)
        level[..., 0] = across[None, :, None]
        level[..., 1] = down[:, None, None]
        level[..., 2:] = sizes
        levels.append(to_corners(level.reshape(-1, 4)))
    return np.concatenate(levels)


def point_grid(maps: Sequence[tuple[int, int]], strides: Sequence[int]) -> tuple[Floats, Floats]:
    """The pixels of every map, for heads without anchors: their centres (P, 2) in pixels of the
    input, x then y, and the stride (P,) of their map. Raises UsageError for another number of maps
    than strides."""
    if len(strides) != len(maps):
        raise UsageError(f"{len(maps)} maps: the strides are {tuple(strides)}")
    points, lengths = [], []
    for (rows, columns), stride in zip(maps, strides, strict=True):
        down, across = np.mgrid[:rows, :columns].astype(np.float32)
        level = (np.stack([across, down], axis=2).reshape(-1, 2) + np.float32(0.5)) * stride
        points.append(level)
        lengths.append(np.full(len(level), stride, np.float32))
    return np.concatenate(points), np.concatenate(lengths)

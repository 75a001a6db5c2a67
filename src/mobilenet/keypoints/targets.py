"""What the maps should be for labelled people: NumPy only, made where pictures are read.

Keypoints are (..., K, 3): x, y in pixels of the network's input, and visibility, 0 not labelled,
1 hidden, 2 visible. Cell i of a map covers the pixels from 4i to 4i + 4. One picture's targets are
a dict of float32 arrays (C, h, w); what ends in "_weight" says how much a cell counts.
"""

import numpy as np
from numpy.typing import NDArray

from .spec import STRIDE

Floats = NDArray[np.float32]
Targets = dict[str, Floats]

SIGMA = 2.0  # cells; the simple baseline's at 64x48 cells
_NEAR = 2.0  # cells around a keypoint that learn its offset
_SHARE, _LEAST = 0.06, 0.8  # a centre's Gaussian: of the person's size, and at least, in cells


def single_targets(keypoints: Floats, height: int, width: int, *, sigma: float = SIGMA) -> Targets:
    """For head "heatmap", one person (K, 3) in a picture of height x width pixels.

    A heatmap is a Gaussian of `sigma` cells around the keypoint, all zero where that is outside the
    picture; of one that is not labelled nothing is learned.
    """
    count = len(keypoints)
    rows, columns = _cells(height, width)
    x, y = _in_cells(keypoints[:, 0]), _in_cells(keypoints[:, 1])
    labelled = keypoints[:, 2] > 0
    inside = labelled & _inside(keypoints, height, width)
    right, down = x[:, None, None] - columns, y[:, None, None] - rows
    square = right**2 + down**2
    near = (square <= _NEAR**2) & inside[:, None, None]
    weight = np.broadcast_to(labelled[:, None, None], (count, 1, 1))
    return {
        "heatmaps": _floats(np.exp(-square / (2 * sigma**2)) * inside[:, None, None]),
        "heatmaps_weight": _floats(weight),
        "offsets": _floats(_pairs(right * near, down * near)),
        "offsets_weight": _floats(np.repeat(near, 2, axis=0)),
    }


def centre_targets(
    keypoints: Floats, boxes: Floats, height: int, width: int, *, ignored: Floats | None = None
) -> Targets:
    """For head "centre", people (N, K, 3) with their boxes (N, 4), x0, y0, x1, y1.

    A person's centre is that of the labelled keypoints' box, or of its own without one. `ignored`
    (M, 4) are boxes, such as crowds, in which the heatmaps learn nothing.
    """
    count = keypoints.shape[1]
    rows, columns = _cells(height, width)
    high, wide = len(rows), columns.shape[-1]
    shapes = {"heatmaps": count, "offsets": 2 * count, "centres": 1, "regression": 2 * count}
    found = {name: np.zeros((channels, high, wide)) for name, channels in shapes.items()}
    weights = {name: np.zeros((shapes[name], high, wide)) for name in ("offsets", "regression")}
    seen = np.ones((1, high, wide))
    for x0, y0, x1, y1 in _in_cells(np.zeros((0, 4)) if ignored is None else ignored):
        seen[:, (rows[:, 0] >= y0) & (rows[:, 0] <= y1)] *= ~((columns >= x0) & (columns <= x1))
    for person, box in zip(keypoints, boxes, strict=True):
        x, y = _in_cells(person[:, 0]), _in_cells(person[:, 1])
        labelled = person[:, 2] > 0
        column, row = _centre(person, box)
        size = float(np.sqrt(max((box[2] - box[0]) * (box[3] - box[1]), 0))) / STRIDE
        sigma = max(_SHARE * size, _LEAST)
        if _stamp(found["centres"][0], row, column, sigma, rows, columns):
            way = np.stack([x - column, y - row], 1).reshape(-1)
            known = np.repeat(labelled, 2)
            found["regression"][known, row, column] = way[known]
            weights["regression"][known, row, column] = 1
        for index in np.flatnonzero(labelled & _inside(person, height, width)):
            here = round(float(y[index])), round(float(x[index]))
            if _stamp(found["heatmaps"][index], *here, sigma, rows, columns):
                pair = slice(2 * index, 2 * index + 2)
                found["offsets"][pair, *here] = x[index] - here[1], y[index] - here[0]
                weights["offsets"][pair, *here] = 1
    # a peak is a person, also inside of what is ignored
    weights["centres"] = np.maximum(seen, found["centres"] == 1)
    weights["heatmaps"] = np.maximum(seen, found["heatmaps"] == 1)
    named = {f"{name}_weight": weight for name, weight in weights.items()}
    return {name: _floats(value) for name, value in {**found, **named}.items()}


def _centre(person: Floats, box: Floats) -> tuple[int, int]:
    """Column and row."""
    points = person[person[:, 2] > 0, :2]
    if len(points) == 0:
        points = np.asarray(box).reshape(2, 2)
    middle = _in_cells((points.min(0) + points.max(0)) / 2)
    return round(float(middle[0])), round(float(middle[1]))


def _stamp(
    target: NDArray, row: int, column: int, sigma: float, rows: NDArray, columns: NDArray
) -> bool:
    """The larger of what is there and a Gaussian whose peak is 1 in that cell; whether it is one of
    the map's."""
    if not (0 <= row < target.shape[0] and 0 <= column < target.shape[1]):
        return False
    square = (columns - column) ** 2 + (rows - row) ** 2
    np.maximum(target, np.exp(-square / (2 * sigma**2)), out=target)
    return True


def _cells(height: int, width: int) -> tuple[NDArray, NDArray]:
    """Rows (h, 1) and columns (w,) of a map."""
    high, wide = -(-height // STRIDE), -(-width // STRIDE)
    return np.arange(high, dtype=np.float64)[:, None], np.arange(wide, dtype=np.float64)


def _in_cells(pixels: NDArray) -> NDArray:
    """Places in pixels as places in cells, whose middles are whole numbers."""
    return np.asarray(pixels, np.float64) / STRIDE - 0.5


def _inside(keypoints: Floats, height: int, width: int) -> NDArray[np.bool_]:
    x, y = keypoints[:, 0], keypoints[:, 1]
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)


def _pairs(x: NDArray, y: NDArray) -> NDArray:
    """(K, h, w) twice as (2K, h, w), x before y of each."""
    return np.stack([x, y], 1).reshape(-1, *x.shape[1:])


def _floats(x: NDArray) -> Floats:
    return np.ascontiguousarray(x, np.float32)

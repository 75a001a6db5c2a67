"""From class scores to masks, as a device does it: NumPy only."""

import numpy as np
from numpy.typing import NDArray

from ..program.geometry import bilinear

Floats = NDArray[np.float32]
Neighbours = tuple[NDArray[np.intp], NDArray[np.intp], Floats]
_BAND = 64  # rows at a time, so that no picture's scores are there at its full size


def resize_scores(scores: Floats, height: int, width: int) -> Floats:
    """Maps (..., h, w), bilinear with half-pixel centres, as (..., height, width) float32: what
    torch's `interpolate(mode="bilinear", align_corners=False)` gives."""
    return _rows(scores, bilinear(scores.shape[-1], width), bilinear(scores.shape[-2], height))


def decode_masks(scores: Floats, height: int, width: int) -> NDArray[np.uint8]:
    """Class scores (N, classes, h, w) as masks (N, height, width) of class indices.

    Scores are enlarged, then compared; equal ones give the lower class. Raises ValueError for
    other shapes and for more than 255 classes.
    """
    if scores.ndim != 4 or not 1 <= scores.shape[1] <= 255 or 0 in scores.shape:
        raise ValueError(f"scores {scores.shape}: expected (N, 1 to 255 classes, h, w)")
    if scores.shape[1] == 1:
        return np.zeros((len(scores), height, width), np.uint8)
    across = bilinear(scores.shape[3], width)
    top, bottom, weight = bilinear(scores.shape[2], height)
    masks = np.empty((len(scores), height, width), np.uint8)
    for start in range(0, height, _BAND):
        band = slice(start, start + _BAND)
        rows = _rows(scores, across, (top[band], bottom[band], weight[band]))
        masks[:, band] = rows.argmax(1)
    return masks


def _rows(scores: Floats, across: Neighbours, down: Neighbours) -> Floats:
    """The rows that `down` names, at the columns that `across` names."""
    scores = np.asarray(scores, np.float32)
    top, bottom, weight = down
    left, right, beside = across
    weight = weight[:, None]
    rows = scores[..., top, :] * (1 - weight) + scores[..., bottom, :] * weight
    return np.asarray(rows[..., left] * (1 - beside) + rows[..., right] * beside, np.float32)

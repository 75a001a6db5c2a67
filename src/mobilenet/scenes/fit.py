"""Pictures brought to a network's input, and what it finds brought back to the picture.

Coordinates are continuous: a box 0, 0, W, H is the whole picture, and the pixel in column c is
from c to c + 1.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from ..errors import UsageError
from .sample import FILL, Sample
from .scene import VOID

Fit = Literal["stretch", "letterbox"]

FITS = ("stretch", "letterbox")


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """How a picture of `source` (width, height) was brought to `target`: it fills x0, y0, x1, y1
    of it, in whole pixels. Everything found in the target goes back by it."""

    source: tuple[int, int]
    target: tuple[int, int]
    filled: tuple[int, int, int, int]

    def boxes_to(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) of the source's pixels to the target's."""
        scale, start = self._move()
        return (boxes * np.tile(scale, 2) + np.tile(start, 2)).astype(np.float32)

    def boxes_back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (..., 4) of the target's pixels to the source's, clipped to the picture."""
        scale, start = self._move()
        back = (boxes - np.tile(start, 2)) / np.tile(scale, 2)
        return np.clip(back, 0, np.tile(np.array(self.source, np.float64), 2)).astype(np.float32)

    def points_to(self, points: np.ndarray) -> np.ndarray:
        """Keypoints (..., K, 3) of the source's pixels to the target's."""
        scale, start = self._move()
        out = points.astype(np.float32)
        out[..., :2] = points[..., :2] * scale + start
        return np.where(points[..., 2:] > 0, out, 0).astype(np.float32)

    def points_back(self, points: np.ndarray) -> np.ndarray:
        """Keypoints (..., K, 3), or with scores for visibility, back to the source's pixels."""
        scale, start = self._move()
        out = points.astype(np.float32)
        out[..., :2] = (points[..., :2] - start) / scale
        return out

    def mask_back(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the target, uint8 (height, width), to the source's size, nearest pixels."""
        x0, y0, x1, y1 = self.filled
        inner = np.ascontiguousarray(mask[y0:y1, x0:x1])
        return np.asarray(Image.fromarray(inner).resize(self.source, Image.Resampling.NEAREST))

    def _move(self) -> tuple[np.ndarray, np.ndarray]:
        x0, y0, x1, y1 = self.filled
        scale = np.array([x1 - x0, y1 - y0], np.float64) / np.array(self.source, np.float64)
        return scale, np.array([x0, y0], np.float64)


def fitting(source: tuple[int, int], target: tuple[int, int], how: Fit) -> Fitted:
    """Where a picture of (width, height) goes in a network's input: "stretch" fills it,
    "letterbox" keeps the picture's proportions, in the middle."""
    if how not in FITS:
        raise UsageError(f"fit {how!r}: expected one of {FITS}")
    width, height = target
    if how == "stretch":
        return Fitted(source=source, target=target, filled=(0, 0, width, height))
    ratio = min(width / source[0], height / source[1])
    w, h = (
        min(max(round(side * ratio), 1), most) for side, most in zip(source, target, strict=True)
    )
    left, top = (width - w) // 2, (height - h) // 2
    return Fitted(source=source, target=target, filled=(left, top, left + w, top + h))


def fit(
    picture: np.ndarray, target: tuple[int, int], how: Fit = "stretch"
) -> tuple[np.ndarray, Fitted]:
    """A picture, uint8 (H, W, 3), brought to (width, height): bilinear, antialiased, by Pillow.
    Around a letterboxed one is grey. With it, how to bring back what is found."""
    fitted = fitting((picture.shape[1], picture.shape[0]), target, how)
    return _fill(picture, fitted, Image.Resampling.BILINEAR, FILL), fitted


def fit_sample(
    sample: Sample, target: tuple[int, int], how: Fit = "stretch"
) -> tuple[Sample, Fitted]:
    """A sample brought to a network's input; around a letterboxed one the mask is void."""
    picture, fitted = fit(sample.picture, target, how)
    mask = sample.mask
    if mask is not None:
        mask = _fill(mask, fitted, Image.Resampling.NEAREST, VOID)
    points = None if sample.keypoints is None else fitted.points_to(sample.keypoints)
    boxes = fitted.boxes_to(sample.boxes)
    return replace(sample, picture=picture, boxes=boxes, mask=mask, keypoints=points), fitted


def _fill(
    picture: np.ndarray, fitted: Fitted, resample: Image.Resampling, around: int
) -> np.ndarray:
    x0, y0, x1, y1 = fitted.filled
    small = np.asarray(Image.fromarray(picture).resize((x1 - x0, y1 - y0), resample))
    width, height = fitted.target
    out = np.full((height, width, *picture.shape[2:]), around, np.uint8)
    out[y0:y1, x0:x1] = small
    return out

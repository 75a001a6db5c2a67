"""Scenes varied for training: boxes, masks and keypoints move with the picture.

Every draw comes from the generator that is passed in; nothing is written into. Coordinates are
continuous: a box 0, 0, W, H is the whole picture, and the pixel in column c is from c to c + 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from ..errors import UsageError
from .sample import FILL, Sample
from .scene import VOID

_TRIES = 50  # for a crop, as in SSD
_OVERLAPS = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)  # Liu et al. 2016, and torchvision's choices


# Geometry


def mirror(sample: Sample, flipped: Sequence[int] = ()) -> Sample:
    """Left for right. `flipped`: which point each keypoint becomes, `SceneData.flipped`."""
    width = sample.size[0]
    boxes = sample.boxes.copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    points = sample.keypoints
    if points is not None:
        points = points[:, list(flipped)] if len(flipped) else points.copy()
        points[..., 0] = np.where(points[..., 2] > 0, width - points[..., 0], 0)
    mask = None if sample.mask is None else np.ascontiguousarray(sample.mask[:, ::-1])
    picture = np.ascontiguousarray(sample.picture[:, ::-1])
    return replace(sample, picture=picture, boxes=boxes, mask=mask, keypoints=points)


def crop(sample: Sample, box: tuple[int, int, int, int], *, least: float = 0.0) -> Sample:
    """The part of a sample in a box of whole pixels, which may reach beyond the picture: there
    it is grey, and void in the mask. Objects are clipped; those of which no more than `least` of
    the area is left are dropped."""
    x0, y0, x1, y1 = box
    picture = _window(sample.picture, box, FILL)
    mask = None if sample.mask is None else _window(sample.mask, box, VOID)
    moved = sample.boxes - np.array([x0, y0, x0, y0], np.float32)
    boxes = np.clip(moved, 0, np.array([x1 - x0, y1 - y0] * 2, np.float32))
    left, whole = _areas(boxes), np.maximum(_areas(moved), 1e-9)
    points = sample.keypoints
    if points is not None:
        points = points.copy()
        points[..., :2] -= np.array([x0, y0], np.float32)
        points = _within(points, x1 - x0, y1 - y0)
    out = replace(sample, picture=picture, boxes=boxes, mask=mask, keypoints=points)
    return out.only(
        np.flatnonzero((np.minimum(*(boxes[:, 2:] - boxes[:, :2]).T) > 0) & (left / whole > least))
    )


def resized(sample: Sample, width: int, height: int) -> Sample:
    """Stretched to a size: the picture antialiased, the mask by its nearest pixels."""
    old_width, old_height = sample.size
    ratio = np.array([width / old_width, height / old_height], np.float32)
    picture = Image.fromarray(sample.picture).resize((width, height), Image.Resampling.BILINEAR)
    mask = sample.mask
    if mask is not None:
        small = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
        mask = np.asarray(small)
    points = sample.keypoints
    if points is not None:
        points = points.copy()
        points[..., :2] *= ratio
    boxes = (sample.boxes * np.tile(ratio, 2)).astype(np.float32)
    return replace(sample, picture=np.asarray(picture), boxes=boxes, mask=mask, keypoints=points)


def iou_crop(sample: Sample, rng: np.random.Generator) -> Sample:
    """SSD's random crop (Liu et al. 2016, section 2.2): a part of 0.3 to 1 of either side, half to
    twice as wide as high, in which some box has at least a drawn overlap; objects whose centre is
    outside are dropped. An overlap for which nothing fits is drawn anew, until it is none: then the
    sample is left as it is."""
    width, height = sample.size
    centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
    while len(centres):
        overlap = _OVERLAPS[int(rng.integers(len(_OVERLAPS)))]
        if overlap is None:
            break
        for _ in range(_TRIES):
            w, h = (max(int(side * rng.uniform(0.3, 1.0)), 1) for side in (width, height))
            if not 0.5 <= w / h <= 2:
                continue
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            box = (left, top, left + w, top + h)
            inside = (centres > [left, top]).all(1) & (centres < [left + w, top + h]).all(1)
            kept = sample.only(np.flatnonzero(inside))
            if inside.any() and _overlaps(kept.boxes, box).max() >= overlap:
                return crop(kept, box)
    return sample


def square_crop(sample: Sample, rng: np.random.Generator) -> Sample:
    """RetinaFace's random crop (arXiv 1905.00641, 4.1): a square of 0.3 to 1 of the shorter side in
    which the middle of some object is, if there are any. Objects whose middle is outside become
    crowd. Where no square fits, the sample is left as it is."""
    width, height = sample.size
    for _ in range(_TRIES):
        side = max(int(min(width, height) * rng.uniform(0.3, 1.0)), 1)
        left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
        box = (left, top, left + side, top + side)
        centres = (sample.boxes[:, :2] + sample.boxes[:, 2:]) / 2
        inside = (centres > box[:2]).all(1) & (centres < box[2:]).all(1)
        if sample.crowd.all() or (inside & ~sample.crowd).any():
            return crop(replace(sample, crowd=sample.crowd | ~inside), box)
    return sample


def jitter_scale(
    sample: Sample,
    width: int,
    height: int,
    rng: np.random.Generator,
    *,
    scale: tuple[float, float] = (0.5, 2.0),
    least: float = 0.2,
) -> Sample:
    """Scaled by a draw from `scale`, its logarithm even, relative to what fits, then cropped or
    padded at a random place to (width, height)."""
    fitting = min(width / sample.size[0], height / sample.size[1])
    ratio = fitting * math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    w, h = (max(round(side * ratio), 1) for side in sample.size)
    left, top = (_anywhere(inner - outer, rng) for inner, outer in ((w, width), (h, height)))
    return crop(resized(sample, w, h), (left, top, left + width, top + height), least=least)


def mosaic(
    samples: Sequence[Sample], size: int, rng: np.random.Generator, *, least: float = 0.2
) -> Sample:
    """Four samples around a random point of a square (Bochkovskiy et al. 2020): each scaled to
    half to one and a half of its quarter's longer side, its corner at that point."""
    if len(samples) != 4:
        raise UsageError(f"mosaic of {len(samples)} samples: expected four")
    x, y = (int(size * rng.uniform(0.3, 0.7)) for _ in range(2))
    quarters = ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size))
    picture = np.full((size, size, 3), FILL, np.uint8)
    masked = all(sample.mask is not None for sample in samples)
    mask = np.full((size, size), VOID, np.uint8) if masked else None
    parts: list[Sample] = []
    for sample, (x0, y0, x1, y1) in zip(samples, quarters, strict=True):
        ratio = max(x1 - x0, y1 - y0) / max(sample.size) * rng.uniform(0.75, 1.5)
        w, h = (max(round(side * ratio), 1) for side in sample.size)
        # the corner that touches the middle stays there
        left = w - (x1 - x0) if x0 == 0 else 0
        top = h - (y1 - y0) if y0 == 0 else 0
        box = (left, top, left + x1 - x0, top + y1 - y0)
        part = crop(resized(sample, w, h), box, least=least)
        picture[y0:y1, x0:x1] = part.picture
        if mask is not None and part.mask is not None:
            mask[y0:y1, x0:x1] = part.mask
        parts.append(_moved(part, x0, y0))
    pointed = [part.keypoints for part in parts if part.keypoints is not None]
    return Sample(
        picture=picture,
        boxes=np.concatenate([part.boxes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        crowd=np.concatenate([part.crowd for part in parts]),
        mask=mask,
        keypoints=np.concatenate(pointed) if len(pointed) == len(parts) else None,
    )


# Colours


def distort(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """SSD's photometric distortion, each with probability one half: brightness by up to 32 of
    255, contrast 0.5 to 1.5, saturation 0.5 to 1.5, hue by up to 18 degrees, channels in another
    order (one in ten)."""
    out = picture.astype(np.float32)
    if rng.random() < 0.5:
        out = out + rng.uniform(-32, 32)
    if rng.random() < 0.5:
        out = out * rng.uniform(0.5, 1.5)
    grey = out @ np.array([0.299, 0.587, 0.114], np.float32)
    if rng.random() < 0.5:
        out = grey[..., None] + (out - grey[..., None]) * rng.uniform(0.5, 1.5)
    if rng.random() < 0.5:
        out = out @ _turn_hue(math.radians(rng.uniform(-18, 18)))
    if rng.random() < 0.1:
        out = out[..., rng.permutation(3)]
    return np.ascontiguousarray(np.clip(np.round(out), 0, 255), np.uint8)


# Copy and paste


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """An object cut out of a scene. `picture`: uint8 (h, w, 3), `shape`: bool (h, w), its pixels.
    `keypoints`: float32 (K, 3), from its corner."""

    picture: np.ndarray
    shape: np.ndarray
    label: int
    keypoints: np.ndarray | None = None


def cut_out(
    picture: np.ndarray, shape: np.ndarray, label: int, keypoints: np.ndarray | None = None
) -> Piece:
    """The piece of a picture (H, W, 3) where `shape`, bool (H, W), is true."""
    rows, columns = np.flatnonzero(shape.any(1)), np.flatnonzero(shape.any(0))
    if not len(rows):
        raise UsageError("a piece without a pixel")
    part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    points = keypoints
    if points is not None:
        points = points.copy()
        points[points[:, 2] > 0, :2] -= np.array([columns[0], rows[0]], np.float32)
    return Piece(
        picture=picture[part].copy(), shape=shape[part].copy(), label=label, keypoints=points
    )


def copy_paste(
    sample: Sample, pieces: Sequence[Piece], rng: np.random.Generator, *, least: float = 0.3
) -> Sample:
    """Pieces pasted at random places, the edge blended over a pixel (Ghiasi et al. 2021). Boxes
    behind them stay; objects of whose box no more than `least` is left in sight are dropped, with
    void in the mask where they still are. Points behind a piece become hidden."""
    out = sample
    for piece in pieces:
        height, width = piece.shape.shape
        if width > sample.size[0] or height > sample.size[1]:
            continue
        left = int(rng.integers(sample.size[0] - width + 1))
        top = int(rng.integers(sample.size[1] - height + 1))
        out = _pasted(out, piece, left, top, least)
    return out


def _pasted(sample: Sample, piece: Piece, left: int, top: int, least: float) -> Sample:
    height, width = piece.shape.shape
    part = np.s_[top : top + height, left : left + width]
    covered = np.zeros(sample.picture.shape[:2], bool)
    covered[part] = piece.shape
    soft = Image.fromarray(piece.shape.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1))
    alpha = (np.asarray(soft, np.float32) / 255 * piece.shape)[..., None]
    picture = sample.picture.copy()
    mixed = picture[part] * (1 - alpha) + piece.picture * alpha
    picture[part] = np.round(mixed)
    points = sample.keypoints
    if points is not None:
        points = points.copy()
        where = np.floor(points[..., :2]).astype(int)
        x = np.clip(where[..., 0], 0, sample.size[0] - 1)
        y = np.clip(where[..., 1], 0, sample.size[1] - 1)
        points[..., 2] = np.where(covered[y, x] & (points[..., 2] == 2), 1, points[..., 2])
    shown = np.array([1 - _mean_in(covered, box) for box in sample.boxes])
    kept = shown > least if len(shown) else np.zeros(0, bool)
    mask = sample.mask
    if mask is not None:
        mask = mask.copy()
        for box, label in zip(sample.boxes[~kept], sample.labels[~kept], strict=True):
            inner = mask[_pixels(box)]
            inner[inner == label + 1] = VOID
        mask[covered] = piece.label + 1
    box = np.array([left, top, left + width, top + height], np.float32)
    rest = replace(sample, picture=picture, mask=mask, keypoints=points).only(kept)
    if points is not None:
        own = np.zeros(points.shape[1:], np.float32)
        if piece.keypoints is not None:
            own = piece.keypoints.copy()
            own[own[:, 2] > 0, :2] += np.array([left, top], np.float32)
            own = _within(own, *sample.size)  # a hidden one may lie beside the piece
        points = np.concatenate([points[kept], own[None]])
    return replace(
        rest,
        boxes=np.concatenate([rest.boxes, box[None]]),
        labels=np.append(rest.labels, piece.label),
        crowd=np.append(rest.crowd, False),
        keypoints=points,
    )


def _window(array: np.ndarray, box: tuple[int, int, int, int], around: int) -> np.ndarray:
    x0, y0, x1, y1 = box
    height, width = array.shape[:2]
    out = np.full((y1 - y0, x1 - x0, *array.shape[2:]), around, array.dtype)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if left < right and top < bottom:
        out[top - y0 : bottom - y0, left - x0 : right - x0] = array[top:bottom, left:right]
    return out


def _moved(sample: Sample, x: int, y: int) -> Sample:
    """Its objects moved; the picture stays."""
    points = sample.keypoints
    if points is not None:
        shift = np.array([x, y, 0], np.float32)
        points = np.where(points[..., 2:] > 0, points + shift, 0).astype(np.float32)
    boxes = sample.boxes + np.array([x, y, x, y], np.float32)
    return replace(sample, boxes=boxes, keypoints=points)


def _within(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Points outside the picture are no longer labelled."""
    x, y, seen = points[..., 0], points[..., 1], points[..., 2]
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height) & (seen > 0)
    return np.where(inside[..., None], points, 0).astype(np.float32)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _overlaps(boxes: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Intersection over union of boxes (N, 4) with one."""
    low = np.maximum(boxes[:, :2], box[:2])
    high = np.minimum(boxes[:, 2:], box[2:])
    shared = np.maximum(high - low, 0).prod(1)
    return shared / (_areas(boxes) + (box[2] - box[0]) * (box[3] - box[1]) - shared)


def _anywhere(room: int, rng: np.random.Generator) -> int:
    """A start between 0 and `room`, which may be negative."""
    return int(rng.integers(min(room, 0), max(room, 0) + 1))


def _pixels(box: np.ndarray) -> tuple[slice, slice]:
    x0, y0 = (math.floor(end) for end in box[:2])
    x1, y1 = (math.ceil(end) for end in box[2:])
    return slice(max(y0, 0), y1), slice(max(x0, 0), x1)


def _mean_in(covered: np.ndarray, box: np.ndarray) -> float:
    inner = covered[_pixels(box)]
    return float(inner.mean()) if inner.size else 0.0


def _turn_hue(angle: float) -> np.ndarray:
    """The matrix, for pixels in rows, that turns colours around the grey axis (Rodrigues)."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    third = (1 - cos) / 3
    same, next_, last = cos + third, third - sin, third + sin
    return np.array([[same, next_, last], [last, same, next_], [next_, last, same]], np.float32).T

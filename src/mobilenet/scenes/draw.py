"""Boxes with labels and scores, masks and skeletons drawn on a picture, by Pillow."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError

_SEEN = 1  # visibility from which a point is drawn


def _palette() -> np.ndarray:
    """VOC's colours: the bits of an index dealt to red, green and blue, the lowest bit the
    strongest (devkit, VOClabelcolormap.m)."""
    index = np.arange(256)[:, None]
    shifts = np.arange(8)
    bits = [(index >> (3 * shifts + channel)) & 1 for channel in range(3)]
    return np.stack([(bit << (7 - shifts)).sum(1) for bit in bits], 1).astype(np.uint8)


PALETTE = _palette()  # uint8 (256, 3), by class index with background first


def draw_boxes(
    picture: Image.Image,
    boxes: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    scores: np.ndarray | None = None,
) -> Image.Image:
    """A copy with boxes float (N, 4), x0, y0, x1, y1 in pixels, each in its class's colour with
    its name above, and its score behind it where there are scores float (N,)."""
    out = picture.convert("RGB")
    draw = ImageDraw.Draw(out)
    thick = _thickness(out)
    font = ImageFont.load_default(max(10, round(5.5 * thick)))
    for place in range(len(boxes)):
        colour = _colour(int(labels[place]))
        x0, y0, x1, y1 = (float(end) for end in boxes[place])
        if x1 <= x0 or y1 <= y0:
            raise UsageError(f"box {place}: {boxes[place].tolist()} is not x0, y0, x1, y1")
        # one narrower than a pixel still gets one
        draw.rectangle((x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)), outline=colour, width=thick)
        text = classes[int(labels[place])]
        text += f" {scores[place]:.2f}" if scores is not None else ""
        left, top, right, bottom = draw.textbbox((0, 0), text, font)
        high = bottom - top + 4
        y = y0 - high if y0 >= high else y0
        x = max(min(x0, out.width - (right - left) - 4), 0)
        draw.rectangle((x, y, x + right - left + 4, y + high), fill=colour)
        draw.text((x + 2 - left, y + 2 - top), text, _ink(colour), font)
    return out


def draw_mask(picture: Image.Image, mask: np.ndarray, *, share: float = 0.5) -> Image.Image:
    """A copy with a mask of class indices, uint8 (H, W), blended over: `share` of its colours.
    The background stays as it is; void becomes white."""
    pixels = np.asarray(picture.convert("RGB"))
    if mask.shape != pixels.shape[:2]:
        raise UsageError(f"mask of {mask.shape}: the picture is {pixels.shape[:2]}")
    colours = PALETTE[mask].astype(np.float32)
    colours[mask == 255] = 255
    mixed = np.round(pixels * (1 - share) + colours * share).astype(np.uint8)
    return Image.fromarray(np.where((mask > 0)[..., None], mixed, pixels))


def draw_keypoints(
    picture: Image.Image, keypoints: np.ndarray, skeleton: Sequence[tuple[int, int]] = ()
) -> Image.Image:
    """A copy with points float (N, K, 3), x, y in pixels and visibility, and the lines of the
    skeleton between those that are labelled; hidden points are hollow."""
    out = picture.convert("RGB")
    draw = ImageDraw.Draw(out)
    thick = _thickness(out)
    radius = 1.5 * thick
    for person, points in enumerate(keypoints):
        colour = _colour(person)
        for start, end in skeleton:
            if min(points[start][2], points[end][2]) >= _SEEN:
                ends = (*points[start][:2].tolist(), *points[end][:2].tolist())
                draw.line(ends, fill=colour, width=thick)
        for x, y, seen in points.tolist():
            if seen >= _SEEN:
                box = (x - radius, y - radius, x + radius, y + radius)
                draw.ellipse(box, fill=colour if seen > _SEEN else None, outline=colour)
    return out


def _thickness(picture: Image.Image) -> int:
    return max(1, round(max(picture.size) / 250))


def _colour(label: int) -> tuple[int, int, int]:
    red, green, blue = PALETTE[label % 254 + 1].tolist()
    return red, green, blue


def _ink(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black on light colours, white on dark ones."""
    red, green, blue = colour
    return (0, 0, 0) if 0.3 * red + 0.6 * green + 0.1 * blue > 110 else (255, 255, 255)

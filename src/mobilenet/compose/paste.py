"""One scene: cut-outs scaled, turned, mirrored and coloured, pasted in front of one another.

What is kept of each object is what can be seen of it: a pixel belongs to the last object whose
alpha there is a half or more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from ..scenes.segments import extent
from .cutouts import Cutout, Drawing

VISIBLE = 0.3  # of an object's pixels must be seen
SMALLEST = 64  # pixels that must be seen of an object
_TRIES = 8  # for a place where neither it nor what is behind it is hidden too much


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a cut-out is varied. `scale`: its longer side as a share of the picture's. `turn`:
    degrees to either side. `colour`: gains from 1 - colour to 1 + colour. `soft`: the widest blur
    of its edge, pixels."""

    scale: tuple[float, float] = (0.12, 0.6)
    turn: float = 25.0
    colour: float = 0.3
    soft: float = 1.2


@dataclass(frozen=True, kw_only=True, eq=False)
class Pasted:
    """An object in a scene. `mask`: bool (H, W), what is seen. `points`: float32 (K, 3), pixels,
    0 outside the picture, 1 hidden, 2 visible."""

    cutout: Cutout
    mask: np.ndarray
    points: np.ndarray


def paste_scene(
    background: np.ndarray,
    chosen: Sequence[Cutout],
    flips: Sequence[Sequence[int]],
    look: Look,
    rng: np.random.Generator,
) -> tuple[np.ndarray, list[Pasted]]:
    """Paste cut-outs on a photograph, uint8 (S, S, 3), the later in front.

    `flips`: for each class, which point each becomes in a mirror. An object that finds no place is
    left out. Returns the picture and the objects, those behind first.
    """
    size = background.shape[0]
    picture = background.astype(np.float32)
    owners = np.full((size, size), -1, np.int16)
    whole: list[int] = []  # pixels of each object, were nothing in front
    seen = np.zeros(0, np.int64)  # and what is seen of them
    placed: list[tuple[Cutout, np.ndarray]] = []
    for cutout in chosen:
        drawing, flip = cutout.draw(rng), flips[cutout.label]
        for _ in range(_TRIES):
            layer, points = place(drawing, flip, size, look, rng)
            height, width = layer.shape[:2]
            window = np.s_[points.top : points.top + height, points.left : points.left + width]
            solid = layer[..., 3] >= 128
            pixels = int(solid.sum())
            least = max(SMALLEST, VISIBLE * points.total)
            if pixels < least or _hides(owners, whole, seen, window, solid):
                continue
            alpha = layer[..., 3:].astype(np.float32) / 255
            picture[window] += (layer[..., :3] - picture[window]) * alpha
            seen -= _counts(owners[window][solid], len(seen))
            owners[window][solid] = len(placed)
            whole.append(points.total)
            seen = np.append(seen, pixels)
            placed.append((cutout, points.points))
            break
    result = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return result, [
        Pasted(cutout=cutout, mask=owners == at, points=seen_points(points, owners, at))
        for at, (cutout, points) in enumerate(placed)
    ]


@dataclass(frozen=True, eq=False)
class Placed:
    """`left`, `top`: of the layer in the scene. `points`: float32 (K, 3) in the scene's pixels.
    `total`: the object's solid pixels, also those outside the picture."""

    left: int
    top: int
    points: np.ndarray
    total: int


def place(
    drawing: Drawing, flip: Sequence[int], size: int, look: Look, rng: np.random.Generator
) -> tuple[np.ndarray, Placed]:
    """A cut-out varied and moved to a random place: uint8 (h, w, 4), as far as it is inside the
    picture, and where that is."""
    image, points = drawing
    points = points.astype(np.float64)
    share = math.exp(rng.uniform(math.log(look.scale[0]), math.log(look.scale[1])))
    scale = share * size / max(image.size)
    width, height = (max(round(side * scale), 2) for side in image.size)
    points[:, 0] *= width / image.width
    points[:, 1] *= height / image.height
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        points[:, 0] = width - points[:, 0]
        points = points[list(flip)] if len(points) else points
    angle = math.radians(rng.uniform(-look.turn, look.turn))
    cos, sin = math.cos(angle), math.sin(angle)
    # from the scene to the cut-out: Pillow takes the inverse of the movement
    reach = 0.15  # of its size may lie outside
    half = 0.5 * np.array(
        [abs(width * cos) + abs(height * sin), abs(width * sin) + abs(height * cos)]
    )
    low, high = half * (1 - 2 * reach), size - half * (1 - 2 * reach)
    x, y = rng.uniform(np.minimum(low, size / 2), np.maximum(high, size / 2))
    left, top = (max(math.floor(at), 0) for at in (x - half[0] - 2, y - half[1] - 2))
    right, bottom = (min(math.ceil(at), size) for at in (x + half[0] + 2, y + half[1] + 2))
    a, b, c = cos, sin, width / 2 - cos * (x - left) - sin * (y - top)
    d, e, f = -sin, cos, height / 2 + sin * (x - left) - cos * (y - top)
    moved = image.transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        (a, b, c, d, e, f),
        Image.Resampling.BICUBIC,
    )
    blur = rng.uniform(0, look.soft)
    if blur > 0.2:
        soft = moved.getchannel("A").filter(ImageFilter.GaussianBlur(blur))
        moved.putalpha(Image.fromarray(np.minimum(np.asarray(soft), np.asarray(moved)[..., 3])))
    layer = np.array(moved)
    gain = rng.uniform(1 - look.colour, 1 + look.colour) * rng.uniform(0.9, 1.1, 3)
    colours = layer[..., :3] * gain.astype(np.float32) + np.float32(rng.uniform(-20, 20))
    layer[..., :3] = np.clip(colours, 0, 255)
    total = int((np.asarray(image)[..., 3] >= 128).sum())
    offset = points[:, :2] - [width / 2, height / 2]
    points[:, 0] = x + cos * offset[:, 0] - sin * offset[:, 1]
    points[:, 1] = y + sin * offset[:, 0] + cos * offset[:, 1]
    return layer, Placed(left, top, points.astype(np.float32), total)


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of what is seen of an object."""
    found = extent(mask)
    assert found is not None
    return found


def _hides(
    owners: np.ndarray,
    whole: Sequence[int],
    seen: np.ndarray,
    window: tuple[slice, slice],
    solid: np.ndarray,
) -> bool:
    """Whether pasting leaves too little of an object behind."""
    left = seen - _counts(owners[window][solid], len(seen))
    return bool((left < np.maximum(SMALLEST, VISIBLE * np.array(whole))).any())


def _counts(owners: np.ndarray, objects: int) -> np.ndarray:
    """How many of these pixels belong to each object."""
    return np.bincount(owners[owners >= 0], minlength=objects)


def seen_points(points: np.ndarray, owners: np.ndarray, at: int) -> np.ndarray:
    """The points with COCO's visibility: hidden where another object is in front."""
    out = points.copy()
    size = owners.shape[0]
    for point in out:
        column, row = math.floor(point[0]), math.floor(point[1])
        if point[2] == 0 or not (0 <= column < size and 0 <= row < size):
            point[:] = 0
        elif owners[row, column] > at:
            point[2] = 1
    return out

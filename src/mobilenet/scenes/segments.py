"""An object's shape: polygons, or COCO's run lengths in both of their spellings.

Runs go down the columns, the first of pixels outside. Polygons become the very pixels that
pycocotools paints: edges drawn on a grid five times as fine, columns filled between them
(cocodataset/cocoapi, common/maskApi.c).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FINER = 5.0


@dataclass(frozen=True, eq=False)
class Runs:
    """`counts`: int64 (R,), lengths of runs by turns outside and inside, column by column."""

    height: int
    width: int
    counts: np.ndarray


# Polygons are float32 (P, 2), x, y in pixels, P >= 3; their union is the object
Segment = tuple[np.ndarray, ...] | Runs


def paint(segment: Segment, height: int, width: int) -> np.ndarray:
    """bool (height, width): the pixels of a segment."""
    if isinstance(segment, Runs):
        inside = np.arange(len(segment.counts)) % 2 == 1
        return np.repeat(inside, segment.counts).reshape(segment.width, segment.height).T
    out = np.zeros((height, width), bool)
    for polygon in segment:
        out |= _paint_polygon(np.asarray(polygon, np.float64), height, width)
    return out


def runs_of(mask: np.ndarray) -> Runs:
    """The runs of a bool mask (H, W)."""
    height, width = mask.shape
    flat = np.concatenate([[False], mask.T.reshape(-1)])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    return Runs(height, width, counts.astype(np.int64))


def to_text(runs: Runs) -> str:
    """COCO's compressed spelling: from the fourth run on the difference to the one two before,
    in groups of five bits, a sixth for "more follows", from character "0" on."""
    text: list[str] = []
    counts = runs.counts.tolist()
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            group = value & 31
            value >>= 5
            more = value != (-1 if group & 16 else 0)
            text.append(chr((group | (32 if more else 0)) + 48))
            if not more:
                break
    return "".join(text)


def from_text(text: str, height: int, width: int) -> Runs:
    """The runs of COCO's compressed spelling. Raises ValueError where it is none."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        while True:
            if place == len(text):
                raise ValueError("the compressed runs end in the middle of a number")
            group = ord(text[place]) - 48
            if not 0 <= group < 64:
                raise ValueError(f"compressed runs with the character {text[place]!r}")
            place += 1
            value |= (group & 31) << shift
            shift += 5
            if not group & 32:
                break
        if group & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return checked_runs(counts, height, width)


def checked_runs(counts: Sequence[int], height: int, width: int) -> Runs:
    """Runs that fill a picture. Raises ValueError where they do not."""
    array = np.asarray(counts, np.int64)
    if array.ndim != 1 or (array < 0).any() or array.sum() != height * width:
        raise ValueError(
            f"runs of {int(array.sum())} pixels in a picture of {width} x {height} = "
            f"{height * width}"
        )
    return Runs(height, width, array)


def extent(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """The box x0, y0, x1, y1 around a bool mask's pixels, None where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _paint_polygon(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    corners = np.trunc(_FINER * polygon + 0.5).astype(np.int64)
    u, v = _outline(corners)
    step = np.flatnonzero(u[1:] != u[:-1]) + 1
    across = (np.minimum(u[step], u[step] - (u[step] > u[step - 1])) + 0.5) / _FINER - 0.5
    down = (np.minimum(v[step], v[step - 1]) + 0.5) / _FINER - 0.5
    kept = (np.floor(across) == across) & (across >= 0) & (across <= width - 1)
    rows = np.ceil(np.clip(down[kept], 0, height)).astype(np.int64)
    toggles = np.bincount(across[kept].astype(np.int64) * height + rows, minlength=height * width)
    inside = np.cumsum(toggles[: height * width]) % 2 == 1
    return inside.reshape(width, height).T


def _outline(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every grid point along the closed outline, in its order: (u, v)."""
    across: list[np.ndarray] = []
    down: list[np.ndarray] = []
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = abs(x1 - x0), abs(y1 - y0)
        long, short = (0, 1) if dx >= dy else (1, 0)
        start, end = np.array([x0, y0]), np.array([x1, y1])
        turned = start[long] > end[long]
        if turned:  # the same pixels in both directions
            start, end = end, start
        steps = np.arange(end[long] - start[long] + 1)
        steps = steps[::-1] if turned else steps
        slope = (end[short] - start[short]) / max(end[long] - start[long], 1)
        points = np.empty((2, len(steps)), np.int64)
        points[long] = steps + start[long]
        points[short] = np.trunc(start[short] + slope * steps + 0.5)
        across.append(points[0])
        down.append(points[1])
    return np.concatenate(across), np.concatenate(down)

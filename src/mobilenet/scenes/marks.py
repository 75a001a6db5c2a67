"""From an object as its file gives it to a scene: every defect named, boxes clipped."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from ..preprocess import ImageError, open_image, orientation, read_file
from .scene import Scene
from .segments import Runs, Segment, extent, paint

_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One object as its file gives it. `where`: file and line, or the record's name in it.

    `box`: x0, y0, x1, y1 in pixels; None takes the segment's. `keypoints`: float32 (K, 3).
    """

    where: str
    label: int
    box: tuple[float, float, float, float] | None
    crowd: bool = False
    area: float | None = None
    keypoints: np.ndarray | None = None
    segment: Segment | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """A dataset as its files give it. `splits`: those that they name, else all under "all"."""

    kind: str
    classes: tuple[str, ...]
    splits: dict[str, list[Scene]]
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    flipped: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class Defects:
    """What is wrong in a dataset's files, collected, so that all of it is said at once.

    `clipped`: boxes that reached beyond their picture."""

    source: str
    listed: list[str] = field(default_factory=list)
    clipped: int = 0

    def add(self, where: str | Path, reason: str) -> None:
        self.listed.append(f"{where}: {reason}")

    def settle(self, *, skip_bad: bool) -> list[str]:
        """Notes of what was left out and clipped. Raises DataError where something is wrong and
        is not to be left out."""
        more = len(self.listed) - _LISTED
        text = "\n".join(f"  {line}" for line in self.listed[:_LISTED])
        text += f"\n  and {more} more" if more > 0 else ""
        if self.listed and not skip_bad:
            raise DataError(
                f"{self.source}: {len(self.listed)} defects; mend them, or leave out what they are "
                f"in with skip_bad (--skip-bad)\n{text}"
            )
        notes = [f"left out for {len(self.listed)} defects:\n{text}"] if self.listed else []
        if self.clipped:
            notes.append(f"{self.clipped} boxes reached beyond their pictures and were clipped")
        return notes


def shown_size(path: Path) -> tuple[int, int, bool]:
    """(width, height, whether EXIF turns it on its side) of a picture, from its header.

    Raises ImageError where there is no picture that can be decoded.
    """
    try:
        with Image.open(path) as image:
            # a PNG without EXIF in its head is decoded whole by Pillow to look for one behind it
            plain = image.format == "PNG" and not {"exif", "Raw profile type exif"} & {*image.info}
            turned = not plain and orientation(image) >= 5
            width, height = image.size
    except Exception:  # Pillow's own words are many; the loader's say what is wrong
        image = open_image(read_file(path), str(path))
        turned = orientation(image) >= 5
        width, height = image.size
    return (height, width, True) if turned else (width, height, False)


def check_size(path: Path, where: str, stated: tuple[int, int] | None) -> tuple[int, int]:
    """The size a picture is shown at. Raises ImageError where it is not what its file states."""
    width, height, turned = shown_size(path)
    if stated is None or stated == (width, height):
        return width, height
    wrong = f"{where}: says {stated[0]} x {stated[1]} pixels, {path} is {width} x {height}"
    if turned and stated == (height, width):
        raise ImageError(
            f"{wrong} once turned as its EXIF says, and was labelled unturned: remove its "
            "orientation (exiftool -Orientation= FILE)"
        )
    raise ImageError(f"{wrong}: it was resized after it was labelled, or is another picture")


def build(
    image: Path,
    size: tuple[int, int],
    marks: Sequence[Mark],
    defects: Defects,
    *,
    points: int = 0,
    mask: Path | None = None,
) -> Scene:
    """The scene of a picture and its marks; those that cannot be used are named in `defects`.

    `points`: how many keypoints an object has; 0 for none.
    """
    width, height = size
    kept: list[tuple[Mark, tuple[float, float, float, float]]] = []
    for mark in marks:
        box, reason = _usable_box(mark, width, height)
        if box is None:
            defects.add(mark.where, reason)
            continue
        defects.clipped += mark.box is not None and _beyond(mark.box, width, height)
        kept.append((mark, box))
    boxes = np.array([box for _, box in kept], np.float32).reshape(-1, 4)
    spans = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    areas = [span if m.area is None else m.area for (m, _), span in zip(kept, spans, strict=True)]
    keypoints = None
    if points:
        blank = np.zeros((points, 3), np.float32)
        rows = [blank if mark.keypoints is None else mark.keypoints for mark, _ in kept]
        keypoints = np.array(rows, np.float32).reshape(-1, points, 3)
    segments = tuple(mark.segment for mark, _ in kept)
    return Scene(
        image=image,
        width=width,
        height=height,
        boxes=boxes,
        labels=np.array([mark.label for mark, _ in kept], np.int64),
        crowd=np.array([mark.crowd for mark, _ in kept], bool),
        areas=np.array(areas, np.float32),
        keypoints=keypoints,
        segments=segments if any(segment is not None for segment in segments) else None,
        mask=mask,
    )


def mirrored_names(names: Sequence[str]) -> tuple[int, ...]:
    """The position of each keypoint in a mirrored picture: left and right change places, where
    both are there."""
    places = {name.lower(): place for place, name in enumerate(names)}
    swap = {"left": "right", "right": "left"}
    flipped: list[int] = []
    for place, name in enumerate(names):
        words = name.lower().replace("-", "_").replace(" ", "_").split("_")
        other = "_".join(swap.get(word, word) for word in words)
        found = [at for key, at in places.items() if _plain(key) == other]
        flipped.append(found[0] if found else place)
    return tuple(flipped)


def read_text(path: Path) -> str:
    """A text file in UTF-8. Raises DataError."""
    try:
        return path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 from byte {error.start} on; save it as UTF-8") from None


def _plain(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_")


def _usable_box(
    mark: Mark, width: int, height: int
) -> tuple[tuple[float, float, float, float] | None, str]:
    """The box clipped to the picture, or why there is none."""
    box = mark.box
    if box is None:
        if mark.segment is None:
            return None, "neither a box nor a segment; label it anew or remove it"
        box = _around(mark.segment)
        if box is None:
            return None, "a segment without a pixel; remove it"
    if not all(math.isfinite(value) for value in box):
        return None, f"box {_show(box)} is not made of numbers; label it anew or remove it"
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        return None, (
            f"box {_show(box)} (x0, y0, x1, y1) is {x1 - x0:g} x {y1 - y0:g} pixels; label it anew "
            "or remove it"
        )
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    # in float32, as it will be kept
    low, high = np.array(clipped, np.float32).reshape(2, 2)
    if (high <= low).any():
        return None, (
            f"box {_show(box)} (x0, y0, x1, y1) lies outside its picture of {width} x {height}; "
            "label it anew or remove it"
        )
    return clipped, ""


def _beyond(box: tuple[float, float, float, float], width: int, height: int) -> bool:
    return box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height


def _around(segment: Segment) -> tuple[float, float, float, float] | None:
    if isinstance(segment, Runs):
        return extent(paint(segment, segment.height, segment.width))
    points = np.concatenate(segment)
    (x0, y0), (x1, y1) = points.min(0).tolist(), points.max(0).tolist()
    return x0, y0, x1, y1


def _show(box: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "]"

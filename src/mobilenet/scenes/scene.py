"""What a labelled scene is: a picture, what is on it and where."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..preprocess import decode
from .segments import Segment, paint

VOID = 255  # in a mask: neither right nor wrong


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A picture and what is on it.

    `width`, `height`: pixels, as the picture is shown (EXIF orientation applied).
    `boxes`: float32 (N, 4), x0, y0, x1, y1 in pixels, x1 > x0, y1 > y0.
    `labels`: int64 (N,), positions in `SceneData.classes`, no background.
    `crowd`: bool (N,), COCO's iscrowd, VOC's difficult: neither right nor wrong.
    `areas`: float32 (N,), px²: COCO's "area", else the box's.
    `keypoints`: float32 (N, K, 3), x, y, visibility: 0 not labelled, 1 hidden, 2 visible.
    `segments`: each object's polygons or runs, None for one that has none.
    `mask`: PNG of class indices: 0 background, i + 1 class i, 255 void.
    """

    image: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    keypoints: np.ndarray | None = None
    segments: tuple[Segment | None, ...] | None = None
    mask: Path | None = None

    def pixels(self) -> np.ndarray:
        """The picture, uint8 (H, W, 3), upright. Raises ImageError where it cannot be decoded."""
        return np.array(decode(self.image))

    def semantic(self) -> np.ndarray:
        """uint8 (H, W), from the mask, else from the segments: 0 background, i + 1 class i, 255
        void and crowds. Where objects overlap, the smaller one is in front.

        Raises DataError where an object has no segment, or the mask is none of class indices.
        """
        if self.mask is not None:
            return read_mask(self.mask, self.width, self.height)
        if self.segments is None and len(self.boxes):
            raise DataError(f"{self.image}: boxes only, without a mask or segments of its objects")
        out = np.zeros((self.height, self.width), np.uint8)
        order = np.lexsort((-self.areas, ~self.crowd))  # crowds first, then from large to small
        for index in order:
            segment = self.segments[index] if self.segments is not None else None
            if segment is None:
                raise DataError(f"{self.image}: object {index + 1} of {len(order)} has no segment")
            value = VOID if self.crowd[index] else int(self.labels[index]) + 1
            out[paint(segment, self.height, self.width)] = value
        return out


@dataclass(frozen=True, kw_only=True)
class SceneData:
    """Labelled scenes on disk, by split ("train", "val", "test").

    `kind`: "coco", "voc", "yolo", "wider" or "masks". `keypoints`: their names. `skeleton`: pairs
    of positions in them that a line joins. `flipped`: the position of each in a mirrored picture
    (left eye for right eye). `notes`: what was decided or left out on opening, in words.
    """

    kind: str
    source: str
    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[Scene]]
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    flipped: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def read_mask(path: Path, width: int, height: int) -> np.ndarray:
    """A PNG of class indices to uint8 (height, width). Raises DataError for any other picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L", "1"):
                raise DataError(
                    f"{path}: a mask of mode {image.mode}: expected one channel of class indices, "
                    "0 for the background, 1 for the first class, 255 for void"
                )
            if image.size != (width, height):
                raise DataError(
                    f"{path}: {image.width} x {image.height} pixels, but its picture has "
                    f"{width} x {height}"
                )
            return np.array(image, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: a mask that cannot be read: {error}") from error


def check_mask(path: Path, width: int, height: int, classes: int) -> None:
    """Raise DataError for a mask that is not this picture's, or whose indices name no class."""
    values = read_mask(path, width, height)
    there = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256))
    wrong = [value for value in there.tolist() if classes < value != VOID]
    if wrong:
        raise DataError(
            f"{path}: the values {wrong[:5]}, but 0 is the background, 1 to {classes} are the "
            "classes and 255 is void; write class indices, or name all classes"
        )
    if classes == 1 and there.tolist() == [0, VOID]:
        raise DataError(f"{path}: only 0 and 255, and 255 is void: write 1 where the class is")

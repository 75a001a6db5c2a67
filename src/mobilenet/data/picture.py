"""A picture whose pixels are decoded when asked for, and no finer than they are needed.

Training's random crops are mostly shrunk. A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size
for less than the whole costs (the inverse DCT gives fewer pixels), so the crop is chosen from the
header alone and then read at the smallest of these scales that still has enough pixels.
libjpeg-turbo's other eighths have no fast code and cost more than the full size.
Evaluation never comes here: the contract's decode is exact.
"""

import numpy as np
from PIL import Image

from ..preprocess import MAX_PIXELS, decode, open_image, orientation, upright

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels

# EXIF orientations, by what they do to the stored rows and columns
_SIDEWAYS = (5, 6, 7, 8)
_MIRRORED_ACROSS = (2, 3, 7, 8)
_MIRRORED_DOWN = (3, 4, 6, 7)


class Picture:
    """One picture of a split. `size`: (width, height) in pixels, upright."""

    def __init__(self, data: bytes, name: str | None = None) -> None:
        """`data`: the encoded file. Raises ImageError where it cannot be decoded."""
        self.size: tuple[int, int]
        self._data = data
        self._name = name
        self._pixels: np.ndarray | None = None
        self._orientation = 1
        header = _jpeg_size(data)
        if header is None:
            self._pixels = np.asarray(decode(data, name=name))
            self.size = (self._pixels.shape[1], self._pixels.shape[0])
            return
        # Only these two markers can turn a JPEG, and most have neither
        if b"Exif\0\0" in data or b"ns.adobe.com/xap" in data:
            self._orientation = orientation(open_image(data, name))
        width, height = header
        self.size = (height, width) if self._orientation in _SIDEWAYS else header

    @classmethod
    def from_image(cls, image: Image.Image) -> "Picture":
        """A picture that is decoded already, mode RGB."""
        picture = cls.__new__(cls)
        picture._data, picture._name, picture._orientation = b"", None, 1
        picture._pixels = np.asarray(image)
        picture.size = image.size
        return picture

    def crop(self, box: Box, size: int) -> np.ndarray:
        """The pixels inside `box`, uint8 (H, W, 3), contiguous.

        At the full scale, or at a smaller one where that leaves at least `size` pixels a side; the
        box then grows to whole pixels of that scale. Raises ImageError where the file is damaged.
        """
        if self._pixels is not None:
            return _cut(self._pixels, box, 1)
        shrink = min(box[2] - box[0], box[3] - box[1]) // size
        scale = next(scale for scale in (8, 4, 2, 1) if scale <= max(shrink, 1))
        pixels = _decode_jpeg(self._data, scale)
        if pixels is None:  # odd or damaged: the contract's decoder takes it or says why not
            return _cut(np.asarray(decode(self._data, name=self._name)), box, 1)
        part = _cut(pixels, self._stored(box), scale)
        if self._orientation == 1:
            return part
        return np.asarray(upright(Image.fromarray(part), self._orientation))

    def _stored(self, box: Box) -> Box:
        """Where a box of the upright picture is in the stored one."""
        left, top, right, bottom = box
        width, height = self.size
        if self._orientation in _SIDEWAYS:
            left, top, right, bottom = top, left, bottom, right
            width, height = height, width
        if self._orientation in _MIRRORED_ACROSS:
            left, right = width - right, width - left
        if self._orientation in _MIRRORED_DOWN:
            top, bottom = height - bottom, height - top
        return left, top, right, bottom


def _cut(pixels: np.ndarray, box: Box, scale: int) -> np.ndarray:
    """A box given at the full scale out of pixels that each cover `scale` of its pixels."""
    left, top, right, bottom = box
    return np.ascontiguousarray(
        pixels[top // scale : -(-bottom // scale), left // scale : -(-right // scale)]
    )


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a JPEG that can be decoded at a scale, else None."""
    if not data.startswith(b"\xff\xd8"):
        return None
    try:
        import simplejpeg
    except ImportError:
        image = open_image(data)
        return image.size if image.mode in ("L", "RGB") else None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    width, height = int(width), int(height)
    fits = 0 < width * height <= MAX_PIXELS and colours in ("Gray", "YCbCr", "RGB")
    return (width, height) if fits else None


def _decode_jpeg(data: bytes, scale: int) -> np.ndarray | None:
    """A JPEG at 1/`scale` of its size, uint8 (H, W, 3); None where it is not sound."""
    try:
        import simplejpeg
    except ImportError:
        return _draft_jpeg(data, scale)
    try:
        if scale == 1:
            return simplejpeg.decode_jpeg(data, "RGB")
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        rows, columns = -(-int(height) // scale), -(-int(width) // scale)
        return simplejpeg.decode_jpeg(data, "RGB", min_height=rows, min_width=columns)
    except ValueError:
        return None


def _draft_jpeg(data: bytes, scale: int) -> np.ndarray | None:
    image = open_image(data)
    image.draft("RGB", (image.width // scale, image.height // scale))
    try:
        return np.asarray(image.convert("RGB"))
    except OSError:
        return None

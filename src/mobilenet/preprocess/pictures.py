"""Pictures decoded, resized, cropped and normalised as a `Preprocess` says, by Pillow."""

import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError
from .contract import Preprocess

Source = bytes | str | Path | Image.Image | np.ndarray

# Raster formats that Pillow itself parses: none that runs another program (EPS) or fetches anything
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB, Pillow's own limit; checked before decoding
MAX_FILE_BYTES = 2**28

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NOT_IMAGES = (
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer: fetch the file, git lfs pull"),
    (re.compile(rb"....ftyp(?:hei|hev|mif1|msf1)", re.S), "HEIC, which is not read: save as JPEG"),
    (re.compile(rb"\s*<(?:\?xml|!doctype|html|svg)", re.I), "an HTML, SVG or XML text"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"[\t\n\r -~]+\Z"), "a text"),
)


class ImageError(DataError):
    """A picture that cannot be decoded, or is refused. `name`: the file, None for bytes."""

    def __init__(self, reason: str, name: str | None = None) -> None:
        super().__init__(reason if name is None else f"{name}: {reason}")
        self.reason = reason
        self.name = name


def decode(source: Source, *, name: str | None = None) -> Image.Image:
    """Any picture to a Pillow image of mode RGB, upright.

    `source`: encoded bytes, a path, a Pillow image, or a uint8 or uint16 array (H, W),
    (H, W, 3) or (H, W, 4). `name`: what errors call it (a path is its own name).
    Raises ImageError for what cannot be decoded or is refused.
    """
    if isinstance(source, np.ndarray):
        return _decode_array(source, name)
    if isinstance(source, Image.Image):
        image = source
    elif isinstance(source, bytes):
        image = open_image(source, name)
    else:
        name = name or str(source)
        image = open_image(read_file(source), name)
    with _quiet_pillow():
        try:
            image.load()
            return upright(_to_rgb(image, name), orientation(image))
        except ImageError:
            raise
        except Exception as error:  # malformed files escape from Pillow as any exception
            kind = image.format or image.mode
            raise ImageError(f"truncated or damaged {kind}: {_describe(error)}", name) from error


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture's file. Raises ImageError where it is missing, empty or too large."""
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file", str(path))
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file", str(path))
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(
                f"{status.st_size} bytes, more than the limit of {MAX_FILE_BYTES}", str(path)
            )
        return path.read_bytes()
    except FileNotFoundError:
        reason = "broken link" if path.is_symlink() else "no such file"
        raise ImageError(reason, str(path)) from None
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}", str(path)) from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(f"not a file name: {error}", repr(str(path))) from error


def open_image(data: bytes, name: str | None = None) -> Image.Image:
    """Parse the header only: size, mode and format are known, no pixel is decoded.

    Raises ImageError for empty or foreign data and for more than MAX_PIXELS pixels.
    """
    if not data:
        raise ImageError("the file is empty (0 bytes)", name)
    with _quiet_pillow():
        try:
            image = Image.open(io.BytesIO(data), formats=_formats())
        except Image.UnidentifiedImageError:
            raise ImageError(_why_not_an_image(data), name) from None
        except Image.DecompressionBombError:
            raise ImageError(_too_large("twice the limit or more"), name) from None
        except Exception as error:  # malformed files escape from Pillow as any exception
            raise ImageError(f"damaged header: {_describe(error)}", name) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(_too_large(f"{width} x {height} pixels"), name)
    return image


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none or the EXIF is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata does not spoil the pixels
        return 1
    return value if value in _TRANSPOSE else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror an image as its EXIF orientation says."""
    return image.transpose(_TRANSPOSE[orientation]) if orientation in _TRANSPOSE else image


def crop_and_resize(image: Image.Image, pre: Preprocess) -> np.ndarray:
    """An RGB image to uint8 (size, size, 3) by the contract's resize and crop rules."""
    size, resample = pre.size, _RESAMPLING[pre.interpolation]
    width, height = image.size
    if pre.resize_mode == "stretch":
        return np.asarray(image.resize((size, size), resample))
    if pre.crop_fraction is not None:
        left = int((width - width * pre.crop_fraction) / 2)
        top = int((height - height * pre.crop_fraction) / 2)
        central = image.crop((left, top, width - left, height - top))
        return np.asarray(central.resize((size, size), resample))
    assert pre.resize is not None
    resize = pre.resize
    if width <= height:
        new_width, new_height = resize, int(resize * height / width)
    else:
        new_width, new_height = int(resize * width / height), resize
    left, top = _centre(new_width, size), _centre(new_height, size)
    if new_width * new_height > MAX_PIXELS:
        # a picture thousands of times longer than wide: resize no more than what the crop keeps
        across, along = width / new_width, height / new_height
        right, bottom = min(left + size, new_width), min(top + size, new_height)
        box = (max(left, 0) * across, max(top, 0) * along, right * across, bottom * along)
        kept = (right - max(left, 0), bottom - max(top, 0))
        image = image.resize(kept, resample, box=box)
        left, top = min(left, 0), min(top, 0)
    else:
        image = image.resize((new_width, new_height), resample)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def normalise(images: np.ndarray, pre: Preprocess) -> np.ndarray:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W): ((x / 255) - mean) / std, in that order."""
    mean = np.array(pre.mean, np.float32)[:, None, None]
    std = np.array(pre.std, np.float32)[:, None, None]
    count, height, width, channels = images.shape
    tensors = np.empty((count, channels, height, width), np.float32)
    for image, tensor in zip(images, tensors, strict=True):  # one at a time: it stays in cache
        tensor[...] = image.transpose(2, 0, 1)
        tensor /= np.float32(255)
        tensor -= mean
        tensor /= std
    return tensors


def _centre(length: int, size: int) -> int:
    """Offset of the centred crop, rounded as torchvision does; negative where zeros are padded."""
    return round((length - size) / 2) if length >= size else -((size - length) // 2)


def _decode_array(array: np.ndarray, name: str | None) -> Image.Image:
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise ImageError(
            f"array of {array.dtype} {array.shape}: expected uint8 or uint16, (H, W), (H, W, 3) "
            "or (H, W, 4)",
            name,
        )
    if array.size == 0:
        raise ImageError(f"array of shape {array.shape} has no pixels", name)
    array = array[..., 0] if array.ndim == 3 and channels == 1 else array
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)), name)


def _to_rgb(image: Image.Image, name: str | None) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image)  # sixteen bits, which older Pillows hold in 32
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(f"samples of 32 bits (mode {image.mode}) have no fixed range", name)
    if image.has_transparency_data:
        if image.mode in ("La", "RGBa"):
            image = image.convert(image.mode.replace("a", "A"))
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return image.convert("RGB")


def _formats() -> list[str]:
    """The formats this Pillow was built with."""
    if not set(FORMATS) <= set(Image.OPEN):
        Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _why_not_an_image(data: bytes) -> str:
    for pattern, kind in _NOT_IMAGES:
        if pattern.match(data[:64]):
            return f"not an image but {kind}"
    expected = ", ".join(name for name in FORMATS if name not in ("MPO", "PPM"))
    return f"not an image, or damaged in its first bytes ({data[:8].hex(' ')}): expected {expected}"


def _too_large(what: str) -> str:
    return f"{what}: more than the limit of {MAX_PIXELS} pixels against decompression bombs"


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


class _Quiet:
    """How many threads are decoding, and the lock that guards the count."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.threads = 0


_quiet = _Quiet()
_PILLOW = r"PIL\."


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Keep Pillow's warnings (damaged EXIF, large images) in: what matters is raised here.

    `warnings.catch_warnings` swaps the process's list of filters, which threads that overlap
    would leave swapped. Here the first thread adds one filter, for Pillow alone, and the last
    one removes it.
    """
    with _quiet.lock:
        if _quiet.threads == 0:
            warnings.filterwarnings("ignore", module=_PILLOW)
        _quiet.threads += 1
    try:
        yield
    finally:
        with _quiet.lock:
            _quiet.threads -= 1
            if _quiet.threads == 0:
                own = ("ignore", None, Warning, re.compile(_PILLOW), 0)
                while own in warnings.filters:
                    warnings.filters.remove(own)  # pyright: ignore[reportAttributeAccessIssue]

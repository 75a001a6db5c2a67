"""The one preprocessing contract: from a file to the float tensor that a network sees.

Training's evaluation, predictions and exported artifacts all go through `preprocess`; a device
that wants the same answers must do what `Preprocess.to_dict` says. Pillow's resize is the
reference: antialiased, fixed point, the same bits as torchvision's and timm's PIL path.
"""

import io
import math
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from .errors import DataError, UsageError

ResizeMode = Literal["shorter", "stretch", "crop_fraction"]
Interpolation = Literal["bilinear", "bicubic"]
Source = bytes | str | Path | Image.Image | np.ndarray

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # mean and std of the [-1, 1] convention of Inception, slim and Keras

# Raster formats that Pillow itself parses: none that runs another program (EPS) or fetches anything
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
MAX_PIXELS = 89_478_485  # a quarter of a GiB as RGB, Pillow's own limit; checked before decoding
MAX_FILE_BYTES = 2**28

VERSION = 1
CHANNELS = "RGB"
LAYOUT = "NCHW"
DECODING = {
    "orientation": "exif",  # applied
    "alpha": "white",  # composited on white, colour keys and transparent palettes too
    "sixteen_bit": "high_byte",  # value >> 8
    "animation": "first_frame",
    "colour_profile": "ignored",
}

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


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a decoded picture becomes a network's input: float32 (3, size, size), RGB.

    `resize_mode`: "shorter" resizes the shorter side to `resize` pixels, then crops the centre
    (torchvision, timm); "stretch" resizes to a square (Keras); "crop_fraction" crops the central
    `crop_fraction` of each side, then resizes to a square (slim). `mean` and `std` are of RGB
    values in [0, 1]. Raises UsageError for values that cannot work.
    """

    size: int
    resize_mode: ResizeMode
    resize: int | None = None
    crop_fraction: float | None = None
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if not _is_count(self.size):
            raise UsageError(f"preprocess: size {self.size!r}: expected pixels, at least 1")
        if self.resize_mode not in ("shorter", "stretch", "crop_fraction"):
            raise UsageError(
                f"preprocess: resize_mode {self.resize_mode!r}: expected 'shorter', 'stretch' or "
                "'crop_fraction'"
            )
        if self.interpolation not in _RESAMPLING:
            raise UsageError(
                f"preprocess: interpolation {self.interpolation!r}: expected one of "
                f"{sorted(_RESAMPLING)}"
            )
        if (self.resize is not None) != (self.resize_mode == "shorter") or (
            self.resize is not None and not _is_count(self.resize)
        ):
            raise UsageError(
                f"preprocess: resize {self.resize!r}: pixels of the shorter side with resize_mode "
                "'shorter', else None"
            )
        fraction = self.crop_fraction
        if (fraction is not None) != (self.resize_mode == "crop_fraction") or (
            fraction is not None and not (_is_number(fraction) and 0 < fraction <= 1)
        ):
            raise UsageError(
                f"preprocess: crop_fraction {fraction!r}: in (0, 1] with resize_mode "
                "'crop_fraction', else None"
            )
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(_is_number(value) for value in values):
                raise UsageError(f"preprocess: {name} {values!r}: expected three numbers")
        if min(self.std) <= 0:
            raise UsageError(f"preprocess: std {self.std!r}: expected three numbers above 0")

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of the whole contract, the fixed rules included."""
        own = {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}
        return {
            "version": VERSION,
            **own,
            "antialias": True,
            "channels": CHANNELS,
            "layout": LAYOUT,
            "decode": dict(DECODING),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`. Raises UsageError for another version, unknown or missing
        fields, and rules that this version does not follow."""
        fixed = {
            "version": VERSION,
            "antialias": True,
            "channels": CHANNELS,
            "layout": LAYOUT,
            "decode": DECODING,
        }
        own = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - own - set(fixed))
        missing = sorted((own | set(fixed)) - set(data))
        if unknown or missing:
            raise UsageError(f"preprocess: unknown fields {unknown}, missing fields {missing}")
        for key, value in fixed.items():
            if data[key] != value:
                raise UsageError(f"preprocess: {key} {data[key]!r}: this version knows {value!r}")
        values: dict[str, Any] = {key: data[key] for key in own}
        for key in ("mean", "std"):
            if not isinstance(data[key], list | tuple):
                raise UsageError(f"preprocess: {key} {data[key]!r}: expected three numbers")
            values[key] = tuple(data[key])
        return cls(**values)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def torchvision(size: int = 224, *, resize: int | None = None) -> Preprocess:
    """torchvision's: bilinear, shorter side 256 for 224 (in that proportion where not given)."""
    return Preprocess(
        size=size,
        resize_mode="shorter",
        resize=round(size * 256 / 224) if resize is None else resize,
    )


def timm(
    size: int = 224,
    *,
    crop_pct: float = 0.875,
    interpolation: Interpolation = "bicubic",
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Preprocess:
    """timm's: the shorter side to floor(size / crop_pct), then the centre."""
    return Preprocess(
        size=size,
        resize_mode="shorter",
        resize=math.floor(size / crop_pct),
        interpolation=interpolation,
        mean=mean,
        std=std,
    )


def keras(size: int = 224) -> Preprocess:
    """Keras applications': stretched to a square, values in [-1, 1]."""
    return Preprocess(size=size, resize_mode="stretch", mean=HALF, std=HALF)


def slim(size: int = 224) -> Preprocess:
    """TF-slim's Inception evaluation: the central 87.5 % of each side, values in [-1, 1].

    slim's own bilinear filter is not antialiased; this one is.
    """
    return Preprocess(
        size=size, resize_mode="crop_fraction", crop_fraction=0.875, mean=HALF, std=HALF
    )


def preprocess(source: Source, pre: Preprocess) -> np.ndarray:
    """A picture to float32 (3, size, size). Raises ImageError where it cannot be decoded."""
    return normalise(crop_and_resize(decode(source), pre)[None], pre)[0]


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

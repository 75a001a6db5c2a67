"""`Preprocess`, the contract itself, without Pillow."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import UsageError

ResizeMode = Literal["shorter", "stretch", "crop_fraction"]
Interpolation = Literal["bilinear", "bicubic"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)  # mean and std of the [-1, 1] convention of Inception, slim and Keras

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
        if self.interpolation not in ("bilinear", "bicubic"):
            raise UsageError(
                f"preprocess: interpolation {self.interpolation!r}: expected one of "
                "['bicubic', 'bilinear']"
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

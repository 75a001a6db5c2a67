"""The one preprocessing contract: from a file to the float tensor that a network sees.

Training's evaluation, predictions and exported artifacts all go through `preprocess`; a device
that wants the same answers must do what `Preprocess.to_dict` says. Pillow's resize is the
reference: antialiased, fixed point, the same bits as torchvision's and timm's PIL path.

Pillow is imported with the first picture: a model that is fed arrays starts without it.
"""

from typing import TYPE_CHECKING, Any

from .contract import (
    HALF,
    IMAGENET_MEAN,
    IMAGENET_STD,
    Interpolation,
    Preprocess,
    ResizeMode,
    keras,
    slim,
    timm,
    torchvision,
)

if TYPE_CHECKING:
    import numpy as np

    from .pictures import (
        MAX_PIXELS,
        ImageError,
        Source,
        crop_and_resize,
        decode,
        normalise,
        open_image,
        orientation,
        read_file,
        upright,
    )

__all__ = [
    "HALF",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "MAX_PIXELS",
    "ImageError",
    "Interpolation",
    "Preprocess",
    "ResizeMode",
    "Source",
    "crop_and_resize",
    "decode",
    "keras",
    "normalise",
    "open_image",
    "orientation",
    "preprocess",
    "read_file",
    "slim",
    "timm",
    "torchvision",
    "upright",
]


def preprocess(source: "Source", pre: Preprocess) -> "np.ndarray":
    """A picture to float32 (3, size, size). Raises ImageError where it cannot be decoded."""
    from .pictures import crop_and_resize, decode, normalise

    return normalise(crop_and_resize(decode(source), pre)[None], pre)[0]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import pictures

    return getattr(pictures, name)

"""Training-only transforms: random crops, flips, policies, erasing; mixup and cutmix of batches.

Every draw comes from the generator that is passed in, so that a picture's augmentation is a
function of that generator alone. Crops are resized by torch's uint8 kernel, which is several times
as fast as Pillow's and within one level of it (bilinear); evaluation keeps Pillow's bits.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from .data import Picture
from .data.picture import Box
from .errors import MissingDependency, UsageError
from .preprocess import Preprocess

if TYPE_CHECKING:
    import torch

Policy = Literal["none", "trivial", "rand"]

POLICIES = ("none", "trivial", "rand")
LEVELS = 30  # magnitudes of the policies run from 0 to this
ERASED_AREA = (0.02, 0.33)  # of the picture; Zhong et al., Table 1's s_l and torchvision's s_h
ERASED_RATIO = (0.3, 3.3)
_TRIES = 10  # for a random rectangle to fit


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a training picture is varied. The defaults are those for ImageNet from scratch.

    `crop_scale`, `crop_ratio`: area of the crop as a share of the picture, and its width / height
    (Inception). `flip`: probability of mirroring. `policy`: "trivial" (TrivialAugmentWide) or
    "rand" (RandAugment: `rand_n` operations of magnitude `rand_m`, 0 to 30). `shift`: how far the
    crop is moved at most, as a share of its side. `erase`: probability of random erasing.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    policy: Policy = "none"
    rand_n: int = 2
    rand_m: int = 9
    shift: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise UsageError(f"crop_scale {self.crop_scale}: expected 0 < low <= high <= 1")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise UsageError(f"crop_ratio {self.crop_ratio}: expected 0 < low <= high")
        for name in ("flip", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} {getattr(self, name)}: expected a probability")
        if not 0 <= self.shift < 1:
            raise UsageError(f"shift {self.shift}: expected a share of the side, 0 to below 1")
        if self.policy not in POLICIES:
            raise UsageError(f"policy {self.policy!r}: expected one of {POLICIES}")
        if self.rand_n < 0 or not 0 <= self.rand_m <= LEVELS:
            raise UsageError(
                f"rand_n {self.rand_n}, rand_m {self.rand_m}: expected operations, and a magnitude "
                f"from 0 to {LEVELS}"
            )


def build(
    augment: Augment, pre: Preprocess
) -> Callable[[Picture | Image.Image, np.random.Generator], np.ndarray]:
    """The transform from a picture and its random numbers to uint8 (size, size, 3).

    Raises MissingDependency without torch, and the transform ImageError for a damaged file.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingDependency("torch", "train", "augmentation") from None
    policy = _POLICIES[augment.policy]
    mean = np.round(np.array(pre.mean) * 255).astype(np.uint8)

    def transform(source: Picture | Image.Image, rng: np.random.Generator) -> np.ndarray:
        picture = source if isinstance(source, Picture) else Picture.from_image(source)
        box = random_crop(picture.size, augment.crop_scale, augment.crop_ratio, rng)
        pixels = resize(picture.crop(box, pre.size), pre.size, pre.interpolation)
        if rng.random() < augment.flip:
            pixels = np.ascontiguousarray(pixels[:, ::-1])
        if policy is not None:
            pixels = np.asarray(policy(Image.fromarray(pixels), augment, rng))
        if augment.shift:
            pixels = _shift(pixels, augment.shift, rng)
        if rng.random() < augment.erase:
            pixels = _erase(pixels, mean, rng)
        return pixels

    return transform


def resize(pixels: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """uint8 (H, W, 3), contiguous, to (size, size, 3), antialiased."""
    import torch
    from torch.nn.functional import interpolate

    if not pixels.flags.writeable:  # torch warns of memory that it must not write
        pixels = pixels.copy()
    # A batch of one in NHWC: the fast kernel wants its channels last
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    small = interpolate(batch, (size, size), mode=interpolation, antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def random_crop(
    size: tuple[int, int],
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> Box:
    """A box in a picture of `size` (width, height): its area drawn evenly from `scale`, the
    logarithm of its width / height evenly from `ratio`; the centre where ten draws do not fit
    (Szegedy et al. 2015, as torchvision's RandomResizedCrop)."""
    width, height = size
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    aspect = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def mixup_cutmix(
    images: "torch.Tensor",
    targets: "torch.Tensor",
    rng: np.random.Generator,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Each picture mixed with its neighbour in the batch; one of the two ways where both are on.

    `images` float (N, C, H, W), `targets` float (N, classes); an alpha of 0 turns its way off.
    mixup: Zhang et al. 2018, one weight from Beta(alpha, alpha) for the batch. cutmix: Yun et al.
    2019, a box whose share of the picture is such a weight; targets follow the box's true area.
    """
    ways = [mix for mix, alpha in ((mixup, mixup_alpha), (cutmix, cutmix_alpha)) if alpha > 0]
    if not ways:
        return images, targets
    way = ways[int(rng.integers(len(ways)))]
    alpha = mixup_alpha if way is mixup else cutmix_alpha
    weight = float(rng.beta(alpha, alpha))
    if way is mixup:
        return mixup(images, targets, weight)
    height, width = images.shape[-2:]
    return cutmix(images, targets, random_box(width, height, 1 - weight, rng))


def mixup(
    images: "torch.Tensor", targets: "torch.Tensor", weight: float
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """`weight` of each picture and target, the rest of the one before it in the batch."""
    return (
        images * weight + images.roll(1, 0) * (1 - weight),
        targets * weight + targets.roll(1, 0) * (1 - weight),
    )


def cutmix(
    images: "torch.Tensor", targets: "torch.Tensor", box: Box
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The pixels in `box` from the picture before it in the batch, and so much of its target."""
    left, top, right, bottom = box
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    share = (right - left) * (bottom - top) / (images.shape[-1] * images.shape[-2])
    return mixed, targets * (1 - share) + targets.roll(1, 0) * share


def random_box(width: int, height: int, share: float, rng: np.random.Generator) -> Box:
    """A box of `share` of the area around an even random centre, cut off at the borders."""
    x, y = int(rng.integers(width)), int(rng.integers(height))
    half = 0.5 * math.sqrt(share)
    dx, dy = int(half * width), int(half * height)
    return max(x - dx, 0), max(y - dy, 0), min(x + dx, width), min(y + dy, height)


def _shift(pixels: np.ndarray, most: float, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to `most` of each side; what comes in is black."""
    height, width, _ = pixels.shape
    reach_x, reach_y = int(most * width), int(most * height)
    x = int(rng.integers(-reach_x, reach_x + 1))
    y = int(rng.integers(-reach_y, reach_y + 1))
    moved = np.zeros_like(pixels)
    moved[max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)] = pixels[
        max(-y, 0) : height + min(-y, 0), max(-x, 0) : width + min(-x, 0)
    ]
    return moved


def _erase(pixels: np.ndarray, value: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random rectangle set to `value` (Zhong et al. 2020)."""
    height, width, _ = pixels.shape
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*ERASED_AREA)
        aspect = math.exp(rng.uniform(math.log(ERASED_RATIO[0]), math.log(ERASED_RATIO[1])))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
            erased = pixels.copy()
            erased[top : top + h, left : left + w] = value
            return erased
    return pixels


# The operations of the policies. Each takes an RGB image and a magnitude in its own units.


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Nearest neighbour, black outside, as both papers' code."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def _shear_x(image: Image.Image, slope: float) -> Image.Image:
    return _affine(image, (1, slope, 0, 0, 1, 0))


def _shear_y(image: Image.Image, slope: float) -> Image.Image:
    return _affine(image, (1, 0, 0, slope, 1, 0))


def _translate_x(image: Image.Image, pixels: float) -> Image.Image:
    return _affine(image, (1, 0, -int(pixels), 0, 1, 0))


def _translate_y(image: Image.Image, pixels: float) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, -int(pixels)))


def _posterize(image: Image.Image, bits: float) -> Image.Image:
    return ImageOps.posterize(image, int(bits))


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, _: image,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "rotate": lambda image, degrees: image.rotate(degrees),
    "brightness": lambda image, by: ImageEnhance.Brightness(image).enhance(1 + by),
    "colour": lambda image, by: ImageEnhance.Color(image).enhance(1 + by),
    "contrast": lambda image, by: ImageEnhance.Contrast(image).enhance(1 + by),
    "sharpness": lambda image, by: ImageEnhance.Sharpness(image).enhance(1 + by),
    "posterize": _posterize,
    "solarize": lambda image, threshold: ImageOps.solarize(image, math.ceil(threshold)),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}


@dataclass(frozen=True)
class Strength:
    """An operation's magnitude at levels 0 and 30, linear between; `signed`: in both directions."""

    low: float
    high: float
    signed: bool

    def at(self, level: int) -> float:
        return self.low + (self.high - self.low) * level / LEVELS


# fmt: off
# TrivialAugment, Müller and Hutter 2021, Table 1, column "Wide"
TRIVIAL: dict[str, Strength] = {
    #                       low   high  signed
    "identity":     Strength(0,    0,   False),
    "shear_x":      Strength(0, 0.99,    True),
    "shear_y":      Strength(0, 0.99,    True),
    "translate_x":  Strength(0,   32,    True),  # pixels
    "translate_y":  Strength(0,   32,    True),
    "rotate":       Strength(0,  135,    True),  # degrees
    "brightness":   Strength(0, 0.99,    True),
    "colour":       Strength(0, 0.99,    True),
    "contrast":     Strength(0, 0.99,    True),
    "sharpness":    Strength(0, 0.99,    True),
    "posterize":    Strength(8,    2,   False),  # bits kept
    "solarize":     Strength(255,  0,   False),  # threshold
    "autocontrast": Strength(0,    0,   False),
    "equalize":     Strength(0,    0,   False),
}

# RandAugment, Cubuk et al. 2020, with AutoAugment's ranges; translations as shares of the side
RAND: dict[str, Strength] = {
    "identity":     Strength(0,    0,   False),
    "shear_x":      Strength(0,  0.3,    True),
    "shear_y":      Strength(0,  0.3,    True),
    "translate_x":  Strength(0, 150 / 331, True),
    "translate_y":  Strength(0, 150 / 331, True),
    "rotate":       Strength(0,   30,    True),
    "brightness":   Strength(0,  0.9,    True),
    "colour":       Strength(0,  0.9,    True),
    "contrast":     Strength(0,  0.9,    True),
    "sharpness":    Strength(0,  0.9,    True),
    "posterize":    Strength(8,    4,   False),
    "solarize":     Strength(255,  0,   False),
    "autocontrast": Strength(0,    0,   False),
    "equalize":     Strength(0,    0,   False),
}
# fmt: on


def apply(
    image: Image.Image, name: str, strength: Strength, level: int, *, negative: bool
) -> Image.Image:
    """One operation at a level of 0 to 30; whole bits and thresholds where it takes those."""
    magnitude = strength.at(level)
    if name == "posterize":
        magnitude = round(magnitude)
    elif name.startswith("translate") and strength.high < 1:
        magnitude *= image.width
    return OPERATIONS[name](image, -magnitude if strength.signed and negative else magnitude)


def _trivial(image: Image.Image, _: Augment, rng: np.random.Generator) -> Image.Image:
    """One operation, evenly drawn, at an evenly drawn level."""
    return _one(image, TRIVIAL, int(rng.integers(LEVELS + 1)), rng)


def _rand(image: Image.Image, augment: Augment, rng: np.random.Generator) -> Image.Image:
    """`rand_n` operations, evenly drawn with repetition, at level `rand_m`."""
    for _ in range(augment.rand_n):
        image = _one(image, RAND, augment.rand_m, rng)
    return image


def _one(
    image: Image.Image, space: dict[str, Strength], level: int, rng: np.random.Generator
) -> Image.Image:
    name = list(space)[int(rng.integers(len(space)))]
    return apply(image, name, space[name], level, negative=bool(rng.integers(2)))


_POLICIES: dict[str, Callable[[Image.Image, Augment, np.random.Generator], Image.Image] | None] = {
    "none": None,
    "trivial": _trivial,
    "rand": _rand,
}

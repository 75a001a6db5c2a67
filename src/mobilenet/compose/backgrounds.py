"""Photographs to paste on: a folder of them, or those that scikit-image and scikit-learn ship."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from ..data.folders import PICTURES
from ..data.listing import sort_naturally
from ..errors import DataError, MissingDependency
from ..preprocess import decode

SIDE = 1024  # pixels: the longer side of a background is kept no larger
# Without those that show what people cut out: people, flowers, coins, a horse, vehicles
_SHIPPED = {
    "skimage": (
        "data",
        *("brick.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "color.png"),
        *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png"),
        *("moon.png", "page.png", "retina.jpg", "text.png"),
    ),
    "sklearn": ("datasets/images", "china.jpg"),
}


def find_backgrounds(folder: Path | None) -> list[Path]:
    """The photographs in a folder at any depth, else the shipped ones that are installed.

    Raises DataError for a folder without any, MissingDependency where none are installed.
    """
    if folder is not None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of backgrounds")
        names = [
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in PICTURES and not path.name.startswith(".")
        ]
        if not names:
            raise DataError(f"{folder}: no pictures to paste on")
        return [folder / name for name in sort_naturally(names)]
    found: list[Path] = []
    for package, (inside, *names) in _SHIPPED.items():
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            place = Path(spec.origin).parent / inside
            found += [place / name for name in names if (place / name).is_file()]
    if not found:
        raise MissingDependency("scikit-image", "scenes", "composing without --backgrounds")
    return found


def crop_background(path: Path, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a photograph, turned or mirrored, its colours varied: uint8
    (size, size, 3)."""
    image = _load(path)
    side = max(int(min(image.size) * rng.uniform(0.4, 1.0)), 1)
    left = int(rng.integers(image.width - side + 1))
    top = int(rng.integers(image.height - side + 1))
    square = image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    pixels = np.asarray(square)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    gain, shift = rng.uniform(0.6, 1.3, 3), rng.uniform(-25, 25)
    return np.clip(pixels * gain + shift, 0, 255).astype(np.uint8)


@lru_cache(maxsize=128)
def _load(path: Path) -> Image.Image:
    image = decode(path)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return image

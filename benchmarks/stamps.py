"""Pictures for networks trained on ImageNet where ImageNet is not: cut-out photographs and drawings
(Debian's tuxpaint-stamps-default) on photographs (scikit-image's and scikit-learn's).

Hard inputs, without labels: networks are compared with their own float32 answers on them. This is
no accuracy on ImageNet. No cut-out is on both sides of the split.

    python benchmarks/stamps.py STAMPS OUT
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

KINDS = (
    "animals", "clothes", "food", "hobbies", "household", "military", "plants", "seasonal",
    "sports", "town", "vehicles",
)  # fmt: skip
BACKGROUNDS = (
    "astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
    "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
CALIBRATION, HELD_OUT = 512, 1000
_SIZE = 256


def write_pictures(stamps: Path, out: Path) -> None:
    """`out/train/pictures` and `out/val/pictures`, PNG files of 256 x 256 pixels; the same every
    time. The first are to calibrate with, the others to measure on."""
    rng = np.random.default_rng(0)
    files = sorted(path for kind in KINDS for path in (stamps / kind).rglob("*.png"))
    rng.shuffle(files)
    half = len(files) // 2
    backgrounds = _backgrounds()
    for name, part, count in (
        ("train", files[:half], CALIBRATION),
        ("val", files[half:], HELD_OUT),
    ):
        folder = out / f"{name}.part" / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture = _composite(part[index % len(part)], backgrounds, rng)
            picture.save(folder / f"{index:04d}.png")
        folder.parent.rename(out / name)  # there only when it is complete


def _backgrounds() -> list[Image.Image]:
    import skimage
    import sklearn

    folders = (
        Path(skimage.__file__).parent / "data",
        Path(sklearn.__file__).parent / "datasets/images",
    )
    found = [folders[0] / name for name in BACKGROUNDS]
    found += [folders[1] / name for name in ("china.jpg", "flower.jpg")]
    return [Image.open(path).convert("RGB") for path in found]


def _composite(
    stamp: Path, backgrounds: list[Image.Image], rng: np.random.Generator
) -> Image.Image:
    background = backgrounds[rng.integers(len(backgrounds))]
    side = int(min(background.size) * rng.uniform(0.5, 1))
    left = int(rng.integers(background.width - side + 1))
    top = int(rng.integers(background.height - side + 1))
    picture = background.resize((_SIZE, _SIZE), box=(left, top, left + side, top + side))
    cut = Image.open(stamp).convert("RGBA")
    reach = _SIZE * rng.uniform(0.6, 0.9)
    factor = reach / max(cut.size)
    cut = cut.resize((max(1, round(cut.width * factor)), max(1, round(cut.height * factor))))
    x = int(rng.integers(_SIZE - cut.width + 1))
    y = int(rng.integers(_SIZE - cut.height + 1))
    picture.paste(cut, (x, y), cut)
    return picture


if __name__ == "__main__":
    write_pictures(Path(sys.argv[1]), Path(sys.argv[2]))

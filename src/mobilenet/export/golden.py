"""Golden images: pictures made by formula, the same on every machine, with the file's answers.

They travel with an exported model, so that any device can check its preprocessing and its
arithmetic without a dataset.
"""

import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from ..preprocess import Preprocess, preprocess
from ..runtime import ArtifactFile, Floats, read_hashed

T = TypeVar("T")
Image8 = NDArray[np.uint8]

# width and height, so that every resize rule is met: enlarged, reduced, wide, tall, odd
SIZES = (
    (256, 256), (240, 180), (180, 240), (97, 131), (300, 40),
    (40, 300), (33, 33), (224, 224), (320, 213), (181, 179),
)  # fmt: skip
FILE = "golden.npz"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """`images`: uint8 (H, W, 3) RGB each; `inputs`: float32 (N, 3, H, W) as the contract makes
    them of the images; `logits`: float32 (N, classes), what the file must answer."""

    images: tuple[Image8, ...]
    inputs: Floats
    logits: Floats

    def to_bytes(self) -> bytes:
        """An .npz file: arrays "image_0" ..., "inputs", "logits"."""
        arrays: dict[str, Any] = {f"image_{i}": image for i, image in enumerate(self.images)}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, inputs=self.inputs, logits=self.logits, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Golden":
        """The inverse of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            count = sum(name.startswith("image_") for name in file.files)
            return cls(
                images=tuple(file[f"image_{index}"] for index in range(count)),
                inputs=file["inputs"],
                logits=file["logits"],
            )


def read_golden(file: ArtifactFile) -> Golden:
    """The golden images of an exported folder. Raises CheckpointError where they are missing or
    not those that were exported."""
    return read_golden_file(file, Golden.from_bytes)


def read_golden_file(file: ArtifactFile, decode: Callable[[bytes], T]) -> T:
    """What an exported folder's golden file holds, as `decode` reads it; see `read_golden`."""
    stated = file.description.get("golden")
    if not isinstance(stated, dict) or not isinstance(stated.get("sha256"), str):
        raise CheckpointError(f"{file.folder}: model.json names no golden images; export again")
    path = file.folder / FILE
    data = read_hashed(path, stated["sha256"])
    try:
        return decode(data)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}; export again") from None


def golden_images() -> tuple[Image8, ...]:
    """Ten uint8 (H, W, 3) pictures, in integer arithmetic only."""
    return tuple(_picture(index, *size) for index, size in enumerate(SIZES))


def golden_inputs(contract: Preprocess, images: Sequence[Image8]) -> Floats:
    """The images through the preprocessing contract: float32 (N, 3, H, W)."""
    return np.stack([preprocess(image, contract) for image in images])


def _picture(index: int, width: int, height: int) -> Image8:
    y, x, channel = np.ogrid[:height, :width, :3]
    gradient = (x * (channel + 1) * 255 // width + y * (3 - channel) * 255 // height) // 4
    rings = ((x - width // 3) ** 2 + (y - height // 2) ** 2) // (6 * (index + 4) + 40 * channel)
    checks = (x // (index + 3) + y // (2 * index + 3) + channel) % 2 * 255
    noise = (x * 7919 + y * 104729 + channel * 1299709 + index * 15485863) ** 2 >> 9
    layers = (gradient, rings, checks, noise)
    first, second = layers[index % 4], layers[(index // 4 + index + 1) % 4]
    return ((3 * (first % 256) + second % 256) // 4).astype(np.uint8)

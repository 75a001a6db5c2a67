"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 70,000 grey 28x28 pictures of ten garments."""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from .splits import ArraySplit

NAME = "fashion-mnist"
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # Debian's dataset-fashion-mnist


@dataclass(frozen=True, kw_only=True)
class _File:
    """One of the four. `md5` is that of the published archive; `sha256` that of its content,
    which stays the same where a distribution has packed it anew. `header` in bytes."""

    name: str
    md5: str
    sha256: str
    header: int


_FILES = {
    ("train", "images"): _File(
        name="train-images-idx3-ubyte.gz",
        md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        header=16,
    ),
    ("train", "labels"): _File(
        name="train-labels-idx1-ubyte.gz",
        md5="25c81989df183df01b3e8a0aad5dffbe",
        sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        header=8,
    ),
    ("test", "images"): _File(
        name="t10k-images-idx3-ubyte.gz",
        md5="bef4ecab320f06d8554ea6380940ec79",
        sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        header=16,
    ),
    ("test", "labels"): _File(
        name="t10k-labels-idx1-ubyte.gz",
        md5="bb300cfdad3c16e7a12a480ee83cd310",
        sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        header=8,
    ),
}


def is_idx_folder(folder: Path) -> bool:
    """Whether a folder holds the four files, by their names (MNIST's are the same)."""
    return all((folder / file.name).is_file() for file in _FILES.values())


def find_installed() -> Path | None:
    """The folder of the four files on this machine: $MOBILENET_DATA/fashion-mnist, the system's,
    or the cache."""
    from ..download import cache_folder

    own = os.environ.get("MOBILENET_DATA")
    places = [Path(own).expanduser() / NAME] if own else []
    places += [_INSTALLED, cache_folder("data") / NAME]
    return next((place for place in places if is_idx_folder(place)), None)


def find_or_fetch() -> Path:
    """`find_installed`, or else download into the cache. Raises DownloadError."""
    from ..download import cache_folder, fetch

    found = find_installed()
    if found is not None:
        return found
    cache = cache_folder("data") / NAME
    for file in _FILES.values():
        fetch(_URL + file.name, cache / file.name, md5=file.md5, desc=file.name)
    return cache


def read_fashion_mnist(folder: Path) -> dict[str, ArraySplit]:
    """The published splits, train and test. Raises DataError where a file is not the published."""
    arrays = {key: _read(folder / file.name, file) for key, file in _FILES.items()}
    return {
        split: ArraySplit(
            f"{NAME}/{split}",
            arrays[split, "images"].reshape(-1, 28, 28),
            arrays[split, "labels"],
        )
        for split in ("train", "test")
    }


def _read(path: Path, file: _File) -> np.ndarray:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged: {error}; remove it to have it fetched again") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"{path}: not the file that Fashion-MNIST publishes under this name (sha256 differs); "
            "remove it to have it fetched again"
        )
    return np.frombuffer(content, np.uint8, offset=file.header)

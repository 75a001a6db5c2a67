"""Reading a weights file: its kind is detected from its content, never from its name.

Whatever the file holds is untrusted: pickles are read by torch's restricted unpickler only, and
sizes are checked before anything is allocated.
"""

import importlib.util
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import MissingDependency, WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["torch", "safetensors", "hdf5", "keras"]
Publisher = Literal[
    "mobilenet", "torchvision", "timm", "huggingface", "efficientnet_pytorch", "keras"
]

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
LIMIT = 2 << 30  # bytes of tensors; the largest MobileNet has less than a tenth of this
_KERAS_MEMBER = "model.weights.h5"
_WRAPPERS = ("state_dict", "model")  # under which training scripts keep the weights
_MARKS: dict[str, Publisher] = {
    "backbone.blocks.0.conv.conv.weight": "mobilenet",
    "features.0.0.weight": "torchvision",
    "conv_stem.weight": "timm",
    "conv_stem.convolution.weight": "huggingface",
    "conv_stem.first_conv.convolution.weight": "huggingface",
    "mobilenet_v1.conv_stem.convolution.weight": "huggingface",
    "mobilenet_v2.conv_stem.first_conv.convolution.weight": "huggingface",
    "_conv_stem.weight": "efficientnet_pytorch",
}


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """A file's tensors (float32, PyTorch's layouts) by the publisher's names, in its order."""

    path: Path
    kind: Kind
    publisher: Publisher
    tensors: Mapping[str, "Tensor"]


def detect_kind(path: Path) -> Kind:
    """Which format a file has. Raises WeightsError for one that is not understood."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    if size > LIMIT:
        raise WeightsError(f"{path}: {size} bytes, larger than any MobileNet; not read")
    if head.startswith(HDF5_MAGIC):
        return "hdf5"
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "torch"  # torch.save before 1.6 wrote bare pickles
    raise WeightsError(f"{path}: {_what_else(head)}; expected {_EXPECTED}")


_EXPECTED = "a PyTorch, safetensors, Keras .h5 or Keras .keras file"


def _zip_kind(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        raise WeightsError(f"{path}: the file is damaged or cut short; fetch it again") from None
    if _KERAS_MEMBER in names:
        return "keras"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    raise WeightsError(f"{path}: a zip archive without weights in it; expected {_EXPECTED}")


def _what_else(head: bytes) -> str:
    """A likely reason why a file is not a weights file."""
    text = head.lstrip().lower()
    if not head:
        return "the file is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "the file is a web page, not weights (was the download redirected?)"
    if text.startswith(b"version https://git-lfs"):
        return "the file is a Git LFS pointer, not the weights themselves (git lfs pull)"
    if head.startswith(b"\x1f\x8b"):
        return "a gzip archive; TF-slim's checkpoints are not read, their conversions are"
    return "the format is not known, or the file is damaged"


def require_torch() -> None:
    """Raises MissingDependency where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingDependency("torch", "train", "reading pretrained weights")


def read_weights(path: Path) -> WeightsFile:
    """Read every weight of a file. Raises WeightsError (damaged, refused, not a MobileNet's),
    MissingDependency where the package that reads its kind is not installed."""
    require_torch()
    kind = detect_kind(path)
    tensors = _float32(path, READERS[kind](path))
    if kind in ("hdf5", "keras"):
        return WeightsFile(path=path, kind=kind, publisher="keras", tensors=tensors)
    marks = [mark for mark in _MARKS if mark in tensors]
    if not marks:
        raise WeightsError(
            f"{path}: not the weights of a MobileNet or EfficientNet-Lite0 as named by "
            "torchvision, timm, Hugging Face, efficientnet-pytorch or this package; its first "
            f"tensors are {list(tensors)[:4]}"
        )
    return WeightsFile(path=path, kind=kind, publisher=_MARKS[marks[0]], tensors=tensors)


def _float32(path: Path, tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    import torch

    checked = {}
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue  # how long the publisher trained; ours start from 0
        if not tensor.is_floating_point():
            raise WeightsError(
                f"{path}: tensor {name!r} is {tensor.dtype}; quantized weights are not read"
            )
        checked[name] = tensor.to(torch.float32).contiguous()
        if not bool(torch.isfinite(checked[name]).all()):
            raise WeightsError(f"{path}: tensor {name!r} holds NaN or infinity; fetch it again")
    return checked


def _read_torch(path: Path) -> Mapping[str, "Tensor"]:
    import pickle

    import torch

    try:
        with warnings.catch_warnings():  # what is unusual about a file is raised below
            warnings.filterwarnings("ignore", module=r"torch\.")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: refused: it is damaged, or it holds Python objects besides tensors, which "
            "could run code when read; save only the state_dict (model.state_dict()) in a place "
            f"that trusts it ({str(error).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: cannot be read as PyTorch weights: {reason}") from None
    return _state_dict(path, loaded)


def _state_dict(path: Path, loaded: Any) -> dict[str, "Tensor"]:
    """The mapping of names to tensors in what a training script saved."""
    import torch

    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()
    ):
        raise WeightsError(
            f"{path}: holds {type(loaded).__name__}, not a state_dict of tensors "
            f"(also looked for under {_WRAPPERS})"
        )
    # DataParallel and DistributedDataParallel put this before every name
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _read_safetensors(path: Path) -> Mapping[str, "Tensor"]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise MissingDependency("safetensors", "train", "reading .safetensors weights") from None
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: damaged safetensors: {error}; fetch it again") from None


def _read_hdf5(path: Path) -> Mapping[str, "Tensor"]:
    from .keras import read_keras

    return read_keras(path, path)


def _read_keras_archive(path: Path) -> Mapping[str, "Tensor"]:
    import io

    from .keras import read_keras

    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_KERAS_MEMBER).file_size > LIMIT:
                raise WeightsError(f"{path}: larger than any MobileNet; not read")
            content = archive.read(_KERAS_MEMBER)
    except (zipfile.BadZipFile, OSError) as error:
        raise WeightsError(f"{path}: damaged archive: {error}; fetch it again") from None
    return read_keras(io.BytesIO(content), path)


READERS: dict[Kind, Callable[[Path], Mapping[str, "Tensor"]]] = {
    "torch": _read_torch,
    "safetensors": _read_safetensors,
    "hdf5": _read_hdf5,
    "keras": _read_keras_archive,
}

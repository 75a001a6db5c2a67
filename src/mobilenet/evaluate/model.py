"""A model that answers, wherever it comes from: a run, an exported artifact, or a known name."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import LoadedModel, load_model
from ..errors import CheckpointError, MissingDependency, MobilenetError, UsageError
from ..models import MODELS, parse_model_name
from ..preprocess import Preprocess
from ..program import LOGITS
from ..progress import say
from ..runtime import is_artifact, load
from ..weights import load_pretrained

if TYPE_CHECKING:
    import torch

    from ..classify import Classifier

Device = Literal["auto", "cpu", "cuda", "mps"]
Floats = NDArray[np.float32]
Forward = Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A classifier that is ready to answer, and what must go with it.

    `forward` maps preprocessed images (N, 3, H, W) to logits (N, classes); `runtime` says what
    computes it; `provenance` is what was recorded in training, empty where nothing was.
    """

    name: str
    forward: Forward
    preprocess: Preprocess
    labels: tuple[str, ...]
    runtime: str
    provenance: dict[str, Any]


def open_model(model: str | Path, *, threads: int | None, device: Device) -> OpenModel:
    """Open a run folder, an exported one (without torch) or a model's name (ImageNet weights).

    Raises UsageError for what is none of these, CheckpointError for a damaged folder.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")
    folder = Path(model).expanduser()
    if not folder.exists():
        return _open_named(str(model), threads, device)
    if is_artifact(folder):
        return _open_artifact(folder, threads)
    return _open_run(folder, threads, device)


def _open_artifact(folder: Path, threads: int | None) -> OpenModel:
    loaded = load(folder, threads=threads)
    session = loaded.session
    return OpenModel(
        name=str(folder),
        forward=loaded,
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        runtime=f"{session.runtime} {session.version}, threads: {session.threads}",
        provenance=loaded.contract["provenance"],
    )


def _open_run(folder: Path, threads: int | None, device: Device) -> OpenModel:
    loaded = load_model(folder)
    try:
        contract = Preprocess.from_dict(loaded.preprocess)
    except UsageError as error:
        raise CheckpointError(f"{folder / 'model.json'}: {error}") from None
    if loaded.quantised is None:
        forward, runtime = _on_device(loaded.module(), threads, device)
    else:
        forward, runtime = _in_integers(folder, loaded, threads)
    return OpenModel(
        name=str(folder),
        forward=forward,
        preprocess=contract,
        labels=loaded.labels,
        runtime=runtime,
        provenance=loaded.provenance,
    )


def _in_integers(folder: Path, loaded: LoadedModel, threads: int | None) -> tuple[Forward, str]:
    """The exact int8 arithmetic, which runs on the CPU."""
    import torch

    from ..integer.simulate import simulate
    from ..integer.store import quantised_of

    if threads is not None:
        torch.set_num_threads(threads)
    network = quantised_of(folder, loaded)
    described = f"int8 arithmetic in torch {torch.__version__}, threads: {torch.get_num_threads()}"
    return lambda images: simulate(network, images)[LOGITS][:, :, 0, 0], described


def _open_named(name: str, threads: int | None, device: Device) -> OpenModel:
    try:
        parsed = parse_model_name(name)
    except UsageError:
        raise UsageError(
            f"{name}: neither a folder that train or export wrote, nor a model's name; "
            f"expected one of {sorted(MODELS)}"
        ) from None
    if importlib.util.find_spec("torch") is None:
        raise MissingDependency("torch", "train", f"running {name}, which was not exported,")
    found = load_pretrained(parsed.spec, "imagenet", size=parsed.size)
    for note in found.notes:
        say(f"{name}: {note}")
    assert found.labels is not None  # ImageNet's
    forward, runtime = _on_device(found.module(), threads, device)
    return OpenModel(
        name=name,
        forward=forward,
        preprocess=found.preprocess,
        labels=found.labels,
        runtime=runtime,
        provenance={},
    )


def _on_device(module: "Classifier", threads: int | None, device: Device) -> tuple[Forward, str]:
    import torch

    from ..layers import folded

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    described = f"torch {torch.__version__} on {chosen}"
    if chosen.type == "cpu":
        described += f", threads: {torch.get_num_threads()}"
    return torch_forward(folded(module), chosen), described


def not_a_number(model: str, picture: str) -> MobilenetError:
    """The error for logits that are NaN or infinite."""
    return MobilenetError(
        f"{model}: its answer to {picture} is not a number: the weights are damaged, or overflow "
        "in this precision"
    )


def torch_forward(module: "torch.nn.Module", device: "torch.device") -> Forward:
    """A PyTorch classifier as a function of arrays; the module is moved and set to evaluation."""
    import torch

    module = module.to(device, memory_format=torch.channels_last).eval()  # pyright: ignore

    def forward(images: Floats) -> Floats:
        with torch.inference_mode():
            x = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
            return module(x).float().cpu().numpy()

    return forward


def choose_device(device: Device) -> "torch.device":
    """The device of that name; "auto" takes a GPU where there is one.

    Raises UsageError where this machine, or this build of torch, has none such.
    """
    import torch

    usable = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        device = next(name for name, there in usable.items() if there)  # pyright: ignore
    if not usable[device]:
        raise UsageError(f"device {device!r}: not usable here; choose cpu or auto")
    return torch.device(device)

"""A run's model: `model.safetensors` and `model.json`, saved as one.

Two files cannot be replaced at once, so the new weights wait beside the old ones under a name
that contains their hash:

    1. write  .model.safetensors.HASH        the pair loads as before
    2. write  model.json, which names HASH   from here on the new pair loads, see `load_model`
    3. rename .model.safetensors.HASH  ->  model.safetensors
    4. remove waiting weights of earlier saves

A crash between 2 and 3 leaves the old weights under the visible name, and the ones that model.json
names waiting, where loading looks first.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cost import count
from ..durable import make_folder, move, remove, write_atomically
from ..errors import CheckpointError, UsageError
from ..models import ModelSpec
from ..networks import Rules, Spec, Task, create_network, name_of
from .contract import (
    MODEL_FILE,
    SOFTMAX,
    WEIGHTS_FILE,
    describe_model,
    encode_model_json,
    quantised_file,
    read_model_json,
    read_network_spec,
)
from .strict import read_file
from .tensors import decode_tensors, encode_tensors, require_torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..classify import Classifier


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedNetwork:
    """A saved network of any task: what `model.json` says, and the weights it names (on the CPU).
    `quantised` says where its int8 network is, where it has one."""

    spec: Spec
    state: "dict[str, Tensor]"
    preprocess: dict[str, Any]
    labels: tuple[str, ...]
    task: Task
    decoding: dict[str, Any]
    provenance: dict[str, Any]
    weights_sha256: str
    quantised: dict[str, Any] | None = None

    def module(self) -> "nn.Module":
        """A new network in eval mode with a copy of these weights."""
        module = _create_aside(self.spec)
        module.load_state_dict(self.state)
        return module.eval()


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel(LoadedNetwork):
    """A saved classifier."""

    spec: ModelSpec

    def module(self) -> "Classifier":
        """A new network in eval mode with a copy of these weights."""
        from ..classify import Classifier

        module = super().module()
        assert isinstance(module, Classifier)
        return module


def save_model(
    folder: str | Path,
    spec: Spec,
    state: "Mapping[str, Tensor]",
    *,
    preprocess: Mapping[str, Any],
    labels: Sequence[str],
    rules: Rules | None = None,
    provenance: Mapping[str, Any],
    quantised: bytes | None = None,
) -> str:
    """Write `model.safetensors` and `model.json` into `folder`; return the weights' sha256.

    `rules`: of what a network for scenes answers, how it becomes what is found. `quantised` is the
    file of an int8 network to lie beside them.

    After a crash at any moment the folder loads as this model or as the one before it. Raises
    CheckpointError where the disk refuses or `state` is not of `spec`.
    """
    require_torch("saving a model")
    folder = Path(folder)
    weights = encode_tensors(state)
    sha256 = hashlib.sha256(weights).hexdigest()
    description = describe_model(
        spec,
        preprocess=preprocess,
        labels=labels,
        decoding=SOFTMAX if rules is None else rules.to_dict(),
        provenance=provenance,
        weights_sha256=sha256,
        quantised=None if quantised is None else _named(quantised),
    )
    contract = encode_model_json(description, folder / MODEL_FILE)
    _check_state(spec, state, folder / WEIGHTS_FILE)

    make_folder(folder)
    staged = _staged(folder, sha256)
    kept = None if quantised is None else _named(quantised)["file"]
    try:
        if quantised is not None and kept is not None:
            write_atomically(folder / kept, quantised)
        write_atomically(staged, weights)
        write_atomically(folder / MODEL_FILE, contract)
    except BaseException:
        # a model.json that is in place but perhaps not on the disk still needs the file
        if _named_sha256(folder) != sha256:
            with suppress(CheckpointError):
                remove(staged)
        raise
    move(staged, folder / WEIGHTS_FILE)
    old = [file for file in folder.glob(quantised_file("*")) if file.name != kept]
    for leftover in [*_all_staged(folder), *old]:
        with suppress(CheckpointError):  # the model is saved; the next save tries again
            remove(leftover)
    return sha256


def load_model(folder: str | Path) -> LoadedModel:
    """Load a classifier, checking every byte of the weights and every row of the network.

    Raises CheckpointError where anything is missing, damaged or does not belong together,
    UsageError for a network of another task, MissingDependency without torch.
    """
    loaded = load_network(folder)
    if not isinstance(loaded, LoadedModel):
        raise UsageError(f"{folder}: a network for {loaded.task}; expected a classifier")
    return loaded


def load_network(folder: str | Path) -> LoadedNetwork:
    """Load a network of any task, checked as by `load_model`."""
    require_torch("loading a run's weights")
    folder = Path(folder)
    while True:
        description = read_model_json(folder)
        try:
            weights = _read_weights(folder, description)
            break
        except CheckpointError:
            # unless another process has saved in between, and this was half of each
            if read_model_json(folder) == description:
                raise
    spec = read_network_spec(description)
    state = decode_tensors(weights, folder / WEIGHTS_FILE)
    _check_state(spec, state, folder / WEIGHTS_FILE)
    kind = LoadedModel if isinstance(spec, ModelSpec) else LoadedNetwork
    return kind(
        spec=spec,  # pyright: ignore[reportArgumentType] - of the kind that was chosen by it
        state=state,
        preprocess=description["preprocess"],
        labels=tuple(description["labels"]),
        task=description["task"],
        decoding=description["decoding"],
        provenance=description["provenance"],
        weights_sha256=description["weights"]["sha256"],
        quantised=description.get("quantised"),
    )


def _named(quantised: bytes) -> dict[str, str]:
    sha256 = hashlib.sha256(quantised).hexdigest()
    return {"file": quantised_file(sha256), "sha256": sha256}


def _staged(folder: Path, sha256: str) -> Path:
    return folder / f".{WEIGHTS_FILE}.{sha256}"


def _all_staged(folder: Path) -> Iterator[Path]:
    return folder.glob(f".{WEIGHTS_FILE}.*")


def _read_weights(folder: Path, description: Mapping[str, Any]) -> bytes:
    sha256 = description["weights"]["sha256"]
    params = _params(read_network_spec(description))
    if "artifact" in description and not (folder / WEIGHTS_FILE).exists():
        raise CheckpointError(
            f"{folder}: an exported model, without weights for torch; give the run it came from"
        )
    with suppress(CheckpointError):
        return _read_verified(_staged(folder, sha256), sha256, params)
    return _read_verified(folder / WEIGHTS_FILE, sha256, params)


def _read_verified(path: Path, sha256: str, params: int) -> bytes:
    # float32, and for each norm as many running statistics as parameters. Looked at before a
    # network is built, so that a small file cannot ask for a large one.
    data = read_file(path, limit=8 * params + (1 << 20))
    if len(data) < 4 * params:
        raise CheckpointError(f"{path}: {len(data)} bytes are too few for the network's weights")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise CheckpointError(
            f"{path}: its sha256 is {found[:16]}…, but model.json names {sha256[:16]}…: damaged, "
            "or of another run; train or copy the folder again"
        )
    return data


def _named_sha256(folder: Path) -> str | None:
    try:
        return read_model_json(folder)["weights"]["sha256"]
    except CheckpointError:
        return None


def _params(spec: Spec) -> int:
    from ..heads import count_network

    if isinstance(spec, ModelSpec):
        return count(spec.network(), 32).params
    return count_network(lambda: create_network(spec), 64, 64).params


def _create_aside(spec: Spec) -> "nn.Module":
    """A network, without a change to the global random state that training depends on."""
    import torch

    with torch.random.fork_rng(devices=[]):
        return create_network(spec)


@lru_cache(maxsize=4)
def _layout(spec: Spec) -> dict[str, str]:
    """Type and shape of every tensor of a network's state."""
    return {name: _shape(tensor) for name, tensor in _create_aside(spec).state_dict().items()}


def _shape(tensor: "Tensor") -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def _check_state(spec: Spec, state: "Mapping[str, Tensor]", file: Path) -> None:
    expected = _layout(spec)
    found = {name: _shape(tensor) for name, tensor in state.items()}
    for name in sorted(expected.keys() | found.keys()):
        wanted, have = expected.get(name, "no such tensor"), found.get(name, "no such tensor")
        if wanted != have:
            raise CheckpointError(
                f"{file}: tensor {name!r}: {name_of(spec)} has {wanted}, the state {have}"
            )

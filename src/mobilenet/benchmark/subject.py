"""What is timed: a model's name, a run or an exported folder, as a network and as files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import load_model
from ..cost import count
from ..errors import CheckpointError, MissingDependency, MobilenetError, UsageError
from ..export import read_golden
from ..export.litert import litert_bytes
from ..export.onnx import to_onnx
from ..models import ModelSpec, create, parse_model_name
from ..runtime import FORMATS, RUNTIMES, Floats, Precision, Session, is_artifact, read_artifact

if TYPE_CHECKING:
    from ..classify import Classifier

TORCH = "torch"
DEFAULT_SIZE = 224
_SEED = 0


class NotOffered(MobilenetError):
    """A runtime that cannot run this subject, and why."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A classifier to time on square images of `size` pixels, `batch` at once.

    `network` is in evaluation mode; without one `no_network` says why. `files` holds the bytes of
    a model file by its format, and what is converted on the way is added to it. `inputs`
    (batch, 3, size, size) must give the logits `expected` (batch, classes). `origin` says where
    the weights are from.
    """

    spec: ModelSpec
    size: int
    batch: int
    network: "Classifier | None"
    no_network: str
    files: dict[str, bytes]
    inputs: Floats
    expected: Floats
    origin: Mapping[str, Any]

    def conditions(self) -> dict[str, Any]:
        """What the numbers depend on that is the subject's."""
        cost = count(self.spec.network(), self.size)
        return {
            "model": self.spec.name,
            "width": self.spec.width,
            "size": self.size,
            "classes": self.spec.classes,
            "batch": self.batch,
            "params": cost.params,
            "madds": cost.madds,
            **self.origin,
        }

    def open(self, runtime: str, *, threads: int, precision: Precision) -> Session:
        """Open with "torch" or one of `RUNTIMES`. Raises NotOffered, MissingDependency, UsageError
        or CheckpointError where that runtime cannot run this."""
        if runtime == TORCH:
            from .eager import open_torch

            return open_torch(self._network(), threads=threads, precision=precision)
        opener = RUNTIMES[runtime]
        return opener(self._file(runtime), threads=threads, precision=precision, batch=self.batch)

    def _network(self) -> "Classifier":
        if self.network is None:
            raise NotOffered(self.no_network)
        return self.network

    def _file(self, runtime: str) -> bytes:
        wanted = next(name for name, runtimes in FORMATS.items() if runtime in runtimes)
        if wanted not in self.files:
            network = self._network()
            if wanted == "litert":
                self.files[wanted] = litert_bytes(network, size=self.size, batch=self.batch)
            else:
                self.files[wanted] = to_onnx(network, size=self.size, metadata={}).data
        return self.files[wanted]


def find_subject(target: str, *, size: int | None, width: float | None, batch: int) -> Subject:
    """A model's name (random weights), a run or an exported folder, as a `Subject`.

    Raises UsageError for a target that is none of them and for options that do not fit it.
    """
    folder = Path(target)
    if not folder.is_dir():
        if folder.exists() or "/" in target:
            raise UsageError(f"target {target!r}: expected a model's name, a run or an export")
        return _from_name(target, size=size, width=width, batch=batch)
    if width is not None:
        raise UsageError(f"--width {width}: {target} has its width; it goes with a model's name")
    if is_artifact(folder):
        return _from_artifact(folder, size=size, batch=batch)
    return _from_run(folder, size=size, batch=batch)


def _from_name(name: str, *, size: int | None, width: float | None, batch: int) -> Subject:
    named = parse_model_name(name)
    spec = replace(named.spec, width=width) if width is not None else named.spec
    pixels = size or named.size or DEFAULT_SIZE
    _require_torch(f"timing {name!r}, which is a network without a file,")
    origin = {"weights": "random, with the batch norm statistics of random images"}
    return _of_network(spec, random_network(spec, pixels), size=pixels, batch=batch, origin=origin)


def _from_run(run: Path, *, size: int | None, batch: int) -> Subject:
    loaded = load_model(run)
    origin = {"weights": str(run), "weights_sha256": loaded.weights_sha256}
    return _of_network(
        loaded.spec,
        loaded.module(),
        size=size or loaded.preprocess["size"],
        batch=batch,
        origin=origin,
    )


def _of_network(
    spec: ModelSpec, network: "Classifier", *, size: int, batch: int, origin: Mapping[str, Any]
) -> Subject:
    inputs = np.random.default_rng(_SEED).standard_normal((batch, 3, size, size), np.float32)
    return Subject(
        spec=spec,
        size=size,
        batch=batch,
        network=network,
        no_network="",
        files={},
        inputs=inputs,
        expected=_answers(network, inputs),
        origin=origin,
    )


def _from_artifact(folder: Path, *, size: int | None, batch: int) -> Subject:
    file = read_artifact(folder)
    pixels = file.contract["preprocess"]["size"]
    if size not in (None, pixels):
        raise UsageError(f"--size {size}: the file in {folder} takes {pixels} pixels only")
    golden = read_golden(file)
    chosen = np.arange(batch) % len(golden.inputs)
    run = file.source_run()
    network, no_network = None, "the run that was exported is not in its place"
    if run is not None:
        try:
            network = load_model(run).module()
        except (MissingDependency, CheckpointError) as error:
            no_network = str(error)
    return Subject(
        spec=ModelSpec.from_dict({k: v for k, v in file.contract["model"].items() if k != "rows"}),
        size=pixels,
        batch=batch,
        network=network,
        no_network=no_network,
        files={file.format: file.data},
        inputs=golden.inputs[chosen],
        expected=golden.logits[chosen],
        origin={
            "weights": str(folder),
            "weights_sha256": file.weights_sha256,
            "artifact_sha256": file.sha256,
        },
    )


def random_network(spec: ModelSpec, size: int) -> "Classifier":
    """A network with random weights, the same each time, in evaluation mode.

    Its norms have the statistics of random images: with those of a new network the activations
    shrink from layer to layer into denormal numbers, which take many times as long.
    """
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = create(spec)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the running statistics become those of the one batch below
        with torch.no_grad():
            network(torch.randn(8, 3, size, size))
        for norm in norms:
            norm.momentum = spec.bn_momentum
    return network.eval()


def _answers(network: "Classifier", inputs: Floats) -> Floats:
    import torch

    with torch.inference_mode():
        return network(torch.from_numpy(inputs)).numpy()


def _require_torch(purpose: str) -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingDependency("torch", "train", purpose)

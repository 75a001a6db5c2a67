"""What is timed: a model's name, a run or an exported folder, as a network and as files."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import load_model
from ..cost import count
from ..errors import CheckpointError, MissingDependency, MobilenetError, UsageError
from ..export import read_golden
from ..export.engine import engine_bytes
from ..export.litert import litert_bytes
from ..export.onnx import to_onnx
from ..export.qdq import to_qdq
from ..flat import Card, EngineFile, write_engine
from ..integer.store import load_quantised
from ..models import ModelSpec, parse_model_name
from ..networks import random_network
from ..runtime import (
    FORMATS,
    RUNTIMES,
    ArtifactFile,
    Floats,
    Precision,
    Session,
    is_artifact,
    read_artifact,
)
from .float16 import open_litert_float16
from .quantised import litert_int8, nncf_performance, qdq

if TYPE_CHECKING:
    from ..classify import Classifier

TORCH = "torch"
DEFAULT_SIZE = 224
_SEED = 0
_CALIBRATION_IMAGES = 32
_QDQ = "onnx QDQ"
ASKED_FOR = ("wasm",)  # and not timed else
OWN_FILES_ONLY = ("executorch", "ncnn", "coreml")  # no file is made for them on the way


class NotOffered(MobilenetError):
    """A runtime that cannot run this subject, and why."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A classifier to time on square images of `size` pixels, `batch` at once.

    `network` is in evaluation mode; without one `no_network` says why. `files` holds the bytes of
    model files by what they are ("onnx", "onnx QDQ"), and what is converted on the way is added
    to it. `own` is the exported folder that is timed, in its own runtime and precision as it is.
    `inputs` (batch, 3, size, size) must give the logits `expected` (batch, classes), which
    are those of float32 unless `expected_of` names another precision.
    Ranges of eight bits are found on `calibration` (N, 3, size, size). `origin` says where the
    weights are from.
    """

    spec: ModelSpec
    size: int
    batch: int
    network: "Classifier | None"
    no_network: str
    files: dict[str, bytes]
    inputs: Floats
    expected: Floats
    expected_of: Precision
    calibration: Floats
    origin: Mapping[str, Any]
    own: ArtifactFile | None = None

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

    def with_batch(self, batch: int) -> "Subject":
        """The same network on so many images; files that take any batch are shared. Raises
        NotOffered without a network."""
        other = _of_network(
            self.spec, self._network(), size=self.size, batch=batch, origin=self.origin
        )
        free = {name: data for name, data in self.files.items() if not name.startswith("litert")}
        return replace(other, files=free)

    def answers(self, session: Session) -> Floats:
        """The logits (batch, classes) of a session for the inputs."""
        return session.run(session.laid_out(self.inputs))

    def configurations(self, runtime: str, precision: Precision) -> Mapping[str, "Opening"]:
        """The ways in which "torch" or one of `RUNTIMES` may run this at `precision`, by name; only
        timing tells which is the best.

        An opening raises NotOffered, MissingDependency, UsageError, ExportError or CheckpointError
        where that runtime cannot run this so.
        """
        if precision == "float32" != self.expected_of:
            raise NotOffered(
                f"there is nothing to compare float32 with: the folder holds {self.expected_of} "
                f"answers, and {self.no_network}; try --precision {self.expected_of}"
            )
        if self.own is not None and precision == self.own.precision and self._runs_own(runtime):
            data = bytes(self.own.data)
            return {"as exported": self._opening(runtime, precision, lambda: data)}
        if runtime in OWN_FILES_ONLY:
            raise NotOffered(f"{runtime} is timed with an exported folder that it runs")
        if runtime == TORCH:
            return {"eager, channels-last": self._open_torch(precision)}
        if runtime in ("engine", "wasm"):
            return {"": self._opening(runtime, precision, lambda: self.engine_file(precision))}
        if runtime == "litert" and precision == "bfloat16":
            return {"float16": self._open_litert_float16}
        if precision != "int8":
            file = self.litert_file if runtime == "litert" else self.onnx_file
            return {"": self._opening(runtime, precision, file)}
        return {
            name: self._opening(runtime, precision, file)
            for name, file in self._quantised(runtime).items()
        }

    def suits(self, runtime: str) -> bool:
        """Whether it is timed unasked: what has no file of this is not."""
        if runtime not in (*ASKED_FOR, *OWN_FILES_ONLY):
            return True
        return runtime not in ASKED_FOR and self.own is not None and self._runs_own(runtime)

    def _runs_own(self, runtime: str) -> bool:
        assert self.own is not None
        return runtime in FORMATS[self.own.format]

    def _quantised(self, runtime: str) -> Mapping[str, Callable[[], bytes]]:
        """How to make the int8 files that a peer may run, by the name of the configuration."""
        if runtime == "litert":
            made = {
                "full integer": lambda: self.litert_int8_file(convolutions_only=False),
                "hard-swish in float32": lambda: self.litert_int8_file(convolutions_only=True),
            }
        else:
            made = {
                "QDQ U8S8": lambda: self.qdq_file(convolutions_only=False),
                "QDQ U8S8, hard-swish in float32": lambda: self.qdq_file(convolutions_only=True),
            }
        if all(block.activation != "hard_swish" for block in self.spec.network().blocks):
            made.popitem()
        return {**made, "NNCF PERFORMANCE": self.nncf_file} if runtime == "openvino" else made

    def _opening(self, runtime: str, precision: Precision, file: Callable[[], bytes]) -> "Opening":
        def opened(threads: int) -> Session:
            return RUNTIMES[runtime](file(), threads=threads, precision=precision, batch=self.batch)

        return opened

    def _open_torch(self, precision: Precision) -> "Opening":
        def opened(threads: int) -> Session:
            from .eager import open_torch

            return open_torch(self._network(), threads=threads, precision=precision)

        return opened

    def _open_litert_float16(self, threads: int) -> Session:
        return open_litert_float16(self.litert_file, threads=threads)

    def _network(self) -> "Classifier":
        if self.network is None:
            raise NotOffered(self.no_network)
        return self.network

    def _file(self, name: str, make: Callable[[], bytes]) -> bytes:
        if name not in self.files:
            self.files[name] = make()
        return self.files[name]

    def onnx_file(self) -> bytes:
        return self._file(
            "onnx", lambda: to_onnx(self._network(), size=self.size, metadata={}).data
        )

    def qdq_file(self, *, convolutions_only: bool) -> bytes:
        return self._file(
            f"{_QDQ} convolutions" if convolutions_only else _QDQ,
            lambda: qdq(self.onnx_file(), self.calibration, convolutions_only=convolutions_only),
        )

    def nncf_file(self) -> bytes:
        return self._file(
            "openvino NNCF", lambda: nncf_performance(self.onnx_file(), self.calibration)
        )

    def litert_file(self) -> bytes:
        return self._file(
            "litert", lambda: litert_bytes(self._network(), size=self.size, batch=self.batch)
        )

    def litert_int8_file(self, *, convolutions_only: bool) -> bytes:
        return self._file(
            "litert int8 convolutions" if convolutions_only else "litert int8",
            lambda: litert_int8(
                self.litert_file(),
                self.calibration,
                batch=self.batch,
                convolutions_only=convolutions_only,
            ),
        )

    def engine_file(self, precision: Precision) -> bytes:
        return self._file(
            f"engine {precision}",
            lambda: engine_bytes(
                self._network(), size=self.size, precision=precision, calibration=self.calibration
            ),
        )


Opening = Callable[[int], Session]  # with so many threads


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
    pixels = size or loaded.preprocess["size"]
    found = _of_network(loaded.spec, loaded.module(), size=pixels, batch=batch, origin=origin)
    return found if loaded.quantised is None else replace(found, files=_int8_files(run, pixels))


def _int8_files(run: Path, size: int) -> dict[str, bytes]:
    """What `quantize` wrote, as it is, for the runtimes that can read it."""
    network = load_quantised(run)
    made = EngineFile(network=network, precision="int8", height=size, width=size, card=Card())
    files = {"engine int8": write_engine(made)}
    with suppress(MissingDependency):  # its runtimes say so themselves
        files[_QDQ] = to_qdq(network, size=size, metadata={}).data
    return files


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
        expected_of="float32",
        calibration=np.random.default_rng(_SEED + 1).standard_normal(
            (_CALIBRATION_IMAGES, 3, size, size), np.float32
        ),
        origin=origin,
    )


def _from_artifact(folder: Path, *, size: int | None, batch: int) -> Subject:
    file = read_artifact(folder)
    pixels = file.contract["preprocess"]["size"]
    if size not in (None, pixels):
        raise UsageError(f"--size {size}: the file in {folder} takes {pixels} pixels only")
    golden = read_golden(file)
    chosen = np.arange(batch) % len(golden.inputs)
    inputs, expected = golden.inputs[chosen], golden.logits[chosen]
    expected_of = file.precision
    run = file.source_run()
    network, no_network = None, "the run that was exported is not in its place"
    if run is not None:
        try:
            network = load_model(run).module()
        except (MissingDependency, CheckpointError) as error:
            no_network = str(error)
    if network is not None and expected_of != "float32":
        expected, expected_of = _answers(network, inputs), "float32"
    return Subject(
        spec=ModelSpec.from_dict({k: v for k, v in file.contract["model"].items() if k != "rows"}),
        size=pixels,
        batch=batch,
        network=network,
        no_network=no_network,
        files=_files(file),
        inputs=inputs,
        expected=expected,
        expected_of=expected_of,
        calibration=golden.inputs,
        origin={
            "weights": str(folder),
            "weights_sha256": file.weights_sha256,
            "artifact_sha256": file.sha256,
        },
        own=file,
    )


def _files(file: ArtifactFile) -> dict[str, bytes]:
    """What lies in an exported folder, as a subject names it."""
    name = file.format
    if name in ("engine", "web"):
        name = f"engine {file.precision}"
    elif name == "onnx" and file.precision == "int8":
        name = _QDQ
    fallback = file.fallback()
    return {name: bytes(file.data)} | (_files(fallback) if fallback is not None else {})


def _answers(network: "Classifier", inputs: Floats) -> Floats:
    import torch

    with torch.inference_mode():
        return network(torch.from_numpy(inputs)).numpy()


def _require_torch(purpose: str) -> None:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        raise MissingDependency("torch", "train", purpose)

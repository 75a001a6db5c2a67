"""A model file on a device: the runner, pushed and called."""

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import MissingEngine, UsageError
from ..progress import say
from ..runtime import Floats
from .connection import Connection, DeviceError, connect

VARIABLE = "MOBILENET_RUNNERS"
_MAGIC = b"MBJOB1\n\0"
_RGB, _PREPARED = 0, 1
_ARCHITECTURES: Mapping[str, str] = {"aarch64": "aarch64", "arm64": "aarch64", "x86_64": "x86_64"}
_BUILT_BY = {"aarch64": "make engine-aarch64", "x86_64": "make engine-runner"}

Image8 = np.ndarray[Any, np.dtype[np.uint8]]


class MissingRunner(MissingEngine):
    """The program that is pushed to a device was not built."""

    def __init__(self, path: Path, architecture: str) -> None:
        ImportError.__init__(
            self,
            f"there is no {path}, the program that runs a model on {architecture}: build it in "
            f"the sources of this package ({_BUILT_BY[architecture]}), or name the folder of a "
            f"built one in the environment variable {VARIABLE}",
        )
        self.reason = "it was not built"


@dataclass(frozen=True, kw_only=True)
class Percentiles:
    """Milliseconds of so many runs."""

    p50_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """The device and its state: temperatures in the device's own units (mostly thousandths of a
    degree), clocks in kHz, each as [name, value], empty where the device does not tell.

    `run` is the network alone, `prepare_and_run` resizes and normalises a decoded picture before;
    decoding a file is not in either. `cores`: where it may run, None where that was left to the
    system.
    """

    device: str
    system: str
    cpu: str | None
    instruction_set: str
    cores: str | None
    threads: int
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    run: Percentiles
    prepare_and_run: Percentiles | None
    runner_sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Timed:
    """Logits (N, classes) of pictures, and the seconds (N, runs, 2) that preparing and running
    took."""

    logits: Floats
    seconds: np.ndarray
    said: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Remote:
    """A model on a device, ready to be run; see `open_remote`."""

    connection: Connection
    folder: str
    classes: int
    threads: int
    cores: str | None
    system: str
    cpu: str | None
    runner_sha256: str

    def answer(
        self, pictures: Sequence[Image8] | Floats, *, runs: int = 1, warm_up: int = 3
    ) -> Timed:
        """Run pictures there: decoded ones, uint8 (H, W, 3) each, or prepared ones, float32
        (N, 3, H, W); each so many times, behind so many untimed runs of the first."""
        job, answers = f"{self.folder}/job", f"{self.folder}/answers"
        self.connection.push(_job(pictures), job)
        words = [f"{self.folder}/runner", f"{self.folder}/model.mbn", job, answers]
        words += [str(self.threads), str(runs), str(warm_up)]
        said = self.connection.run([*words, self.cores] if self.cores else words)
        return self._decoded(self.connection.pull(answers), len(pictures), runs, said)

    def report(self, prepared: Timed, decoded: Timed | None) -> DeviceReport:
        """What was measured, over all runs of all pictures."""
        return DeviceReport(
            device=self.connection.name,
            system=self.system,
            cpu=self.cpu,
            instruction_set=prepared.said["isa"],
            cores=self.cores,
            threads=self.threads,
            before=prepared.said["before"],
            after=(decoded or prepared).said["after"],
            run=_percentiles(prepared.seconds[:, :, 1]),
            prepare_and_run=None if decoded is None else _percentiles(decoded.seconds.sum(axis=2)),
            runner_sha256=self.runner_sha256,
        )

    def _decoded(self, data: bytes, count: int, runs: int, said: str) -> Timed:
        kind = np.dtype([("seconds", "<f8", (runs, 2)), ("logits", "<f4", (self.classes,))])
        if len(data) != count * kind.itemsize:
            raise DeviceError(
                f"{self.connection.name}: {len(data)} bytes of answers, expected "
                f"{count * kind.itemsize}: the model's classes are others, or it was cut short"
            )
        found = np.frombuffer(data, kind)
        try:
            line = json.loads(said)
        except ValueError:
            raise DeviceError(f"{self.connection.name}: the runner said {said[:200]!r}") from None
        return Timed(logits=found["logits"].copy(), seconds=found["seconds"].copy(), said=line)


@contextmanager
def open_remote(
    device: str, model: bytes, *, classes: int, threads: int, cores: str | None
) -> Iterator[Remote]:
    """Push the runner and an engine file to a device; both are removed in the end.

    Raises UsageError for a device or cores that are none, MissingRunner, DeviceError.
    """
    if cores is not None and not all(part.isdigit() for part in cores.split(",")):
        raise UsageError(f"cores {cores!r}: expected numbers with commas between, such as 4,5")
    connection = connect(device)
    words = connection.run(["uname", "-srm"]).split()
    architecture = _ARCHITECTURES.get(words[-1] if words else "")
    if architecture is None:
        raise DeviceError(f"{device}: {' '.join(words)}: expected one of {sorted(_ARCHITECTURES)}")
    runner = find_runner(architecture)
    folder = f"{connection.scratch}/mobilenet-{secrets.token_hex(8)}"
    say(f"{device}: {' '.join(words)}; pushing {(len(runner) + len(model)) / 1e6:.1f} MB")
    connection.run(["mkdir", folder])
    try:
        connection.push(runner, f"{folder}/runner")
        connection.push(model, f"{folder}/model.mbn")
        connection.run(["chmod", "700", f"{folder}/runner"])
        yield Remote(
            connection=connection,
            folder=folder,
            classes=classes,
            threads=threads,
            cores=cores,
            system=" ".join(words),
            cpu=_cpu(connection),
            runner_sha256=hashlib.sha256(runner).hexdigest(),
        )
    finally:
        with suppress(DeviceError):  # such as a device that is gone
            connection.run(["rm", "-r", folder])


def find_runner(architecture: str) -> bytes:
    """The runner for an architecture. Raises MissingRunner."""
    named = os.environ.get(VARIABLE)
    path = (Path(named) if named else Path(str(files(__name__.rpartition(".")[0])))) / (
        f"runner-{architecture}"
    )
    try:
        return path.read_bytes()
    except OSError:
        raise MissingRunner(path, architecture) from None


def _cpu(connection: Connection) -> str | None:
    """What the device says of its processor, where it does."""
    with suppress(DeviceError):
        lines = connection.run(["cat", "/proc/cpuinfo"]).splitlines()
        named = dict(line.split(":", 1) for line in lines if ":" in line)
        fields = {key.strip(): value.strip() for key, value in named.items()}
        for key in ("model name", "Model", "Hardware", "CPU part"):
            if key in fields:
                return fields[key]
    return None


def _job(pictures: Sequence[Image8] | Floats) -> bytes:
    parts = [_MAGIC]
    for picture in pictures:
        if picture.dtype == np.uint8:
            kind, (height, width) = _RGB, picture.shape[:2]
        else:
            kind, (height, width) = _PREPARED, picture.shape[1:]
            picture = picture.astype("<f4", copy=False)
        parts += [struct.pack("<III", kind, height, width), picture.tobytes()]
    return b"".join(parts)


def _percentiles(seconds: np.ndarray) -> Percentiles:
    milliseconds = 1e3 * seconds.reshape(-1)
    return Percentiles(
        p50_ms=float(np.percentile(milliseconds, 50)),
        p90_ms=float(np.percentile(milliseconds, 90)),
        runs=milliseconds.size,
    )

"""An exported folder whose file runs on another device, held to its golden pictures there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..device import DeviceReport, open_remote
from ..errors import CheckpointError, UsageError
from ..preprocess import Preprocess
from ..runtime import Model, Session, read_artifact
from .golden import read_golden
from .proof import disagreement, tie_of

FORMATS = ("engine", "web")  # whose file is the engine's
_RUNS = 10  # timed, of each golden picture


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """What was measured there on the golden pictures; `problem` says what is wrong with the way the
    device itself prepares decoded pictures, if anything is."""

    report: DeviceReport
    problem: str | None


@contextmanager
def open_on_device(
    folder: Path, device: str, *, threads: int, cores: str | None
) -> Iterator[tuple[Model, OnDevice]]:
    """Open an exported folder for inference on a device, by prepared images.

    Raises UsageError for a folder of another format or a device that is none, CheckpointError for a
    damaged folder, MissingRunner, DeviceError.
    """
    file = read_artifact(folder)
    if file.format not in FORMATS:
        raise UsageError(
            f"{folder}: format {file.format!r}: on a device runs what was exported for "
            f"{' or '.join(FORMATS)}"
        )
    if threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")
    try:
        rules = Preprocess.from_dict(file.contract["preprocess"])
    except UsageError as error:
        raise CheckpointError(f"{file.folder / 'model.json'}: {error}") from None
    labels = tuple(file.contract["labels"])
    golden = read_golden(file)
    tolerance = file.description["golden"]["tolerance"]
    with open_remote(
        device, bytes(file.data), classes=len(labels), threads=threads, cores=cores
    ) as remote:
        prepared = remote.answer(golden.inputs, runs=_RUNS)
        decoded, problem = None, None
        if rules.resize_mode != "crop_fraction":  # which the engine leaves to its caller
            decoded = remote.answer(golden.images, runs=_RUNS)
            wrong = disagreement(
                decoded.logits, golden.logits, tolerance=tolerance, tie=tie_of(file.precision)
            )
            if wrong is not None:
                problem = f"the device prepares pictures otherwise: {wrong}"
        report = remote.report(prepared, decoded)
        session = Session(
            runtime="engine",
            version=f"{report.instruction_set} on {device}",
            precision=file.precision,
            layout="NCHW",
            threads=threads,
            run=lambda images: remote.answer(images, warm_up=0).logits,
        )
        model = Model(file=file, session=session, preprocess=rules, labels=labels)
        yield model, OnDevice(report=report, problem=problem)

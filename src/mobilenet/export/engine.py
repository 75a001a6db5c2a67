"""`to_engine`: a classifier as the flat file that the native engine maps and runs."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..flat import (
    UNSUPPORTED_RESIZE,
    Card,
    EngineFile,
    from_bfloat16,
    read_engine,
    to_bfloat16,
    write_engine,
)
from ..integer import QuantisedProgram, run_integer
from ..preprocess import Preprocess
from ..program import IMAGE, LOGITS, Floats, Program, evaluate_float, program_of
from ..quantize import quantise_program
from ..runtime import ENGINE_HEADER, Precision
from .artifact import ExportedFile, Job, Reference

if TYPE_CHECKING:
    from ..classify import Classifier

FILE = "model.mbn"
_BATCH = 8


def to_engine(job: Job) -> ExportedFile:
    """Convert to the engine's format: input "image" (batch, 3, size, size), output "logits".

    Raises ExportError for a label that the file cannot hold.
    """
    size, classes = job.preprocess.size, len(job.contract["labels"])
    network = job.quantised or _network(job.classifier, job.precision, ())
    made = EngineFile(
        network=network,
        precision=job.precision,
        height=size,
        width=size,
        card=card_of(job.contract, job.preprocess),
    )
    data = write_engine(made)
    return ExportedFile(
        format="engine",
        file=FILE,
        data=data,
        precision=job.precision,
        input={
            "name": "image",
            "shape": ["batch", 3, size, size],
            "dtype": "float32",
            "layout": "NCHW",
        },
        output={"name": LOGITS, "shape": ["batch", classes], "dtype": "float32"},
        details={"header_sha256": hashlib.sha256(data[:ENGINE_HEADER]).hexdigest()},
        reference=_reference(network, job.precision),
    )


def engine_bytes(
    network: "Classifier", *, size: int, precision: Precision, calibration: Floats | None = None
) -> bytes:
    """A file without a contract, to be timed: int8 is calibrated with images (N, 3, size, size)."""
    images = np.empty((0, 3, size, size), np.float32) if calibration is None else calibration
    batches = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return write_engine(
        EngineFile(
            network=_network(network, precision, batches),
            precision=precision,
            height=size,
            width=size,
            card=Card(),
        )
    )


def run_file(data: bytes, images: Floats) -> Floats:
    """The logits (N, classes) of a file, by NumPy: slow, where there is no native engine."""
    network = read_engine(data).network
    if isinstance(network, QuantisedProgram):
        return run_integer(network, images)[LOGITS][:, :, 0, 0]
    return evaluate_float(network, images)[LOGITS][:, :, 0, 0].astype(np.float32)


def _network(
    classifier: "Classifier", precision: Precision, calibration: Iterable[Floats]
) -> Program | QuantisedProgram:
    program = program_of(classifier)
    match precision:
        case "float32":
            return program
        case "bfloat16":
            return rounded(program)
        case "int8":
            return quantise_program(program, calibration)
        case "float16":
            raise UsageError("engine: a file is float32, bfloat16 or int8")


def _reference(network: Program | QuantisedProgram, precision: Precision) -> Reference | None:
    """What the file must answer, where that is not what the classifier answers."""
    if isinstance(network, QuantisedProgram):
        return lambda images: run_integer(network, images)[LOGITS][:, :, 0, 0]
    if precision == "bfloat16":
        from ..quantize.trace import run_float

        return lambda images: run_float(network, images)[LOGITS][:, :, 0, 0]
    return None


def rounded(program: Program) -> Program:
    """The program with the weights that a bfloat16 file keeps: all but those of depthwise filters
    and of the convolution that reads the image are rounded."""
    steps = []
    for step in program.steps:
        filters = {} if IMAGE in step.sources else step.filters
        changed = {
            name: replace(filter, weight=from_bfloat16(to_bfloat16(filter.weight)))
            for name, filter in filters.items()
            if name != "depthwise"
        }
        steps.append(replace(step, **changed))
    return replace(program, steps=tuple(steps))


def card_of(contract: Mapping[str, Any], rules: Preprocess) -> Card:
    """What an engine file tells devices of its pictures and classes."""
    resize = {"shorter": rules.resize, "stretch": 0}.get(rules.resize_mode)
    return Card(
        contract=json.dumps(contract, ensure_ascii=False),
        labels=tuple(contract["labels"]),
        mean=rules.mean,
        std=rules.std,
        resize=UNSUPPORTED_RESIZE if resize is None else resize,
        filter=("bilinear", "bicubic").index(rules.interpolation),
    )

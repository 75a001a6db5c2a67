"""A trained network as a file for other runtimes: `export`, and its folder of model, contract,
golden images and a usage sample."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..checkpoint import load_model, read_model_json, write_model_json
from ..durable import make_folder, write_atomically
from ..errors import MissingDependency, UsageError
from ..preprocess import Preprocess
from ..progress import say, track
from ..runtime import Floats, Precision, usable_cores
from .artifact import Artifact, ExportedFile, Job, Proof
from .engine import to_engine
from .golden import FILE as GOLDEN_FILE
from .golden import Golden, golden_inputs, read_golden
from .onnx import to_onnx
from .proof import disagreement, golden_answers, prove, tolerance_of

__all__ = [
    "EXPORTERS",
    "Artifact",
    "ExportedFile",
    "Golden",
    "Job",
    "Proof",
    "disagreement",
    "export",
    "golden_inputs",
    "read_golden",
]


def _onnx(job: Job) -> ExportedFile:
    size, metadata = job.preprocess.size, _metadata(job.contract)
    return to_onnx(job.classifier, size=size, metadata=metadata)


Exporter = Callable[[Job], ExportedFile]

EXPORTERS: Mapping[str, Exporter] = {"onnx": _onnx, "engine": to_engine}
PRECISIONS: Mapping[str, tuple[Precision, ...]] = {
    "onnx": ("float32",),
    "engine": ("float32", "bfloat16", "int8"),
}
SAMPLES = {"onnx": "predict.py", "engine": "predict_engine.py"}


def export(
    run: Path,
    *,
    to: str,
    out: Path,
    precision: Precision = "float32",
    calibrate: str | None = None,
) -> Artifact:
    """Convert a trained run to a model file that other runtimes read, and prove it.

    The file is run by its own runtime on ten golden images and compared with the network in torch,
    or with the exact arithmetic of its precision, before anything is written.

    Args:
        run: Run folder that `train` wrote.
        to: Format of the file; onnx, or engine for mobilenet's own native engine.
        out: Folder for the model file, model.json, golden.npz and predict.py.
        precision: What the file computes in; onnx has float32 alone.
        calibrate: Dataset whose training pictures int8 takes its ranges from.
    """
    _check_options(to, precision, calibrate)
    out = Path(out)
    if (out / "model.json").exists() and "artifact" not in read_model_json(out):
        raise UsageError(f"{out}: a run, whose model.json would be lost; choose another folder")
    contract = read_model_json(run)
    loaded = load_model(run)
    job = Job(
        classifier=loaded.module(),
        contract=contract,
        preprocess=Preprocess.from_dict(loaded.preprocess),
        precision=precision,
        calibration=_pictures(run, calibrate),
    )
    float_golden = golden_answers(job.classifier, job.preprocess)
    made = EXPORTERS[to](job)
    logits = float_golden.logits if made.reference is None else made.reference(float_golden.inputs)
    proof = prove(made, float_golden, expected=logits)
    fallback = _fallback(job, float_golden) if to == "engine" else None
    golden = replace(float_golden, logits=logits)
    return _write(out, run, contract, made, golden, proof, fallback)


def _check_options(to: str, precision: str, calibrate: str | None) -> None:
    if to not in EXPORTERS:
        raise UsageError(f"format {to!r}: expected one of {sorted(EXPORTERS)}")
    if precision not in PRECISIONS[to]:
        raise UsageError(f"precision {precision!r}: --to {to} has {', '.join(PRECISIONS[to])}")
    if (precision == "int8") != (calibrate is not None):
        raise UsageError(
            "--precision int8 and --calibrate DATA go together: the ranges of the activations are "
            "found on the training pictures of DATA"
        )


def _pictures(run: Path, data: str | None) -> Iterable[Floats]:
    """Batches of training pictures to calibrate with, none of which the run was measured on."""
    if data is None:
        return ()
    from ..evaluate import open_model, open_split
    from ..quantize.pictures import BATCH, PICTURES, calibration_batches

    opened = open_model(run, threads=None, device="cpu")
    dataset, name = open_split(opened, data, "train", limit=None)
    split = dataset.splits[name]
    count = min(PICTURES, len(split))
    found = calibration_batches(split, opened.preprocess, count=count, workers=usable_cores())
    return track(found, total=-(-count // BATCH), desc="calibrating")


def _fallback(job: Job, golden: Golden) -> ExportedFile | None:
    """The same network for ONNX Runtime in float32, for machines without the native engine; None
    where this one cannot make it."""
    try:
        made = _onnx(job)
        prove(made, golden, expected=golden.logits)
    except MissingDependency as error:
        say(f"{error}; without it the folder has no fallback for machines without the engine")
        return None
    return made


def _write(
    out: Path,
    run: Path,
    contract: Mapping[str, Any],
    made: ExportedFile,
    golden: Golden,
    proof: Proof,
    fallback: ExportedFile | None,
) -> Artifact:
    from importlib.metadata import version
    from importlib.resources import files

    make_folder(out)
    golden_data = golden.to_bytes()
    sha256 = hashlib.sha256(made.data).hexdigest()
    write_atomically(out / made.file, made.data)
    write_atomically(out / GOLDEN_FILE, golden_data)
    sample = files(__name__) / "samples" / SAMPLES[made.format]
    write_atomically(out / "predict.py", sample.read_bytes())
    section = {
        "format": made.format,
        "file": made.file,
        "sha256": sha256,
        "bytes": len(made.data),
        "precision": made.precision,
        "input": dict(made.input),
        "output": dict(made.output),
        **made.details,
        "golden": {
            "file": GOLDEN_FILE,
            "sha256": hashlib.sha256(golden_data).hexdigest(),
            "tolerance": tolerance_of(made.precision, golden.logits),
        },
        "checked": asdict(proof),
        "source": _relative(run, out),
        "mobilenet": version("mobilenet"),
    }
    if fallback is not None:
        write_atomically(out / fallback.file, fallback.data)
        section["fallback"] = {
            "format": fallback.format,
            "file": fallback.file,
            "sha256": hashlib.sha256(fallback.data).hexdigest(),
        }
    # last: until it is there, the folder is no artifact or still names the earlier file's hash
    write_model_json(out, {**contract, "artifact": section})
    return Artifact(
        **asdict(proof),
        path=out,
        file=out / made.file,
        format=made.format,
        precision=made.precision,
        bytes=len(made.data),
        sha256=sha256,
        fallback=fallback and out / fallback.file,
    )


def _metadata(contract: Mapping[str, Any]) -> dict[str, str]:
    """What the file itself carries, so that it can be used without its folder."""
    from importlib.metadata import version

    return {
        "model.json": json.dumps(contract, ensure_ascii=False),
        "labels": json.dumps(contract["labels"], ensure_ascii=False),
        "preprocess": json.dumps(contract["preprocess"]),
        "source.sha256": contract["weights"]["sha256"],
        "mobilenet.version": version("mobilenet"),
    }


def _relative(run: Path, out: Path) -> str:
    """The run as seen from `out`, so that both can be moved together."""
    try:
        return Path(os.path.relpath(run, out)).as_posix()
    except ValueError:  # on another drive
        return Path(run).resolve().as_posix()

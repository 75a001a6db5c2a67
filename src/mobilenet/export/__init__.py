"""A trained network as a file for other runtimes: `export`, and its folder of model, contract,
golden images and a usage sample."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..checkpoint import load_model, read_model_json, write_model_json
from ..durable import make_folder, write_atomically
from ..errors import ExportError, UsageError
from ..preprocess import Preprocess
from ..runtime import FORMATS, RUNTIMES, Floats
from .artifact import Artifact, ExportedFile
from .golden import FILE as GOLDEN_FILE
from .golden import Golden, golden_images, golden_inputs, read_golden
from .onnx import to_onnx

if TYPE_CHECKING:
    from ..classify import Classifier

__all__ = [
    "EXPORTERS",
    "TOLERANCE",
    "Artifact",
    "ExportedFile",
    "Golden",
    "disagreement",
    "export",
    "golden_inputs",
    "read_golden",
]

TOLERANCE = 1e-3  # of a float32 logit; six networks in four runtimes stay within 2e-4
TIE = 1e-4  # two logits as close as this may change places by rounding


class Exporter(Protocol):
    """Converts a classifier, whose input is `size` pixels square; `metadata` goes into the file."""

    def __call__(
        self, classifier: "Classifier", *, size: int, metadata: Mapping[str, str]
    ) -> ExportedFile: ...


EXPORTERS: Mapping[str, Exporter] = {"onnx": to_onnx}
SAMPLES = {"onnx": "predict.py"}


def export(run: Path, *, to: str, out: Path) -> Artifact:
    """Convert a trained run to a model file that other runtimes read, and prove it.

    The file is run by its own runtime on ten golden images and compared with the network in torch
    before anything is written.

    Args:
        run: Run folder that `train` wrote.
        to: Format of the file; onnx.
        out: Folder for the model file, model.json, golden.npz and predict.py.
    """
    from importlib.metadata import version
    from importlib.resources import files

    if to not in EXPORTERS:
        raise UsageError(f"format {to!r}: expected one of {sorted(EXPORTERS)}")
    out = Path(out)
    if (out / "model.json").exists() and "artifact" not in read_model_json(out):
        raise UsageError(f"{out}: a run, whose model.json would be lost; choose another folder")
    contract = read_model_json(run)
    loaded = load_model(run)
    network = loaded.module()
    preprocess = Preprocess.from_dict(loaded.preprocess)

    golden = _golden(network, preprocess)
    made = EXPORTERS[to](network, size=preprocess.size, metadata=_metadata(contract))
    runtime, error = _prove(made, golden)

    make_folder(out)
    golden_data = golden.to_bytes()
    sha256 = hashlib.sha256(made.data).hexdigest()
    write_atomically(out / made.file, made.data)
    write_atomically(out / GOLDEN_FILE, golden_data)
    sample = SAMPLES[made.format]
    write_atomically(out / sample, (files(__name__) / "samples" / sample).read_bytes())
    section = {
        "format": made.format,
        "file": made.file,
        "sha256": sha256,
        "bytes": len(made.data),
        "precision": "float32",
        "input": dict(made.input),
        "output": dict(made.output),
        **made.details,
        "golden": {
            "file": GOLDEN_FILE,
            "sha256": hashlib.sha256(golden_data).hexdigest(),
            "tolerance": TOLERANCE,
        },
        "checked": {"runtime": runtime, "max_error": error},
        "source": _relative(run, out),
        "mobilenet": version("mobilenet"),
    }
    # last: until it is there, the folder is no artifact or still names the earlier file's hash
    write_model_json(out, {**contract, "artifact": section})
    return Artifact(
        path=out,
        file=out / made.file,
        format=made.format,
        bytes=len(made.data),
        sha256=sha256,
        runtime=runtime,
        max_error=error,
    )


def disagreement(found: Floats, expected: Floats, *, tolerance: float) -> str | None:
    """What is wrong with logits (N, classes) that should be `expected`; None if nothing is.

    Another first class counts, unless the two logits tie to within rounding.
    """
    if found.shape != expected.shape:
        return f"answers of shape {found.shape}, expected {expected.shape}"
    error = float(np.abs(found - expected).max())
    if not error <= tolerance:  # also where it is not a number
        return f"logits differ by up to {error:.3g}, more than {tolerance:g}"
    rows = np.arange(len(expected))
    lost = expected.max(axis=1) - expected[rows, found.argmax(axis=1)]
    changed = int((lost > TIE).sum())
    return f"another first class for {changed} of {len(expected)} images" if changed else None


def _golden(network: "Classifier", contract: Preprocess) -> Golden:
    import torch

    images = golden_images()
    inputs = golden_inputs(contract, images)
    with torch.inference_mode():
        logits = network(torch.from_numpy(inputs)).numpy()
    return Golden(images=images, inputs=inputs, logits=logits)


def _prove(made: ExportedFile, golden: Golden) -> tuple[str, float]:
    """Run the file: the runtime's name and version, and the largest error of a logit.

    Raises ExportError where it does not answer as the network does.
    """
    name = FORMATS[made.format][0]
    session = RUNTIMES[name](made.data, threads=1, precision="float32", batch=None)
    found = session.run(session.laid_out(golden.inputs))
    runtime = f"{name} {session.version}"
    if problem := disagreement(found, golden.logits, tolerance=TOLERANCE):
        raise ExportError(
            f"{made.file}: {runtime} does not answer as the network in torch does on the golden "
            f"images: {problem}; nothing was written"
        )
    return runtime, float(np.abs(found - golden.logits).max())


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

"""`to_ncnn`: a classifier as ncnn's text and weights, converted by pnnx."""

import json
import subprocess
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError, MissingDependency
from ..runtime import pack
from .artifact import ExportedFile, Job

if TYPE_CHECKING:
    from ..classify import Classifier

FILE, WEIGHTS, CONTRACT = "model.param", "model.bin", "contract.json"


def to_ncnn(job: Job) -> ExportedFile:
    """Convert from a TorchScript trace: blob "in0" (3, size, size) to blob "out0" (classes), one
    image at a time.

    The format has no place for a contract: contract.json is the third file. Raises
    MissingDependency without the extra "ncnn", ExportError where pnnx fails.
    """
    for package in ("pnnx", "ncnn"):
        if find_spec(package) is None:
            raise MissingDependency(package, "ncnn", "exporting to ncnn")
    size = job.preprocess.size
    files = {
        **_converted(job.classifier, size),
        CONTRACT: json.dumps(job.contract, ensure_ascii=False, indent=2).encode(),
    }
    return ExportedFile(
        format="ncnn",
        file=FILE,
        data=pack(files),
        packed=True,
        input={"name": "in0", "shape": [3, size, size], "dtype": "float32", "layout": "CHW"},
        output={"name": "out0", "shape": [len(job.contract["labels"])], "dtype": "float32"},
        details={},
    )


def _converted(classifier: "Classifier", size: int) -> dict[str, bytes]:
    import pnnx  # pyright: ignore[reportMissingImports]
    import torch

    from ..layers import folded

    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is old, and keeps sizes
        folder = Path(name)
        traced = torch.jit.trace(folded(classifier), torch.zeros(1, 3, size, size))
        torch.jit.save(traced, folder / "model.pt")
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{size},{size}]", "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        try:
            return {
                FILE: (folder / "model.ncnn.param").read_bytes(),
                WEIGHTS: (folder / "model.ncnn.bin").read_bytes(),
            }
        except OSError:
            said = (done.stdout + done.stderr).strip().splitlines()[-3:]
            raise ExportError(f"pnnx cannot convert the network: {' '.join(said)}") from None

"""ncnn: its text and weights as a session, on the CPU in float32."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..errors import CheckpointError, MissingDependency, UsageError
from .pack import unpack
from .sessions import Data, Floats, Precision, Session, one_by_one


def open_files(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open the `pack` of model.param and model.bin; one image at a time, `run` takes any number.

    Left to itself ncnn computes in float16 or bfloat16 on ARM: all of that is off. Raises
    UsageError for another precision or batch, CheckpointError for bytes that are no model.
    """
    if batch not in (None, 1):
        raise UsageError(f"ncnn: the file takes no batch of {batch}")
    if precision != "float32":
        raise UsageError(f"ncnn: files of it are float32 here, not {precision}")
    try:
        ncnn: Any = import_module("ncnn")
    except ImportError:
        raise MissingDependency("ncnn", "ncnn", "running an ncnn file") from None
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    try:
        files = unpack(bytes(data))
        parts = files["model.param"], files["model.bin"]
    except (BadZipFile, KeyError) as error:
        raise CheckpointError(f"ncnn cannot open the model: {error}") from error
    with tempfile.TemporaryDirectory() as name:  # its binding opens paths only
        paths = Path(name) / "model.param", Path(name) / "model.bin"
        for path, part in zip(paths, parts, strict=True):
            path.write_bytes(part)
        if net.load_param(str(paths[0])) != 0 or net.load_model(str(paths[1])) != 0:
            raise CheckpointError("ncnn cannot open the model: damaged, or of another version")

    def run(image: Floats) -> Floats:
        given = np.ascontiguousarray(image[0])  # the tensor reads it in place
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(given))
        _, logits = extractor.extract("out0")
        return np.array(logits)[None]

    return Session(
        runtime="ncnn",
        version=ncnn.__version__,
        precision=precision,
        layout="NCHW",
        threads=threads,
        run=one_by_one(run),
        contract=files["contract.json"].decode() if "contract.json" in files else None,
    )

"""Core ML: an .mlpackage as a session; off Apple's systems by `mil`, which runs what is in it."""

import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..errors import CheckpointError, MissingDependency, UsageError
from ..progress import quietly
from .pack import unpack
from .pixels import to_pixels
from .sessions import LOGITS, Data, Floats, Precision, Session, one_by_one

PACKAGE = "model.mlpackage"
INPUT, PROBABILITIES = "image", "classLabel_probs"
_NOT_INVOLVED = (
    "Core ML, and the CPU, GPU and Neural Engine of an Apple device: the file's operators were "
    "run one by one in NumPy"
)


def open_package(data: Data, *, threads: int, precision: Precision, batch: int | None) -> Session:
    """Open the `pack` of an .mlpackage, which takes one image at a time; `run` takes any number.

    On macOS Core ML runs it. Elsewhere its operators are interpreted, which `note` says. A file
    that takes pixels gives log-probabilities in place of logits. Raises UsageError for another
    batch than 1, CheckpointError for bytes that are no such package.
    """
    if batch not in (None, 1):
        raise UsageError(f"coreml: the file takes no batch of {batch}")
    if precision not in ("float32", "float16", "int8"):
        raise UsageError(f"coreml: Core ML has no {precision}")
    with quietly():
        try:
            import coremltools  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise MissingDependency("coremltools", "coreml", "running a Core ML file") from None
    apple = platform.system() == "Darwin"
    with quietly(), tempfile.TemporaryDirectory() as name:  # it opens paths only
        try:
            for path, part in unpack(bytes(data)).items():
                target = Path(name) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(part)
            package = Path(name) / PACKAGE
            model = coremltools.models.MLModel(str(package), skip_model_load=not apple)
            spec = model.get_spec()
            answer = model.predict if apple else _interpreted(model, spec)
        except (BadZipFile, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"coremltools cannot open the model: {error}") from error
    contract = spec.description.metadata.userDefined.get("model.json")
    classifies = spec.description.predictedFeatureName != ""
    pixels = to_pixels(contract) if classifies else None
    labels = json.loads(contract)["labels"] if classifies else []

    def run(image: Floats) -> Floats:
        given: Any = image
        if apple and classifies:
            from PIL import Image

            given = Image.fromarray(np.ascontiguousarray(image[0].transpose(1, 2, 0)))
        found = answer({INPUT: given})
        if not classifies:
            return np.asarray(found[LOGITS], np.float32)
        scores = np.array([[found[PROBABILITIES][label] for label in labels]], np.float32)
        return np.log(np.maximum(scores, np.finfo(np.float32).tiny))

    return Session(
        runtime="coreml",
        version=version("coremltools") + ("" if apple else ", interpreted"),
        precision=precision,
        layout="NCHW",
        threads=threads if apple else 1,
        run=one_by_one(run),
        contract=contract,
        pixels=pixels,
        probabilities=classifies,
        note=None if apple else _NOT_INVOLVED,
    )


def _interpreted(model: Any, spec: Any) -> Any:
    from coremltools.converters.mil.frontend.milproto.load import (  # pyright: ignore[reportMissingImports]
        load,
    )

    from .mil import run_program

    program = load(
        spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir
    )

    def answer(inputs: dict[str, Floats]) -> dict[str, Any]:
        given = {name: value.astype(np.float32) for name, value in inputs.items()}
        return run_program(program, given)

    return answer

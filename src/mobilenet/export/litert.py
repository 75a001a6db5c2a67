"""`to_litert`: a classifier as a .tflite file that carries its contract and its labels."""

import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError, MissingDependency
from .artifact import ExportedFile, Job
from .compact import STORAGES, rounded_network
from .litert_card import ENTRY, card_bytes, with_labels
from .litert_int8 import FILE, to_litert_int8
from .litert_model import from_pixels, named, with_metadata
from .pixels import described

if TYPE_CHECKING:
    from ..classify import Classifier


def to_litert(job: Job) -> ExportedFile:
    """Convert: input "image" float32 (1, size, size, 3), output "logits" (1, classes);
    or from uint8 pixels (1, size, size, 3).

    LiteRT may resize the batch. int8 has the network's own whole numbers, and float32 at both ends.
    The file's metadata has the contract, and TFLite Metadata with labels.txt. Raises
    MissingDependency without the extra "litert", ExportError for what the format cannot say.
    """
    size = job.preprocess.size
    for package in ("ai_edge_litert", "flatbuffers"):
        if find_spec(package) is None:
            raise MissingDependency(package.replace("_", "-"), "litert", "exporting to LiteRT")
    if job.quantised is not None:
        from .quantised_torch import QuantisedClassifier, reference_of

        made = to_litert_int8(job.quantised, size=size, extra=job.ranges, metadata={})
        rounded = QuantisedClassifier(job.quantised, job.ranges, gated=True)
        made = replace(made, reference=reference_of(rounded))
    else:
        made = _float_file(job)
    pixels = job.input == "pixels"
    if pixels:
        data = from_pixels(made.data, job.preprocess.mean, job.preprocess.std)
        made = replace(made, data=data, input=described(job.preprocess, 1))
    card = card_bytes(job.contract["model"]["name"], job.preprocess, pixels=pixels)
    texts = {name: text.encode() for name, text in job.metadata().items()}
    data = with_metadata(made.data, {**texts, ENTRY: card})
    return replace(made, data=with_labels(data, job.contract["labels"]))


def _float_file(job: Job) -> ExportedFile:
    size, half = job.preprocess.size, job.weights == "float16"
    data = litert_bytes(job.classifier, size=size, batch=1)
    return ExportedFile(
        format="litert",
        file=FILE,
        data=named(data, half=half),
        input={"name": "image", "shape": [1, size, size, 3], "dtype": "float32", "layout": "NHWC"},
        output={"name": "logits", "shape": [1, len(job.contract["labels"])], "dtype": "float32"},
        details={"weights": "float16"} if half else {},
        reference=rounded_network(job.classifier, STORAGES["float16"]) if half else None,
    )


def litert_bytes(classifier: "Classifier", *, size: int, batch: int) -> bytes:
    """Convert to .tflite: float32 (batch, size, size, 3) to logits (batch, classes).

    Raises MissingDependency without litert-torch, ExportError where it fails.
    """
    if find_spec("litert_torch") is None:
        raise MissingDependency("litert-torch", "litert", "converting to LiteRT")
    import litert_torch  # pyright: ignore[reportMissingImports]
    import torch

    from ..layers import folded

    network = litert_torch.to_channel_last_io(folded(classifier), args=[0])
    with redirect_stdout(sys.stderr):  # it reports its progress on stdout
        try:
            program = litert_torch.convert(network, (torch.zeros(batch, size, size, 3),))
        except Exception as error:  # of many kinds, from torch.export to the MLIR passes
            raise ExportError(f"litert-torch cannot convert the network: {error}") from error
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.tflite"
            program.export(str(path))
            return path.read_bytes()

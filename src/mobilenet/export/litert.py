"""`litert_bytes`: a classifier as a .tflite file, for timing LiteRT beside other runtimes."""

import sys
import tempfile
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExportError, MissingDependency

if TYPE_CHECKING:
    from ..classify import Classifier


def litert_bytes(classifier: "Classifier", *, size: int, batch: int) -> bytes:
    """Convert to .tflite: float32 (batch, size, size, 3) to logits (batch, classes).

    Raises MissingDependency without litert-torch, ExportError where it fails.
    """
    if find_spec("litert_torch") is None:
        raise MissingDependency("litert-torch", "litert", "converting to LiteRT")
    import litert_torch  # pyright: ignore[reportMissingImports]
    import torch

    from ..classify import folded

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

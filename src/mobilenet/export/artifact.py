"""What an exporter makes of a network, and what `export` reports of the folder it wrote."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A model file in memory. `format` is a key of `runtime.FORMATS`; `input` and `output` give
    name, shape, dtype (and layout) as `model.json` states them; `details` what else is known."""

    format: str
    file: str
    data: bytes
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    details: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An exported folder. `max_error` is the largest absolute difference of a logit between the
    file, run by `runtime`, and the network in torch, over the golden images."""

    path: Path
    file: Path
    format: str
    bytes: int
    sha256: str
    runtime: str
    max_error: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {**asdict(self), "path": str(self.path), "file": str(self.file)}

    def __str__(self) -> str:
        """A few lines for people."""
        return (
            f"{self.file}: {self.format}, {self.bytes / 1e6:.2f} MB\n"
            f"checked with {self.runtime}: logits within {self.max_error:.2g} of torch's\n"
            f"beside it: model.json (how to feed it), golden.npz (to check a device), predict.py"
        )

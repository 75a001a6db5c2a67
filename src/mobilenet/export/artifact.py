"""What an exporter is given, what it makes, and what `export` reports of the folder it wrote."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..integer import Affine, Place, QuantisedProgram
from ..preprocess import Preprocess
from ..runtime import Floats, Precision, unpack

if TYPE_CHECKING:
    from ..classify import Classifier

Storage = Literal["float32", "float16", "bfloat16", "int8"]
Input = Literal["tensor", "pixels"]
Reference = Callable[[Floats], Floats]  # images (N, 3, H, W) to logits (N, classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A classifier to convert. `contract` is its model.json, `preprocess` what that says of
    pictures, `weights` what they are stored in, `quantised` its int8 network where that is the
    precision, and `ranges` what a .tflite file of it needs beside its own. `input`: whether the
    file takes normalised images or uint8 pixels, which it normalises by itself."""

    classifier: "Classifier"
    contract: Mapping[str, Any]
    preprocess: Preprocess
    precision: Precision
    weights: Storage = "float32"
    input: Input = "tensor"
    quantised: QuantisedProgram | None = None
    ranges: Mapping[Place, Affine] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """What the file itself carries, so that it can be used without its folder."""
        return contract_metadata(self.contract)


def contract_metadata(contract: Mapping[str, Any]) -> dict[str, str]:
    """What a file carries of its contract, so that it can be used without its folder."""
    return {
        "model.json": json.dumps(contract, ensure_ascii=False),
        "labels": json.dumps(contract["labels"], ensure_ascii=False),
        "preprocess": json.dumps(contract["preprocess"]),
        "source.sha256": contract["weights"]["sha256"],
        "mobilenet.version": version("mobilenet"),
    }


@dataclass(frozen=True, kw_only=True)
class ExportedFile:
    """A model file in memory. `format` is a key of `runtime.FORMATS`; `input` and `output` give
    name, shape, dtype (and layout) as `model.json` states them; `details` what else is known.
    `reference` is what the file must compute; None: what the network in torch does. `packed`:
    `data` is the `pack` of several files, and `file` what to open. `beside` are further files of
    the folder, which running it needs."""

    format: str
    file: str
    data: bytes
    input: Mapping[str, Any]
    output: Mapping[str, Any]
    details: Mapping[str, Any]
    precision: Precision = "float32"
    reference: Reference | None = None
    beside: Mapping[str, bytes] = field(default_factory=dict)
    packed: bool = False

    @property
    def files(self) -> dict[str, bytes]:
        """Its files by their paths below the folder."""
        return unpack(self.data) if self.packed else {self.file: self.data}


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What the file, run by `runtime`, answered to the golden images.

    `max_error` is the largest absolute difference of a logit from what it must be: the answers of
    the network in torch, of that with weights in bfloat16, of the exact int8 arithmetic. Beside
    the network in torch in float32: the `float_cosine` of all logits, and `float_agreement`, the
    fraction of images with the same first class; None where the answers are maps.
    """

    runtime: str
    max_error: float
    float_cosine: float
    float_agreement: float | None


@dataclass(frozen=True, kw_only=True)
class Artifact(Proof):
    """An exported folder, and how its file was checked. `fallback` runs where `file` cannot."""

    path: Path
    file: Path
    format: str
    precision: str
    weights: str
    bytes: int
    sha256: str
    fallback: Path | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field."""
        fallback = None if self.fallback is None else str(self.fallback)
        return {
            **asdict(self),
            "path": str(self.path),
            "file": str(self.file),
            "fallback": fallback,
        }

    def __str__(self) -> str:
        """A few lines for people."""
        beside = "model.json (how to feed it), golden.npz (to check a device), predict.py"
        if self.fallback is not None:
            beside += f", {self.fallback.name} (where there is no native engine)"
        answers = "maps" if self.float_agreement is None else "logits"
        return (
            f"{self.file}: {self.format}, {self.precision}{self._stored()}, "
            f"{self.bytes / 1e6:.2f} MB\n"
            f"checked with {self.runtime}: {answers} within {self.max_error:.2g} of "
            f"{self._expected()}{self._beside_float()}\n"
            f"beside it: {beside}"
        )

    def _stored(self) -> str:
        return "" if self.weights == "float32" else f" with weights stored in {self.weights}"

    def _expected(self) -> str:
        return _EXPECTED["bfloat16" if self._stored() else self.precision]

    def _beside_float(self) -> str:
        if self.precision == "float32" and not self._stored():
            return ""
        if self.float_agreement is None:
            return f"; beside float32 their cosine is {self.float_cosine:.4f}"
        return (
            f"; beside float32 their cosine is {self.float_cosine:.4f}, and "
            f"{100 * self.float_agreement:.0f} % of the golden images have the same first class"
        )


_EXPECTED = {
    "float32": "torch's",
    "float16": "torch's",
    "bfloat16": "those of the rounded weights",
    "int8": "those of the exact integer arithmetic",
}

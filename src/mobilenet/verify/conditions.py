"""Under which conditions a file was verified, and whether its contract is still its own."""

import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import read_model_json
from ..runtime import Session

# fmt: off
VERSIONED = (
    "mobilenet", "numpy", "pillow", "onnxruntime", "openvino", "ai-edge-litert", "executorch",
    "ncnn", "coremltools", "torch",
)
# fmt: on


def installed_versions() -> dict[str, str]:
    """Of what the answers depend on, where it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def broken(stated: Mapping[str, Any], session: Session, source: Path | None) -> Iterator[str]:
    """Where the folder's contract is not that of the file in it, or of the run."""
    others = []
    if session.contract is not None:
        try:
            others.append(("the file carries", json.loads(session.contract)))
        except ValueError:
            yield "the contract that the file carries is no JSON"
    if source is not None:
        others.append(("the run has", read_model_json(source)))
    for owner, contract in others:
        for part in _PARTS:
            if contract.get(part) != stated[part]:
                yield f"model.json states other {_PARTS[part]} than {owner}"


_PARTS = {
    "labels": "labels, or another order of them,",
    "preprocess": "preprocessing",
    "decoding": "decoding",
}

"""Under which conditions a file was verified, and whether its contract is still its own."""

import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoint import read_model_json
from ..errors import CheckpointError
from ..preprocess import Preprocess
from ..progress import say
from ..runtime import ArtifactFile, Session

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


def float_run(file: ArtifactFile, run: Path | None) -> Path | None:
    """The run to compare with, None where there is none to be had.

    Raises CheckpointError for a `run` with other weights than were exported, MissingDependency
    where it was asked for and torch is missing.
    """
    from importlib.util import find_spec

    stated = file.weights_sha256
    if run is not None:
        if read_model_json(run)["weights"]["sha256"] != stated:
            raise CheckpointError(f"{run}: its weights are not those that were exported")
        return Path(run)
    found = file.source_run()
    if found is None:
        say(f"{file.folder}: the run that was exported is not in its place")
        return None
    if find_spec("torch") is None or find_spec("safetensors") is None:
        say("torch is not installed: only the exported file is measured")
        return None
    return found


def golden_tolerance(file: ArtifactFile) -> float:
    """How far answers to the golden images may be from theirs. Raises CheckpointError where
    model.json does not say."""
    tolerance = file.description["golden"].get("tolerance")
    if not isinstance(tolerance, float):
        raise CheckpointError(f"{file.folder}: model.json states no golden tolerance")
    return tolerance


def input_tolerance(rules: Preprocess) -> float:
    """One grey level, as the network sees it: Pillow's versions and builds may round a pixel
    differently."""
    return 1.001 / 255 / min(rules.std)

"""The exported folder, written: the model file, what goes with it, and model.json at last."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..checkpoint import write_model_json
from ..durable import make_folder, write_atomically
from ..runtime import list_sha256
from .artifact import Artifact, ExportedFile, Proof
from .golden import FILE as GOLDEN_FILE

Usage = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, bytes]]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What goes with a model file: the bytes of its golden images, how far its answers to them may
    be from theirs, how it was checked, and programs that use it, by name."""

    golden: bytes
    tolerance: float
    proof: Proof
    samples: Mapping[str, bytes]


def sample_source(name: str) -> bytes:
    """A program of this package's samples."""
    return (files("mobilenet.export") / "samples" / name).read_bytes()


def write_folder(
    out: Path,
    run: Path,
    contract: Mapping[str, Any],
    made: ExportedFile,
    written: Written,
    fallback: ExportedFile | None,
    *,
    usage: Usage | None = None,
) -> Artifact:
    """Write the model file, what goes with it and model.json. `usage` makes further programs of the
    contract and what model.json says of the file."""
    make_folder(out)
    golden_data, tolerance, proof = written.golden, written.tolerance, written.proof
    sizes = sum(len(data) for data in made.files.values())
    sha256s = {name: hashlib.sha256(data).hexdigest() for name, data in made.files.items()}
    sha256 = list_sha256(sha256s) if made.packed else sha256s[made.file]
    for name, data in made.files.items():
        make_folder((out / name).parent)
        write_atomically(out / name, data)
    write_atomically(out / GOLDEN_FILE, golden_data)
    for name, content in made.beside.items():
        write_atomically(out / name, content)
    for name, content in written.samples.items():
        write_atomically(out / name, content)
    section = {
        "format": made.format,
        "file": made.file,
        "sha256": sha256,
        **({"files": sha256s} if made.packed else {}),
        "bytes": sizes,
        "precision": made.precision,
        "input": dict(made.input),
        "output": dict(made.output),
        **made.details,
        **({"beside": _hashes(made.beside)} if made.beside else {}),
        "golden": {
            "file": GOLDEN_FILE,
            "sha256": hashlib.sha256(golden_data).hexdigest(),
            "tolerance": tolerance,
        },
        "checked": asdict(proof),
        "source": _relative(run, out),
        "mobilenet": version("mobilenet"),
    }
    if fallback is not None:
        write_atomically(out / fallback.file, fallback.data)
        section["fallback"] = {
            "format": fallback.format,
            "file": fallback.file,
            "sha256": hashlib.sha256(fallback.data).hexdigest(),
            "precision": fallback.precision,
            "tolerance": fallback.details["tolerance"],
        }
    for name, program in ({} if usage is None else usage(contract, section)).items():
        write_atomically(out / name, program)
    # last: until it is there, the folder is no artifact or still names the earlier file's hash
    write_model_json(out, {**contract, "artifact": section})
    return Artifact(
        **asdict(proof),
        path=out,
        file=out / made.file,
        format=made.format,
        precision=made.precision,
        weights=made.details.get("weights", "float32"),
        bytes=sizes,
        sha256=sha256,
        fallback=fallback and out / fallback.file,
    )


def _hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _relative(run: Path, out: Path) -> str:
    """The run as seen from `out`, so that both can be moved together."""
    try:
        return Path(os.path.relpath(run, out)).as_posix()
    except ValueError:  # on another drive
        return Path(run).resolve().as_posix()

"""The networks that are timed, as files of every runtime, made once and kept on disk.

    python benchmarks/engine_subjects.py MODEL SIZE FOLDER --batch 1 --batch 32

writes FOLDER/b1 and FOLDER/b32. Whoever times them then needs no converter and no PyTorch.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

if TYPE_CHECKING:
    from mobilenet.benchmark.subject import Subject

PACKAGES = (
    "mobilenet", "numpy", "openvino", "nncf", "onnxruntime", "ai-edge-litert", "litert-torch",
    "ai-edge-quantizer", "onnx", "torch",
)  # fmt: skip
# of the package: what the files depend on, besides the versions
SOURCES = ("benchmark", "export", "program", "quantize", "architectures.py", "models.py")


def versions() -> dict[str, str]:
    """Of every package that is timed or makes what is timed; those that are not there left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fingerprint() -> str:
    """Changes where files made earlier may differ from those made now."""
    import mobilenet

    spec = find_spec("mobilenet")
    assert spec is not None
    assert spec.origin is not None
    digest = hashlib.sha256(json.dumps([mobilenet.__version__, versions()]).encode())
    for path in _sources(Path(spec.origin).parent):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources(package: Path) -> Iterator[Path]:
    for name in SOURCES:
        path = package / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def write(model: str, size: int, folder: Path, batches: list[int]) -> None:
    """All that can be made of a network with random weights, and why the rest could not be."""
    from mobilenet.benchmark.subject import find_subject

    subject = find_subject(model, size=size, width=None, batch=batches[0])
    for batch in batches:
        subject = subject if subject.batch == batch else subject.with_batch(batch)
        failures = _convert(subject)
        _save(subject, folder / f"b{batch}", failures)


def _convert(subject: "Subject") -> dict[str, str]:
    """Fill the subject's files: opening a configuration makes its file."""
    from mobilenet.benchmark.subject import OWN_FILES_ONLY
    from mobilenet.errors import MobilenetError
    from mobilenet.runtime import RUNTIMES, Precision

    failures: dict[str, str] = {}
    for precision in get_args(Precision):
        for runtime in (name for name in RUNTIMES if name not in OWN_FILES_ONLY):
            for name, opening in subject.configurations(runtime, precision).items():
                try:
                    opening(1)
                except MobilenetError as error:
                    failures[f"{precision} {runtime} {name}".strip()] = str(error)
    return failures


def _save(subject: "Subject", folder: Path, failures: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "arrays.npz", inputs=subject.inputs, expected=subject.expected)
    files = {name: f"{index}.bin" for index, name in enumerate(subject.files)}
    for name, file in files.items():
        (folder / file).write_bytes(subject.files[name])
    described = {
        "fingerprint": fingerprint(),
        "spec": subject.spec.to_dict(),
        "size": subject.size,
        "batch": subject.batch,
        "origin": dict(subject.origin),
        "files": files,
        "failures": failures,
    }
    # last: a folder without it is none
    (folder / "subject.json").write_text(json.dumps(described, indent=2))


def is_fresh(folder: Path) -> bool:
    """Whether what lies there is what would be made now."""
    path = folder / "subject.json"
    return path.exists() and json.loads(path.read_text())["fingerprint"] == fingerprint()


def read(folder: Path) -> tuple["Subject", dict[str, str]]:
    """A subject without its network; and, by "precision runtime configuration", what could not be
    made and why."""
    from mobilenet.benchmark.subject import Subject
    from mobilenet.models import ModelSpec

    described: dict[str, Any] = json.loads((folder / "subject.json").read_text())
    arrays = np.load(folder / "arrays.npz")
    subject = Subject(
        spec=ModelSpec.from_dict(described["spec"]),
        size=described["size"],
        batch=described["batch"],
        network=None,
        no_network="its file could not be made",
        files={name: (folder / file).read_bytes() for name, file in described["files"].items()},
        inputs=arrays["inputs"],
        expected=arrays["expected"],
        expected_of="float32",
        calibration=arrays["inputs"],
        origin=described["origin"],
    )
    return subject, described["failures"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("size", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, action="append", required=True)
    options = parser.parse_args()
    write(options.model, options.size, options.folder, options.batch)


if __name__ == "__main__":
    main()

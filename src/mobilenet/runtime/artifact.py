"""An exported folder as it lies on disk: read, and held to the hashes that it states."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from mmap import mmap
from pathlib import Path
from typing import Any

from ..checkpoint.contract import read_model_json
from ..checkpoint.strict import map_file, read_file
from ..errors import CheckpointError
from .pack import list_sha256, pack
from .sessions import Data, Precision

ENGINE_HEADER = 144  # bytes at the start of an engine file
_LIMIT = 2**31 - 1  # bytes; what a protobuf or a flatbuffer can hold


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ArtifactFile:
    """The model file of an exported folder and what `model.json` says of it.

    `contract` is the whole of `model.json`, `description` its section "artifact", `data` the
    bytes of the file, whose sha256 is the stated one; of a model of several files their `pack`, and
    the sha256 is that of what sha256sum prints of them. An engine file is mapped, and held to the
    sha256 of its header alone: that has a checksum of all the rest, which opening checks anyhow,
    and a sha256 of everything would double the time that opening takes.
    """

    folder: Path
    contract: Mapping[str, Any]
    description: Mapping[str, Any]
    data: Data

    @property
    def path(self) -> Path:
        """The model file."""
        return self.folder / self.description["file"]

    @property
    def format(self) -> str:
        """What kind of file: a key of `FORMATS`."""
        return self.description["format"]

    @property
    def precision(self) -> Precision:
        """What the file computes in."""
        return self.description.get("precision", "float32")

    @property
    def sha256(self) -> str:
        """Of the model file. Raises CheckpointError where a mapped file has another."""
        if isinstance(self.data, mmap):
            _check_hash(self.path, self.data, self.description["sha256"])
        return self.description["sha256"]

    @property
    def weights_sha256(self) -> str:
        """Of the run's weights that were exported."""
        return self.contract["weights"]["sha256"]

    def beside(self, name: str) -> bytes:
        """A further file of the folder. Raises CheckpointError where it is another than was
        exported."""
        return read_hashed(self.folder / name, self.description["beside"][name])

    def fallback(self) -> "ArtifactFile | None":
        """The file beside this one that runs where this one's runtime is not installed, if any.

        Raises CheckpointError where it is missing or not the one that was exported.
        """
        stated = self.description.get("fallback")
        if stated is None:
            return None
        own = {key: value for key, value in self.description.items() if key != "fallback"}
        if "golden" in own and "tolerance" in stated:
            own["golden"] = {**own["golden"], "tolerance": stated["tolerance"]}
        return replace(
            self,
            description={**own, "precision": "float32", **stated},
            data=read_hashed(self.folder / stated["file"], stated["sha256"]),
        )

    def source_run(self) -> Path | None:
        """The run that was exported, where it is still in its place with the same weights."""
        stated = self.description.get("source")
        if not isinstance(stated, str):
            return None
        run = self.folder / stated
        try:
            found = read_model_json(run)["weights"]["sha256"]
        except CheckpointError:
            return None
        return run if found == self.weights_sha256 else None


def is_artifact(folder: Path) -> bool:
    """Whether a folder is an exported one (a run has a `model.json` too, without "artifact")."""
    return (folder / "model.json").is_file() and "artifact" in read_model_json(folder)


def read_artifact(folder: str | Path) -> ArtifactFile:
    """Read an exported folder. Raises CheckpointError where it is none, or its file is missing or
    not the one that was exported."""
    folder = Path(folder)
    contract = read_model_json(folder)
    if "artifact" not in contract:
        raise CheckpointError(f"{folder}: a run, not an exported model: export it first")
    description = contract["artifact"]
    path = folder / description["file"]
    if description["format"] == "engine":
        data = map_file(path, limit=_LIMIT)
        _check_hash(path, data[:ENGINE_HEADER], description["header_sha256"])
    elif "files" in description:
        stated = description["files"]
        data = pack({name: read_hashed(folder / name, sha256) for name, sha256 in stated.items()})
        _check_stated(path, list_sha256(stated), description["sha256"])
    else:
        data = read_hashed(path, description["sha256"])
    for name, sha256 in description.get("beside", {}).items():
        read_hashed(folder / name, sha256)
    return ArtifactFile(folder=folder, contract=contract, description=description, data=data)


def read_hashed(path: Path, sha256: str) -> bytes:
    """The bytes of a file. Raises CheckpointError where it is missing or has another hash."""
    data = read_file(path, limit=_LIMIT)
    _check_hash(path, data, sha256)
    return data


def _check_hash(path: Path, data: Data, sha256: str) -> None:
    _check_stated(path, hashlib.sha256(data).hexdigest(), sha256)


def _check_stated(path: Path, found: str, sha256: str) -> None:
    if found != sha256:
        raise CheckpointError(
            f"{path}: its sha256 is {found[:16]}…, but model.json names {sha256[:16]}…: damaged or "
            "replaced; export again"
        )

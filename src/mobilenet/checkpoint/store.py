"""Training checkpoints: one folder each, complete once its manifest is in place.

    checkpoints/step-00000123/tensors-HASH.safetensors
                              scalars-HASH.json
                              manifest.json            the sha256 and size of both, written last

File names contain their hash, so that saving a step again never touches what an earlier manifest
of the same step names.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..durable import make_folder, remove, remove_folder, write_atomically
from ..errors import CheckpointError, UsageError
from ..progress import say
from .strict import Section, parse_json, read_file
from .tensors import decode_tensors, encode_tensors

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
FORMAT = "mobilenet-checkpoint"
VERSION = 1

_ENDINGS = {"tensors": "safetensors", "scalars": "json"}
_NAME = re.compile(r"step-([0-9]{8,18})")
_MANIFEST_LIMIT = 64 << 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """A checkpoint as it was saved, its tensors on the CPU."""

    step: int
    tensors: "dict[str, Tensor]"
    scalars: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run in `folder`, of which the newest `keep` are kept."""

    def __init__(self, folder: str | Path, *, keep: int = 2) -> None:
        if keep < 1:
            raise UsageError(f"keep {keep}: expected at least 1")
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step: int, tensors: "Mapping[str, Tensor]", scalars: Mapping[str, Any]) -> None:
        """Save; when this returns, the checkpoint outlives a kill or a power cut.

        Then older ones are removed, and those of higher steps: the run that made them was
        abandoned. Raises CheckpointError where the disk refuses or a value cannot be saved; what
        was saved before is then intact.
        """
        target = self.folder / f"step-{step:08d}"
        if not _NAME.fullmatch(target.name):
            raise UsageError(f"step {step}: expected a count of steps")
        files = {"tensors": encode_tensors(tensors), "scalars": _encode_json(scalars, target)}
        hashes = {kind: hashlib.sha256(data).hexdigest() for kind, data in files.items()}
        manifest: dict[str, Any] = {"format": FORMAT, "version": VERSION, "step": step}
        for kind, data in files.items():
            manifest[kind] = {"sha256": hashes[kind], "size": len(data)}
        try:
            make_folder(target)
            for kind, data in files.items():
                write_atomically(_file(target, kind, hashes[kind]), data)
            write_atomically(target / MANIFEST, json.dumps(manifest, indent=2).encode())
        except BaseException:
            if target.exists() and not (target / MANIFEST).exists():
                with suppress(CheckpointError):  # room for a later try
                    remove_folder(target, first=MANIFEST)
            raise
        self._prune(step, target, hashes)

    def latest(self) -> Saved | None:
        """The newest intact checkpoint, every byte checked; None where nothing was ever saved.

        Damaged ones are passed over with a message. Raises CheckpointError where all are.
        """
        problems: list[CheckpointError] = []
        for step, folder in self._folders():
            if not _complete(folder):
                continue  # its save was interrupted
            try:
                return _read(step, folder)
            except CheckpointError as error:
                say(f"checkpoint passed over: {error}")
                problems.append(error)
        if problems:
            raise CheckpointError(
                f"{self.folder}: none of {len(problems)} checkpoints is intact (the newest: "
                f"{problems[0]}); start again without --resume"
            )
        return None

    def clear(self) -> None:
        """Remove every checkpoint, for a run that starts afresh. Raises CheckpointError."""
        for _, folder in self._folders():
            remove_folder(folder, first=MANIFEST)

    def _folders(self) -> list[tuple[int, Path]]:
        """Steps and folders, newest first, whole or not; anything else is not ours."""
        try:
            found = [
                (int(match[1]), path)
                for path in self.folder.iterdir()
                if (match := _NAME.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
            ]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be read: {error.strerror}") from None
        return sorted(found, reverse=True)

    def _prune(self, step: int, target: Path, hashes: Mapping[str, str]) -> None:
        folders = self._folders()
        older = [folder for other, folder in folders if other < step and _complete(folder)]
        kept = {target, *older[: self.keep - 1]}
        for _, folder in folders:
            if folder not in kept:
                _discard(folder)
        current = {target / MANIFEST, *(_file(target, kind, hashes[kind]) for kind in hashes)}
        for path in sorted(set(target.iterdir()) - current):
            _discard(path)


def _discard(path: Path) -> None:
    """Remove what is no longer needed; where that fails, the next save tries again."""
    try:
        if path.is_dir():
            remove_folder(path, first=MANIFEST)
        else:
            remove(path)
    except CheckpointError as error:
        say(f"an old checkpoint stays: {error}")


def _complete(folder: Path) -> bool:
    manifest = folder / MANIFEST
    return manifest.exists() or manifest.is_symlink()


def _file(folder: Path, kind: str, sha256: str) -> Path:
    return folder / f"{kind}-{sha256[:16]}.{_ENDINGS[kind]}"


def _encode_json(scalars: Mapping[str, Any], target: Path) -> bytes:
    try:
        data = json.dumps(scalars, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{target}: not saved, {error}; flatten_state makes JSON of any state"
        ) from None
    parse_json(data, target)  # as `latest` will
    return data


def _read(step: int, folder: Path) -> Saved:
    file = folder / MANIFEST
    manifest = parse_json(read_file(file, limit=_MANIFEST_LIMIT), file)
    if manifest.take("format", str) != FORMAT:
        raise manifest.error("format", f"expected {FORMAT!r}")
    version = manifest.take("version", int)
    if version != VERSION:
        raise manifest.error("version", f"{version}: this version reads {VERSION}")
    if manifest.take("step", int) != step:
        raise manifest.error("step", f"not the {step} of the folder's name")
    tensors_file, tensors = _read_part(folder, manifest, "tensors")
    scalars_file, scalars = _read_part(folder, manifest, "scalars")
    return Saved(
        step=step,
        tensors=decode_tensors(tensors, tensors_file),
        scalars=parse_json(scalars, scalars_file).data,
    )


def _read_part(folder: Path, manifest: Section, kind: str) -> tuple[Path, bytes]:
    part = manifest.section(kind)
    sha256, size = part.take_sha256("sha256"), part.take("size", int)
    path = _file(folder, kind, sha256)
    data = read_file(path, limit=size)
    if len(data) != size or hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{path}: damaged, its content is not what was saved")
    return path, data

"""`load` an exported folder into a `Model`: arrays to logits, pictures to labels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CheckpointError, MissingDependency, UsageError
from ..preprocess import Preprocess, preprocess
from ..progress import say
from .artifact import ArtifactFile, read_artifact
from .sessions import FORMATS, RUNTIMES, Floats, Opener, Session, usable_cores

if TYPE_CHECKING:
    from ..preprocess import Source


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer: a class's label and its probability."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Model:
    """An exported classifier. Calling it maps float32 (N, 3, H, W) to logits (N, classes).

    Such images must have been preprocessed by the model's own contract, as `predict` does.
    """

    file: ArtifactFile
    session: Session
    preprocess: Preprocess
    labels: tuple[str, ...]

    @property
    def contract(self) -> Mapping[str, Any]:
        """All of `model.json`."""
        return self.file.contract

    def __call__(self, images: Floats) -> Floats:
        """Logits (N, classes). Raises UsageError for images of another shape or type."""
        size = self.preprocess.size
        if images.dtype != np.float32 or images.shape[1:] != (3, size, size):
            raise UsageError(
                f"images {images.dtype} {images.shape}: expected float32 (N, 3, {size}, {size})"
            )
        return self.session.run(self.session.laid_out(images))

    def predict(self, images: "Iterable[Source]", *, top: int = 5) -> list[tuple[Prediction, ...]]:
        """The `top` classes of every picture (path, encoded bytes, Pillow image, uint8 array),
        likeliest first. Raises ImageError for a picture that cannot be decoded."""
        return [
            self.ranked(self(preprocess(image, self.preprocess)[None])[0], top=top)
            for image in images
        ]

    def ranked(self, logits: Floats, *, top: int = 5) -> tuple[Prediction, ...]:
        """The `top` classes of one picture's logits (classes,), scored by softmax."""
        scores = np.exp(logits.astype(np.float64) - logits.max())
        scores /= scores.sum()
        best = np.argsort(-scores, kind="stable")[:top]
        return tuple(
            Prediction(label=self.labels[index], score=float(scores[index])) for index in best
        )


def load(folder: str | Path, *, runtime: str | None = None, threads: int | None = None) -> Model:
    """Open an exported folder for inference in its own precision; torch is not needed.

    Where the native engine was not built, an engine folder's ONNX file runs in its place.

    Raises CheckpointError for a folder that is damaged or none, UsageError for a runtime that does
    not run its format, MissingDependency where no runtime for it is installed.

    Args:
        folder: What `export` wrote.
        runtime: One of `RUNTIMES`; without it the first installed that runs the format.
        threads: CPU threads of one inference; without it all cores this process may use.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")
    file = read_artifact(folder)
    if (task := file.contract["task"]) != "classify":
        raise UsageError(f"{folder}: a network for {task}; load_scene opens it")
    try:
        contract = Preprocess.from_dict(file.contract["preprocess"])
    except UsageError as error:
        raise CheckpointError(f"{file.folder / 'model.json'}: {error}") from None
    file, session = _open(file, runtime, threads or usable_cores())
    if session.lacks is not None:
        raise CheckpointError(f"{file.path}: {session.lacks}")
    return Model(
        file=file,
        session=session,
        preprocess=contract,
        labels=tuple(file.contract["labels"]),
    )


def load_scene(
    folder: str | Path, *, runtime: str | None = None, threads: int | None = None
) -> tuple[ArtifactFile, Session]:
    """Open an exported network for scenes: its file, and a session whose `maps` gives what it
    answers. Raises as `load`."""
    return _open(read_artifact(folder), runtime, threads or usable_cores())


def _open(file: ArtifactFile, runtime: str | None, threads: int) -> tuple[ArtifactFile, Session]:
    """The file that runs here and its session: this file or, where none of its runtimes is
    installed, its fallback. The error is about the first of all."""
    missing: list[MissingDependency] = []
    for name in _choices(file, runtime):
        try:
            return file, _opener(file, name)(
                file.data, threads=threads, precision=file.precision, batch=None
            )
        except MissingDependency as error:
            missing.append(error)
        except CheckpointError as error:
            raise CheckpointError(f"{file.path}: {error}") from None
    fallback = file.fallback() if runtime is None else None
    if fallback is None:
        raise missing[0]
    say(f"{missing[0]}; {fallback.path.name} is run in its place")
    return _open(fallback, None, threads)


def _opener(file: ArtifactFile, name: str) -> Opener:
    """A runtime; where the folder has a compiled engine of its own, with that."""
    if name != "wasm":
        return RUNTIMES[name]
    from ..web import ENGINE
    from .wasm import open_wasm

    return partial(open_wasm, engine=file.beside(ENGINE))


def _choices(file: ArtifactFile, runtime: str | None) -> Sequence[str]:
    if file.format not in FORMATS:
        raise CheckpointError(f"{file.folder}: format {file.format!r}: unknown to this version")
    if runtime is None:
        return FORMATS[file.format]
    if runtime not in FORMATS[file.format]:
        raise UsageError(
            f"runtime {runtime!r}: expected one of {list(FORMATS[file.format])}, which run files "
            f"of format {file.format!r}"
        )
    return (runtime,)

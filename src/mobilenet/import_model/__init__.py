"""`import_model`, the verb `import`: a MobileNet made elsewhere as a run of this package."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..checkpoint import save_model
from ..errors import MobilenetError, UsageError, WeightsError
from ..export.golden import golden_images, golden_inputs
from ..labels import BACKGROUND, imagenet_labels
from ..models import create
from ..preprocess import Preprocess
from ..program import Floats
from ..progress import say
from ..weights.names import CLASSIFIER
from ..weights.read import require_torch
from .litert_file import is_litert, read_litert
from .onnx_file import is_onnx, read_onnx
from .source import RULES, Source
from .weights_file import read_weights_file

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Check", "Imported", "import_model"]

IMAGENET, WITH_BACKGROUND = 1000, 1001
# of the logits' spread. The same float32 network in two libraries differs by less than 1e-5 of it,
# with a wrong padding, epsilon or activation by more than 1e-2
TOLERANCE = 1e-3
_PREPROCESS = Literal["torchvision", "timm", "keras", "slim"]
_LABELS_LIMIT = 4 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class Check:
    """The original and the run on the golden images: the largest difference of a logit over the
    standard deviation of all, and the most that is accepted."""

    runtime: str
    images: int
    max_error: float
    tolerance: float


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The run that was written. `facts` were read from the file, `assumed` could not be; `check`
    is None where the original could not be run, for the reason in `unchecked`."""

    run: Path
    model: str
    width: float
    classes: int
    size: int
    kind: str
    publisher: str
    published: str | None
    weights_sha256: str
    facts: tuple[str, ...]
    assumed: tuple[str, ...]
    check: Check | None
    unchecked: str | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {**asdict(self), "run": str(self.run)}

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.run}: {self.model} {self.width:g}, {self.classes} classes, {self.size} px, "
            f"from {self.kind} ({self.publisher})",
            *(f"read      {fact}" for fact in self.facts),
            *(f"assumed   {note}" for note in self.assumed),
        ]
        if self.check is None:
            return "\n".join([*lines, f"NOT checked against the original: {self.unchecked}"])
        return "\n".join(
            [
                *lines,
                f"checked   {self.check.runtime} on {self.check.images} images: logits within "
                f"{self.check.max_error:.2g} of their spread (accepted {self.check.tolerance:g})",
            ]
        )


def import_model(
    file: Path,
    /,
    *,
    out: Path,
    labels: Path | None = None,
    preprocess: _PREPROCESS | None = None,
    size: int | None = None,
) -> Imported:
    """Make a run of a MobileNet made elsewhere, and check that it answers alike.

    Reads weights of torchvision, timm, Keras and Hugging Face (PyTorch, safetensors, .h5, .keras),
    and float ONNX and LiteRT files. The network, its width, padding, epsilon and classes are found
    in the file; what cannot be is assumed, said, and written into model.json. Where the original
    runs here (ONNX Runtime, LiteRT, torchvision, timm, Keras), its logits must be the run's.

    Raises WeightsError for a file that is damaged, foreign or answers otherwise, UsageError for
    labels that do not fit.

    Args:
        file: Model or weights made elsewhere.
        out: Run folder to write.
        labels: Text file with a class a line, in order, or a JSON list; without it those in the
            file, or ImageNet's where there are 1000 (or 1001, of which background is dropped).
        preprocess: How pictures were prepared in training, where the file does not tell or is
            wrong: as torchvision, timm, keras or slim do.
        size: Input pixels of the run; without it those of the file.
    """
    path, out = Path(file).expanduser(), Path(out)
    _check_paths(path, out)
    require_torch()
    if size is not None and size < 32:
        raise UsageError(f"size {size}: expected at least 32")
    source = _read(path)
    classes = source.spec.classes
    names = _labels(labels, source)
    check, unchecked = _check(path, source)
    contract, notes = _contract(source, preprocess, size)
    spec, state = source.spec, dict(source.state)
    if len(names) == classes - 1:
        spec, state = replace(spec, classes=classes - 1), _without_first(state)
        notes.append(f"the first of {classes} classes, {BACKGROUND}, was dropped")
    if labels is None and source.labels is None:
        notes.append(
            f"the {len(names)} classes are ImageNet's in the usual order"
            if len(names) == IMAGENET
            else "the classes have no names in the file, and are numbered: give --labels"
        )
    assumed = (*source.assumed, *notes)
    sha256 = save_model(
        out,
        spec,
        state,
        preprocess=contract.to_dict(),
        labels=names,
        provenance={
            "imported": {
                "file": path.name,
                "sha256": _sha256(path),
                "kind": source.kind,
                "publisher": source.publisher,
                "published": source.published,
                "read": list(source.facts),
                "assumed": list(assumed),
                "check": None if check is None else asdict(check),
                "unchecked": unchecked,
            },
            "versions": {"mobilenet": version("mobilenet")},
        },
    )
    return Imported(
        run=out,
        model=spec.name,
        width=spec.width,
        classes=spec.classes,
        size=contract.size,
        kind=source.kind,
        publisher=source.publisher,
        published=source.published,
        weights_sha256=sha256,
        facts=source.facts,
        assumed=assumed,
        check=check,
        unchecked=unchecked,
    )


def _check_paths(path: Path, out: Path) -> None:
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; name the model or weights file in it")
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file; --out is a folder")
    if any((out / name).exists() for name in ("model.json", "checkpoints")):
        raise UsageError(f"{out}: holds a model, which would be lost; choose another folder")


def _read(path: Path) -> Source:
    with path.open("rb") as file:
        head = file.read(16)
    if is_litert(head):
        return read_litert(path)
    if is_onnx(path, head):
        return read_onnx(path)
    return read_weights_file(path)


def _labels(file: Path | None, source: Source) -> tuple[str, ...]:
    """The names of the run's classes: one fewer than the file's where background is dropped."""
    classes = source.spec.classes
    fitting = (classes, classes - 1) if classes == WITH_BACKGROUND else (classes,)
    if file is not None:
        names = _read_labels(Path(file))
        if len(names) not in fitting:
            raise UsageError(f"{file}: {len(names)} labels, the model has {classes} classes")
        return names
    if source.labels is not None:
        names = source.labels
        return names[1:] if names == imagenet_labels(WITH_BACKGROUND) else names
    if classes in (IMAGENET, WITH_BACKGROUND):
        return imagenet_labels(IMAGENET)
    return tuple(f"class {index}" for index in range(classes))


def _read_labels(file: Path) -> tuple[str, ...]:
    try:
        if file.stat().st_size > _LABELS_LIMIT:
            raise UsageError(f"{file}: larger than any list of labels")
        text = file.read_text("utf-8-sig")
        if not text.lstrip().startswith("["):
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        names = json.loads(text)
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read as labels: {error}") from None
    if not all(isinstance(name, str) for name in names):
        raise UsageError(f"{file}: expected a list of texts")
    return tuple(names)


def _contract(
    source: Source, name: _PREPROCESS | None, size: int | None
) -> tuple[Preprocess, list[str]]:
    """The run's preprocessing, and what was assumed for it."""
    contract = source.preprocess if name is None else RULES[name](source.preprocess.size)
    notes = [] if name is None else [f"preprocessing as {name} does, as was asked for"]
    if size is None or size == contract.size:
        return contract, notes
    notes.append(f"{size} pixels, as was asked for, where the file has {contract.size}")
    resize = contract.resize and round(contract.resize * size / contract.size)
    return replace(contract, size=size, resize=resize), notes


def _check(path: Path, source: Source) -> tuple[Check | None, str | None]:
    """The run beside the original on the golden images. Raises WeightsError where they differ."""
    if source.original is None:
        say(f"{path}: not checked against the original: {source.unchecked}")
        return None, source.unchecked
    images = golden_inputs(replace(source.preprocess, **_at(source)), golden_images())
    try:
        expected = source.original.answer(images)
    except MobilenetError as error:
        say(f"{path}: not checked against the original: {error}")
        return None, str(error)
    found = _answers(source, images[: len(expected)])
    expected = expected.reshape(len(expected), -1)
    if expected.shape != found.shape:
        raise WeightsError(
            f"{path}: {source.original.name} gives answers of shape {expected.shape}, "
            f"{source.spec.name} of {found.shape}"
        )
    error = float(np.abs(found - expected).max() / expected.std())
    if not error <= TOLERANCE:  # also where it is not a number
        raise WeightsError(
            f"{path}: has the shapes of {source.spec.name} at width {source.spec.width:g}, but "
            f"{source.original.name} answers otherwise: logits differ by {error:.2g} of their "
            f"spread, more than {TOLERANCE:g}; it has other activations or connections, or another "
            f"padding than {source.spec.padding!r} or epsilon than {source.spec.bn_eps:g}"
        )
    check = Check(
        runtime=source.original.name, images=len(found), max_error=error, tolerance=TOLERANCE
    )
    return check, None


def _at(source: Source) -> Mapping[str, Any]:
    """The contract's fields at the size of the original."""
    assert source.original is not None
    size, rules = source.original.size, source.preprocess
    return {"size": size, "resize": rules.resize and round(rules.resize * size / rules.size)}


def _answers(source: Source, images: Floats) -> Floats:
    import torch

    with torch.random.fork_rng(devices=[]):
        module = create(source.spec)
    module.load_state_dict(dict(source.state))
    with torch.inference_mode():
        return module.eval()(torch.from_numpy(images)).numpy()


def _without_first(state: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The state without the classifier's first class."""
    classifier = (f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias")
    return {
        name: tensor[1:].clone() if name in classifier else tensor for name, tensor in state.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

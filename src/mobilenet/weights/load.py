"""Pretrained weights for a network: found or fetched, read, fitted, the classifier replaced."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..architectures import WidthRule
from ..errors import WeightsError
from ..labels import imagenet_labels
from ..models import MODELS, ModelSpec, Padding, create
from ..preprocess import Preprocess
from ..preprocess import keras as keras_rule
from ..preprocess import slim as slim_rule
from ..preprocess import timm as timm_rule
from ..preprocess import torchvision as torchvision_rule
from .catalogue import (
    CATALOGUE,
    INCEPTION,
    LITE,
    TIMM_HALF,
    RemoteFile,
    WeightsEntry,
    resolve_weights,
)
from .find import find_weights
from .fit import Fit, fit, recognise
from .names import CLASSIFIER
from .read import Publisher, WeightsFile, read_weights, require_torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..classify import Classifier

_CLASSIFIER = (f"{CLASSIFIER}.weight", f"{CLASSIFIER}.bias")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """Weights under this package's names, and what must go with them.

    `spec` is the one asked for with the weights' own padding, BN epsilon and width rule. `fresh`
    are the tensors that `state` lacks, which stay randomly initialised. `labels` are the classes'
    names where the classifier is the file's own and they are known. `notes` say in words what was
    assumed, dropped or shifted.
    """

    spec: ModelSpec
    state: "dict[str, Tensor]"
    fresh: tuple[str, ...]
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    entry: WeightsEntry | None
    path: Path
    sha256: str
    notes: tuple[str, ...]

    def module(self) -> "Classifier":
        """A new network with these weights, in eval mode; `fresh` tensors are drawn from torch's
        global generator."""
        module = create(self.spec)
        answer = module.load_state_dict(self.state, strict=False)
        assert not answer.unexpected_keys
        assert tuple(answer.missing_keys) == self.fresh
        return module.eval()


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a weights file holds, as far as its shapes tell; `notes` say what was assumed."""

    spec: ModelSpec
    classes: int | None
    publisher: Publisher
    kind: str
    entry: WeightsEntry | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """What the tensors do not show: how they were trained, and what their classes are called."""

    padding: Padding
    bn_eps: float
    width_rule: WidthRule
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    note: str

    def applied(self, spec: ModelSpec) -> ModelSpec:
        """A spec that follows these weights."""
        return replace(spec, padding=self.padding, bn_eps=self.bn_eps, width_rule=self.width_rule)


def load_pretrained(spec: ModelSpec, weights: str | Path, *, size: int | None = None) -> Pretrained:
    """Load weights for a network and give it its own classifier where the class counts differ.

    `weights`: "imagenet", a name of the catalogue (such as "timm/mobilenetv2_100.ra_in1k"), or the
    path of a file of any kind that is read here. `size` is the input size in pixels that the
    network will see (default: the one of the weights). Raises WeightsError, MissingDependency.
    """
    require_torch()  # before anything is fetched
    entry, path = _locate(spec, weights, size)
    file = read_weights(path)
    sha256 = _sha256(path)
    entry = entry or _published(path, sha256)
    origin = _origin(file, entry, spec, sha256, size)
    fitted = fit(file, origin.applied(spec))
    state, labels, notes = _with_classifier(file, fitted, origin.labels)
    fresh = tuple(name for name in _expected(fitted) if name not in state)
    return Pretrained(
        spec=fitted.spec,
        state=state,
        fresh=fresh,
        preprocess=origin.preprocess,
        labels=labels,
        entry=entry,
        path=path,
        sha256=sha256,
        notes=(origin.note, *notes),
    )


def inspect_weights(path: str | Path) -> Inspection:
    """Which network a weights file holds; give `.spec` to `load_pretrained`.

    Raises WeightsError where it is none of these networks.
    """
    path = Path(path)
    file = read_weights(path)
    spec = recognise(file)
    if spec is None:
        raise WeightsError(
            f"{path}: named as {file.publisher} names a MobileNet, but its shapes are of none of "
            f"{sorted(MODELS)} at any width"
        )
    sha256 = _sha256(path)
    entry = _published(path, sha256)
    origin = _origin(file, entry, spec, sha256, None)
    fitted = fit(file, origin.applied(spec))
    return Inspection(
        spec=fitted.spec,
        classes=fitted.classes,
        publisher=file.publisher,
        kind=file.kind,
        entry=entry,
        notes=(origin.note,),
    )


def _locate(
    spec: ModelSpec, weights: str | Path, size: int | None
) -> tuple[WeightsEntry | None, Path]:
    name = str(weights)
    if isinstance(weights, str) and (name == "imagenet" or name in CATALOGUE):
        entry = resolve_weights(name, spec, size=size)
        return entry, find_weights(entry)
    path = Path(weights).expanduser()
    if path.is_file():
        return None, path
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; name the file in it")
    if path.suffix in (".pth", ".pt", ".bin", ".h5", ".keras", ".safetensors"):
        raise WeightsError(f"{path}: no such file")
    resolve_weights(name, spec)  # raises, naming what there is
    raise AssertionError(name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(path: Path, sha256: str) -> WeightsEntry | None:
    """The catalogue's entry that a file is, by its checksum, else by its name.

    Raises WeightsError for a published name with other content.
    """
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    files = [(entry, known) for entry in CATALOGUE.values() for known in entry.files]
    for entry, known in files:
        if (known.sha256 and sha256.startswith(known.sha256)) or md5 == known.md5:
            return entry
    for entry, known in files:
        if not _is_called(path, known):
            continue
        if known.sha256 or known.md5:
            raise WeightsError(
                f"{path}: not the published file of that name (sha256 {sha256[:16]}...): "
                "damaged, or changed; fetch it again, or rename it if it was changed on purpose"
            )
        return entry
    return None


def _is_called(path: Path, known: RemoteFile) -> bool:
    """Whether a path has a published file's name, alone or in a copy of its hub repository."""
    if path.name == known.name:
        return True
    if known.hub is None or path.name != known.url.rpartition("/")[2]:
        return False
    folders = path.absolute().parts[:-1]
    cached = f"models--{known.hub.replace('/', '--')}"
    return cached in folders or folders[-2:] == tuple(known.hub.split("/"))


def _origin(
    file: WeightsFile, entry: WeightsEntry | None, spec: ModelSpec, sha256: str, size: int | None
) -> _Origin:
    if entry is not None:
        return _Origin(
            padding=entry.padding,
            bn_eps=entry.bn_eps,
            width_rule=entry.width_rule,
            preprocess=entry.preprocess(size),
            labels=imagenet_labels(entry.classes),
            note=f"{file.path.name} is {entry.name}",
        )
    if file.publisher == "mobilenet":
        return _own_origin(file, spec, sha256, size)
    ported = file.publisher == "timm" and file.path.name.startswith("tf_")
    from_tensorflow = ported or file.publisher in (
        "keras",
        "huggingface",
        "efficientnet_pytorch",
    )
    timm_of_tensorflow = TIMM_HALF if spec.name == "efficientnet_lite0" else INCEPTION
    rule = {
        "torchvision": torchvision_rule,
        "timm": timm_of_tensorflow if ported else timm_rule,
        "keras": keras_rule,
        "huggingface": slim_rule,
        "efficientnet_pytorch": LITE,
    }[file.publisher]
    v3_of_torchvision = file.publisher == "torchvision" and "_v3_" in spec.name
    padding: Padding = "same" if from_tensorflow else "torch"
    bn_eps = 1e-3 if from_tensorflow or v3_of_torchvision else 1e-5
    return _Origin(
        padding=padding,
        bn_eps=bn_eps,
        width_rule=spec.width_rule,
        preprocess=rule(size or 224),
        labels=None,
        note=f"{file.path.name} is not a published file: assumed, as {file.publisher} trains, "
        f"padding {padding!r}, BN epsilon {bn_eps:g} and its default preprocessing",
    )


def _own_origin(file: WeightsFile, spec: ModelSpec, sha256: str, size: int | None) -> _Origin:
    """From the `model.json` beside a file of this package; without one, from the spec."""
    described = file.path.parent / "model.json"
    if not described.is_file():
        return _Origin(
            padding=spec.padding,
            bn_eps=spec.bn_eps,
            width_rule=spec.width_rule,
            preprocess=torchvision_rule(size or 224),
            labels=None,
            note=f"no model.json beside {file.path.name}: assumed padding {spec.padding!r}, BN "
            f"epsilon {spec.bn_eps:g} and torchvision's preprocessing",
        )
    try:
        found: dict[str, Any] = json.loads(described.read_text("utf-8"))
        model, promised = found["model"], found["weights"]["sha256"]
        contract = Preprocess.from_dict(found["preprocess"])
        labels = tuple(str(label) for label in found["labels"])
        padding, bn_eps, width_rule = model["padding"], model["bn_eps"], model["width_rule"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{described}: damaged: {error!r}") from None
    if promised != sha256:
        raise WeightsError(f"{file.path}: not the weights that {described} names, or damaged")
    if size is not None and size != contract.size:
        resize = contract.resize and round(contract.resize * size / contract.size)
        contract = replace(contract, size=size, resize=resize)
    return _Origin(
        padding=padding,
        bn_eps=bn_eps,
        width_rule=width_rule,
        preprocess=contract,
        labels=labels,
        note=f"{file.path.name} is described by the model.json beside it",
    )


def _with_classifier(
    file: WeightsFile, fitted: Fit, labels: tuple[str, ...] | None
) -> tuple["dict[str, Tensor]", tuple[str, ...] | None, list[str]]:
    """The state with a classifier of the spec's classes, or without one; the labels; notes."""
    import torch

    state, wanted = fitted.state(file), fitted.spec.classes
    if labels is not None and len(labels) != fitted.classes:
        labels = None  # a published network that someone has given other classes
    for name in [name for name in state if name.endswith("norm.running_var")]:
        counter = name.replace("running_var", "num_batches_tracked")
        state[counter] = torch.zeros((), dtype=torch.int64)
    if fitted.classes is None:
        fresh = ", ".join(fitted.missing_head)
        return state, None, [f"the file has no classifier: {fresh} freshly initialised"]
    if fitted.classes == wanted:
        return state, labels, []
    if (fitted.classes, wanted) == (1001, 1000):
        for name in _CLASSIFIER:
            state[name] = state[name][1:].clone()
        return state, labels and labels[1:], ["the first of 1001 classes, background, was dropped"]
    for name in _CLASSIFIER:
        del state[name]
    return (
        state,
        None,
        [f"the file's classifier has {fitted.classes} classes, not {wanted}: freshly initialised"],
    )


def _expected(fitted: Fit) -> tuple[str, ...]:
    """Our names of what the fitted network needs besides counters, in order."""
    return (*fitted.found, *fitted.missing_head)

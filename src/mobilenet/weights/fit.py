"""Fitting a file's tensors to a network: by name and shape, all of them, or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..architectures import WidthRule
from ..errors import WeightsError
from ..models import MODELS, ModelSpec
from .names import CLASSIFIER, PUBLISHERS, layers, tensors, torchvision
from .read import WeightsFile

if TYPE_CHECKING:
    from torch import Tensor

RULES: tuple[WidthRule, ...] = ("reference", "timm", "torchvision")
# the published widths first, then every twentieth and every hundredth
_WIDTHS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.4, 1.3, 1.25, 1.5, 2.0)
WIDTHS = tuple(
    dict.fromkeys((*_WIDTHS, *(n / 20 for n in range(1, 61)), *(n / 100 for n in range(5, 301))))
)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Where each of a network's tensors is in a file, and what stands against it.

    `classes` is the file's own class count, None where it has no classifier; `missing_head` are our
    tensors behind the pool that such a file lacks.
    """

    spec: ModelSpec
    found: Mapping[str, str]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unexpected: tuple[str, ...]
    classes: int | None
    missing_head: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Every reason against this fit, in the order of the network."""
        return (*self.missing, *self.misshapen, *self.unexpected)

    def state(self, file: WeightsFile) -> dict[str, "Tensor"]:
        """The file's tensors under our names; every matrix as a 1x1 convolution."""
        return {ours: _as_conv(file.tensors[theirs]) for ours, theirs in self.found.items()}


def _as_conv(tensor: "Tensor") -> "Tensor":
    return tensor[:, :, None, None] if tensor.ndim == 2 else tensor


def compare(file: WeightsFile, spec: ModelSpec) -> Fit:
    """Match a file to a network of any class count. Never raises: see `problems`."""
    names = PUBLISHERS[file.publisher](spec, file.tensors)
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    misshapen: list[str] = []
    classes = None
    for layer in layers(spec.network()):
        modules = names.get(layer.name, ("", "" if layer.norm else None))
        for ours, theirs, shape in tensors(layer, modules):
            if theirs not in file.tensors:
                missing[ours] = repr(theirs) if layer.name in names else "a further layer"
                continue
            found[ours] = theirs
            there = tuple(_as_conv(file.tensors[theirs]).shape)
            if layer.name == CLASSIFIER:
                classes = there[0]
                shape = (classes, *shape[1:])
            if there != shape:
                misshapen.append(f"{theirs!r} has shape {there}, expected {shape}")
    used = set(found.values())
    headless = classes is None and all(name.startswith("head.") for name in missing)
    return Fit(
        spec=spec,
        found=found,
        missing=() if headless else tuple(f"{n} is missing ({o})" for o, n in missing.items()),
        misshapen=tuple(misshapen),
        unexpected=tuple(f"{n!r} is unexpected" for n in file.tensors if n not in used),
        classes=classes,
        missing_head=tuple(missing) if headless else (),
    )


def fit(file: WeightsFile, spec: ModelSpec) -> Fit:
    """Match a file to a network, under whichever width rule its publisher followed.

    Raises WeightsError naming the first tensors that do not fit, and what the file does hold.
    """
    fits = [compare(file, replace(spec, width_rule=rule)) for rule in (spec.width_rule, *RULES)]
    for candidate in fits:
        if not candidate.problems:
            return candidate
    problems = fits[0].problems
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    holds = recognise(file)
    hint = f" (the file holds {holds.name} at width {holds.width:g})" if holds else ""
    raise WeightsError(
        f"{file.path}: does not fit {spec.name} at width {spec.width:g}{hint}: "
        f"{'; '.join(problems[:3])}{more}"
    )


def recognise(file: WeightsFile) -> ModelSpec | None:
    """The network that a file's shapes belong to, None if there is none here.

    Where several widths round to the same channels, the commonest is told; the networks are equal.
    """
    stem = next((t.shape[0] for t in file.tensors.values() if t.ndim == 4 and t.shape[1] == 3), 0)
    for model in MODELS.values():
        at_full_width = compare(file, model)
        if at_full_width.missing or at_full_width.unexpected:
            continue  # which tensors there are does not depend on the width
        for width in WIDTHS:
            for rule in RULES:
                candidate = replace(model, width=width, width_rule=rule)
                if candidate.network().blocks[0].out_channels != stem:
                    continue
                fitted = compare(file, candidate)
                if not fitted.problems:
                    return replace(candidate, classes=fitted.classes or candidate.classes)
    return None


def to_torchvision(spec: ModelSpec, state: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """A state under torchvision's names and shapes, for `torchvision.models.mobilenet_*`.

    Raises WeightsError for a network that torchvision does not have.
    """
    names = torchvision(spec, state)
    if not names:
        raise WeightsError(f"torchvision has no {spec.name}")
    renamed = {}
    for layer in layers(spec.network()):
        for ours, theirs, _ in tensors(layer, names[layer.name]):
            in_head = ours.startswith("head.") and state[ours].ndim == 4
            renamed[theirs] = state[ours].flatten(1) if in_head else state[ours]
        if layer.norm:
            counter = f"{names[layer.name][1]}.num_batches_tracked"
            renamed[counter] = state[f"{layer.name}.norm.num_batches_tracked"]
    return renamed

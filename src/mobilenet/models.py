"""Which networks there are: `ModelSpec`, the `MODELS` dict, names and aliases, `create`."""

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from . import architectures
from .architectures import Architecture, Network, WidthRule, resolve
from .errors import UsageError

if TYPE_CHECKING:
    from .classify import Classifier

Padding = Literal["torch", "same"]

TABLES: dict[str, Architecture] = {
    "mobilenet_v1": architectures.V1,
    "mobilenet_v2": architectures.V2,
    "mobilenet_v3_large": architectures.V3_LARGE,
    "mobilenet_v3_small": architectures.V3_SMALL,
    "mobilenet_v3_large_minimalistic": architectures.V3_LARGE_MINIMALISTIC,
    "mobilenet_v3_small_minimalistic": architectures.V3_SMALL_MINIMALISTIC,
    "efficientnet_lite0": architectures.EFFICIENTNET_LITE0,
}


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """All that is needed to build a classifier; saved with every checkpoint.

    `padding`, `bn_eps` and the width rule must follow the weights that are loaded: a wrong one
    runs and answers wrongly. `dropout` None takes the paper's.
    """

    name: str
    width: float = 1.0
    classes: int = 1000
    output_stride: int = 32
    padding: Padding = "torch"
    width_rule: WidthRule = "reference"
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1
    dropout: float | None = None

    def __post_init__(self) -> None:
        if self.name not in TABLES:
            raise UsageError(f"model {self.name!r}: expected one of {sorted(TABLES)}")
        if self.padding not in ("torch", "same"):
            raise UsageError(f"padding {self.padding!r}: expected 'torch' or 'same'")
        try:
            self.network()
        except ValueError as error:
            raise UsageError(f"model {self.name}: {error}") from None

    def network(self) -> Network:
        """The resolved rows."""
        return resolve(
            TABLES[self.name],
            width=self.width,
            classes=self.classes,
            output_stride=self.output_stride,
            dropout=self.dropout,
            rule=self.width_rule,
        )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ModelSpec":
        """The inverse of `to_dict`. Raises UsageError on unknown or missing fields."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown or "name" not in data:
            raise UsageError(f"model description: unknown fields {unknown}, or no name")
        return cls(**data)


# V3 was trained with these norms wherever public weights exist; V1 and V2 with PyTorch's default
MODELS: dict[str, ModelSpec] = {
    "mobilenet_v1": ModelSpec(name="mobilenet_v1"),
    "mobilenet_v2": ModelSpec(name="mobilenet_v2"),
    "mobilenet_v3_large": ModelSpec(name="mobilenet_v3_large", bn_eps=1e-3, bn_momentum=0.01),
    "mobilenet_v3_small": ModelSpec(name="mobilenet_v3_small", bn_eps=1e-3, bn_momentum=0.01),
    "mobilenet_v3_large_minimalistic": ModelSpec(
        name="mobilenet_v3_large_minimalistic", bn_eps=1e-3, bn_momentum=0.01
    ),
    "mobilenet_v3_small_minimalistic": ModelSpec(
        name="mobilenet_v3_small_minimalistic", bn_eps=1e-3, bn_momentum=0.01
    ),
    "efficientnet_lite0": ModelSpec(name="efficientnet_lite0", bn_eps=1e-3, bn_momentum=0.01),
}

_ALIAS = re.compile(
    r"(?:tf_)?(?:(?P<lite>efficientnet_?lite_?0)|mobilenet_?v?(?P<version>[123]))"
    r"(?:_?(?P<size>large|small))?(?P<minimal>_?minimal(?:istic)?)?"
    r"(?:_(?P<width>\d\.\d+|\d{3}|\d))?(?:_(?P<pixels>\d{2,3}))?"
)


@dataclass(frozen=True, kw_only=True)
class ModelName:
    """A model's name as understood: its default spec, and the width and size that it named."""

    spec: ModelSpec
    width: float | None
    size: int | None


def parse_model_name(name: str) -> ModelName:
    """Understand a name or a common alias, such as `mobilenetv2_100` or `mobilenet_v2_1.0_224`.

    Raises UsageError for anything else, naming the models there are.
    """
    match = _ALIAS.fullmatch(name.strip().lower().replace("-", "_").replace("/", "_"))
    known = f"model {name!r}: expected one of {sorted(MODELS)}"
    if match is None:
        raise UsageError(known)
    full = "efficientnet_lite0" if match["lite"] else f"mobilenet_v{match['version']}"
    if match["version"] == "3":
        full += f"_{match['size'] or 'large'}" + ("_minimalistic" if match["minimal"] else "")
    elif match["size"] or match["minimal"]:
        raise UsageError(known)
    width = None
    if match["width"]:
        width = float(match["width"])
        width = width / 100 if "." not in match["width"] and len(match["width"]) == 3 else width
    size = int(match["pixels"]) if match["pixels"] else None
    spec = MODELS[full]
    return ModelName(spec=replace(spec, width=width or 1.0), width=width, size=size)


def create(spec: ModelSpec) -> "Classifier":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    from .classify import Classifier
    from .layers import LayerOptions

    options = LayerOptions(padding=spec.padding, bn_eps=spec.bn_eps, bn_momentum=spec.bn_momentum)
    return Classifier(spec.network(), options)

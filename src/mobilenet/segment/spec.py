"""`SegmenterSpec`: all that is needed to build a segmenter, without torch."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from ..architectures import Network, dilate_entries, halve_last_stage, resolve, until
from ..errors import UsageError
from ..models import MODELS, TABLES, ModelSpec

if TYPE_CHECKING:
    from .model import Segmenter

Head = Literal["lraspp", "raspp", "deeplabv3", "deeplabv3plus"]
Pool = Literal["global", "window"]
Gate = Literal["sigmoid", "hard_sigmoid"]
DilationRule = Literal["reference", "torchvision"]

HEADS: tuple[str, ...] = ("lraspp", "raspp", "deeplabv3", "deeplabv3plus")
SKIPS: dict[str, str] = {"lraspp": "c3_first", "deeplabv3plus": "c2"}  # the map beside the last


def _dilated(name: str) -> ModelSpec:
    return replace(MODELS[name], output_stride=16)


@dataclass(frozen=True, kw_only=True)
class SegmenterSpec:
    """A backbone (its `output_stride` holds; its classes and dropout do not), a head, their sizes.

    `classes` counts the background, which is 0. The heads:

    lraspp         V3 paper, Fig. 10: `filters` channels gated by a pooled map, and a skip at
                   stride 8. `pool` "window" is the paper's average over 49x49 every 16 rows and
                   20 columns, made for 1024x2048 pixels; "global" is torchvision's. `gate`: the
                   paper's and torchvision's "sigmoid", or "hard_sigmoid", which int8 has
    raspp          V2 paper, 6.3: a 1x1 and an image-pooling branch, joined by a 1x1
    deeplabv3      with three 3x3 branches at `rates` besides; with `refine` a 3x3 behind the join,
                   which torchvision has and the authors' code has not
    deeplabv3plus  the same join, at stride 4 beside 48 channels of the backbone's, refined by two
                   separable 3x3 (arXiv 1802.02611, Fig. 2)

    `auxiliary`: torchvision's second head on the stride-8 map, for training. `halved`: RF2,
    half the channels between C4 and C5. `dilation` "torchvision" also dilates the layer whose
    stride was removed, which its weights need. Raises UsageError for what cannot be built.
    """

    backbone: ModelSpec = field(default_factory=lambda: _dilated("mobilenet_v3_large"))
    head: Head = "lraspp"
    classes: int = 21
    filters: int = 128
    rates: tuple[int, ...] = (12, 24, 36)
    refine: bool = False
    pool: Pool = "global"
    gate: Gate = "sigmoid"
    auxiliary: bool = False
    halved: bool = False
    dilation: DilationRule = "reference"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UsageError(f"head {self.head!r}: expected one of {HEADS}")
        if not 2 <= self.classes <= 255:
            raise UsageError(
                f"classes {self.classes!r}: expected 2 to 255, the background among them"
            )
        if self.filters < 16 or self.filters % 16:
            raise UsageError(f"filters {self.filters!r}: expected a multiple of 16")
        if self.pool not in ("global", "window"):
            raise UsageError(f"pool {self.pool!r}: expected 'global' or 'window'")
        if self.pool == "window" and self.head != "lraspp":
            raise UsageError(f"pool 'window' belongs to head 'lraspp', not {self.head!r}")
        if self.gate not in ("sigmoid", "hard_sigmoid"):
            raise UsageError(f"gate {self.gate!r}: expected 'sigmoid' or 'hard_sigmoid'")
        if self.refine and self.head != "deeplabv3":
            raise UsageError(f"refine belongs to head 'deeplabv3', not {self.head!r}")
        if self.dilation not in ("reference", "torchvision"):
            raise UsageError(f"dilation {self.dilation!r}: expected 'reference' or 'torchvision'")
        if not 1 <= len(self.rates) <= 16 or min(self.rates) < 1:
            raise UsageError(f"rates {self.rates!r}: expected numbers from 1, at most 16")
        try:
            self.network()
        except ValueError as error:
            raise UsageError(f"model {self.backbone.name}: {error}") from None

    def network(self) -> Network:
        """The backbone's rows, up to the last map that the head reads."""
        spec = self.backbone
        table = TABLES[spec.name]
        network = resolve(
            halve_last_stage(table) if self.halved else table,
            width=spec.width,
            output_stride=spec.output_stride,
            rule=spec.width_rule,
        )
        if self.dilation == "torchvision":
            network = dilate_entries(network)
        # V2 leaves out its 1280 channels ("the second last feature map", V2 paper, 6.3)
        return until(network, "last" if network.hidden else "c5")

    @property
    def skip(self) -> str | None:
        """The tap that the head reads beside the last map."""
        return SKIPS.get(self.head)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {**asdict(self), "rates": list(self.rates)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "SegmenterSpec":
        """The inverse of `to_dict`. Raises UsageError on unknown or missing fields."""
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown or "backbone" not in data:
            raise UsageError(f"segmenter description: unknown fields {unknown}, or no backbone")
        read = {**data, "backbone": ModelSpec.from_dict(data["backbone"])}
        if "rates" in data:
            read["rates"] = tuple(data["rates"])
        return cls(**read)


def _lraspp(name: str) -> SegmenterSpec:
    return SegmenterSpec(backbone=_dilated(name), gate="hard_sigmoid")


def _deeplab(name: str, head: Head) -> SegmenterSpec:
    return SegmenterSpec(backbone=_dilated(name), head=head, filters=256, rates=(6, 12, 18))


# To train from: each has an int8 form
SEGMENTERS: dict[str, SegmenterSpec] = {
    "lraspp_mobilenet_v2": _lraspp("mobilenet_v2"),
    "lraspp_mobilenet_v3_large": _lraspp("mobilenet_v3_large"),
    "lraspp_mobilenet_v3_small": _lraspp("mobilenet_v3_small"),
    "raspp_mobilenet_v2": _deeplab("mobilenet_v2", "raspp"),
    "deeplabv3_mobilenet_v2": _deeplab("mobilenet_v2", "deeplabv3"),
    "deeplabv3_mobilenet_v3_large": _deeplab("mobilenet_v3_large", "deeplabv3"),
    "deeplabv3plus_mobilenet_v2": _deeplab("mobilenet_v2", "deeplabv3plus"),
}

# What torchvision's weights of these names need
TORCHVISION: dict[str, SegmenterSpec] = {
    "lraspp_mobilenet_v3_large": SegmenterSpec(dilation="torchvision"),
    "deeplabv3_mobilenet_v3_large": SegmenterSpec(
        head="deeplabv3",
        filters=256,
        refine=True,
        auxiliary=True,
        dropout=0.5,
        dilation="torchvision",
    ),
}


def create_segmenter(spec: SegmenterSpec) -> "Segmenter":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    from .model import Segmenter

    return Segmenter(spec)

"""`DetectorSpec`: all that is needed to build a detector, without torch."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from ..architectures import Network, reduce_tail, resolve, until
from ..errors import UsageError
from ..models import MODELS, TABLES, ModelSpec
from .anchors import Anchors, tensorflow_anchors, torchvision_anchors

if TYPE_CHECKING:
    from .model import Detector

Head = Literal["ssd", "ssdlite", "fcos"]
Loss = Literal["softmax", "sigmoid"]

HEADS: tuple[str, ...] = ("ssd", "ssdlite", "fcos")
LOSSES: tuple[str, ...] = ("softmax", "sigmoid")
STRIDES = (8, 16, 32)  # of the maps of head "fcos"
EXTRAS = (512, 256, 256, 128)
_DEEPEST = 16  # layers of a head: a file must not ask for a million


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A backbone (its classes and dropout do not hold), a head, their sizes.

    `classes` are the objects, without background; `size` is the square input that costs and
    anchors are meant for, though any size runs. `loss` "softmax" has a score for the background
    first, "sigmoid" has none. The heads:

    ssd       on C4 (expanded where it exists), the last map and `extras`, each half as large as
              the one before; predictions by 1x1 convolutions (SSD, and V1 paper, Table 13)
    ssdlite   the same, its 3x3 convolutions separable, predictions by separable 3x3 (V2 paper, 6.2)
    fcos      on C3, C4 and C5 joined top down at `filters` channels, then `depth` separable 5x5;
              one point a pixel, the distances to the four sides of its box, and a score that tells
              how well the box fits (arXiv 1904.01355; the score 2006.04388; the head as NanoDet's)

    `anchors`: of the first two heads; see `mobilenet.detect.anchors`. `reduced_tail`: half the
    channels between C4 and C5 (V3 paper, 6.3). Raises UsageError for what cannot be built.
    """

    backbone: ModelSpec = field(default_factory=lambda: MODELS["mobilenet_v2"])
    head: Head = "ssdlite"
    classes: int = 80
    size: int = 320
    loss: Loss = "softmax"
    reduced_tail: bool = False
    extras: tuple[int, ...] = EXTRAS
    anchors: Anchors | None = field(default_factory=torchvision_anchors)
    filters: int = 96
    depth: int = 2

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UsageError(f"head {self.head!r}: expected one of {HEADS}")
        if self.loss not in LOSSES:
            raise UsageError(f"loss {self.loss!r}: expected one of {LOSSES}")
        if self.classes < 1 or self.size < 32:
            raise UsageError(
                f"classes {self.classes!r}, size {self.size!r}: expected at least 1 and 32"
            )
        if self.backbone.output_stride != 32:
            raise UsageError(f"output_stride {self.backbone.output_stride}: a detector's is 32")
        if self.head == "fcos":
            self._check_fcos()
        else:
            self._check_ssd()
        try:
            self.network()
        except ValueError as error:
            raise UsageError(f"model {self.backbone.name}: {error}") from None

    def _check_fcos(self) -> None:
        if self.anchors is not None or self.loss != "sigmoid":
            raise UsageError("head 'fcos': expected anchors None and loss 'sigmoid'")
        if self.filters < 16 or self.filters % 16 or not 1 <= self.depth <= _DEEPEST:
            raise UsageError(
                f"filters {self.filters!r}, depth {self.depth!r}: expected a multiple of 16, and "
                f"1 to {_DEEPEST}"
            )

    def _check_ssd(self) -> None:
        if self.anchors is None:
            raise UsageError(f"head {self.head!r}: anchors are missing")
        if len(self.extras) > _DEEPEST:
            raise UsageError(f"extras: {len(self.extras)} maps, expected at most {_DEEPEST}")
        if len(self.anchors) != 2 + len(self.extras) or not all(self.anchors):
            raise UsageError(
                f"anchors of {len(self.anchors)} maps: expected some for each of C4, the last map "
                f"and {len(self.extras)} extras"
            )
        if any(side <= 0 for level in self.anchors for box in level for side in box):
            raise UsageError("anchors: expected widths and heights above 0")
        if any(width < 16 for width in self.extras):
            raise UsageError(f"extras {self.extras}: expected at least 16 channels each")

    def network(self) -> Network:
        """The backbone's rows, up to the last map that the head reads."""
        network = self._whole()
        return until(network, "c5" if self.head == "fcos" else "last")

    def _whole(self) -> Network:
        spec = self.backbone
        table = TABLES[spec.name]
        return resolve(
            reduce_tail(table) if self.reduced_tail else table,
            width=spec.width,
            rule=spec.width_rule,
        )

    @property
    def taps(self) -> tuple[str, ...]:
        """The maps of the backbone that the head reads, the finest first."""
        if self.head == "fcos":
            return ("c3", "c4", "c5")
        return ("c4_expanded" if "c4_expanded" in self._whole().taps() else "c4", "last")

    @property
    def scores(self) -> int:
        """Scores of a box: one a class, and the background's under softmax."""
        return self.classes + (self.loss == "softmax")

    @property
    def boxes(self) -> tuple[int, ...]:
        """Boxes that a pixel of every map predicts."""
        return (1,) * len(STRIDES) if self.anchors is None else tuple(map(len, self.anchors))

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        anchors = self.anchors and [[list(box) for box in level] for level in self.anchors]
        return {**asdict(self), "extras": list(self.extras), "anchors": anchors}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DetectorSpec":
        """The inverse of `to_dict`. Raises UsageError on unknown or missing fields."""
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown or "backbone" not in data:
            raise UsageError(f"detector description: unknown fields {unknown}, or no backbone")
        read = {**data, "backbone": ModelSpec.from_dict(data["backbone"])}
        if "extras" in data:
            read["extras"] = tuple(data["extras"])
        if data.get("anchors") is not None:
            read["anchors"] = tuple(
                tuple((width, height) for width, height in level) for level in data["anchors"]
            )
        return cls(**read)


def _fcos(name: str, filters: int, depth: int) -> DetectorSpec:
    """At most the multiply-adds of SSDLite on that backbone."""
    return DetectorSpec(
        backbone=MODELS[name],
        head="fcos",
        loss="sigmoid",
        anchors=None,
        filters=filters,
        depth=depth,
    )


def _ssdlite_v3(name: str) -> DetectorSpec:
    return DetectorSpec(backbone=MODELS[name], reduced_tail=True)


DETECTORS: dict[str, DetectorSpec] = {
    "ssd_mobilenet_v1": DetectorSpec(
        backbone=MODELS["mobilenet_v1"], head="ssd", size=300, anchors=tensorflow_anchors()
    ),
    "ssdlite_mobilenet_v1": DetectorSpec(backbone=MODELS["mobilenet_v1"]),
    "ssdlite_mobilenet_v2": DetectorSpec(),
    "ssdlite_mobilenet_v3_large": _ssdlite_v3("mobilenet_v3_large"),
    "ssdlite_mobilenet_v3_small": _ssdlite_v3("mobilenet_v3_small"),
    "fcos_mobilenet_v2": _fcos("mobilenet_v2", 160, 3),
    "fcos_mobilenet_v3_large": _fcos("mobilenet_v3_large", 128, 2),
    "fcos_mobilenet_v3_small": _fcos("mobilenet_v3_small", 96, 2),
}

# What torchvision's weights of this name need
TORCHVISION: dict[str, DetectorSpec] = {
    "ssdlite320_mobilenet_v3_large": DetectorSpec(
        backbone=replace(MODELS["mobilenet_v3_large"], bn_momentum=0.03),
        classes=90,
        reduced_tail=True,
    )
}


def create_detector(spec: DetectorSpec) -> "Detector":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    from .model import Detector

    return Detector(spec)

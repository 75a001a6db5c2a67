"""`FaceSpec`: all that is needed to build a detector of faces, without torch."""

import math
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from ..architectures import Network, resolve, until
from ..errors import UsageError
from ..models import MODELS, TABLES, ModelSpec
from .blaze import tapped

if TYPE_CHECKING:
    from .model import FaceDetector

Head = Literal["blazeface", "retinaface"]
HEADS: tuple[str, ...] = ("blazeface", "retinaface")
Sides = tuple[tuple[float, ...], ...]

# BlazeFace's landmarks, right and left as the person has them, and their mirror images
SIX_LANDMARKS: tuple[str, ...] = (
    "right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear",
)  # fmt: skip
SIX_FLIPPED: tuple[int, ...] = (1, 0, 2, 3, 5, 4)
# RetinaFace's, left and right as the picture has them, as WIDER FACE is read
FIVE_LANDMARKS: tuple[str, ...] = ("eye_left", "eye_right", "nose", "mouth_left", "mouth_right")
FIVE_FLIPPED: tuple[int, ...] = (1, 0, 2, 4, 3)

TAPS = ("c3", "c4", "c5")  # of the backbone under head "retinaface"


def blazeface_anchors(size: int = 128) -> Sides:
    """Two squares a pixel of the map of stride 8 and six of stride 16: four scales from 0.1484375
    to 0.75 of the picture, each with the one between it and the next (MediaPipe's options of its
    anchors). 896 on 128 pixels."""
    smallest, largest, count = 0.1484375, 0.75, 4
    step = (largest - smallest) / (count - 1)
    scales = [*(smallest + step * index for index in range(count)), 1.0]
    pairs = [(own * size, math.sqrt(own * after) * size) for own, after in pairwise(scales)]
    return pairs[0], (*pairs[1], *pairs[2], *pairs[3])


RETINAFACE_ANCHORS: Sides = ((16, 32), (64, 128), (256, 512))


@dataclass(frozen=True, kw_only=True)
class FaceSpec:
    """A head, what it stands on, and their sizes.

    blazeface    BlazeFace (arXiv 1907.05047): its own network, `backbone` None; maps of strides 8
                 and 16; pictures of sides that are multiples of 16
    retinaface   a backbone's C3, C4 and C5 joined top down at `filters` channels, then context by
                 stacked 3x3 (arXiv 1905.00641, 3.2; SSH, arXiv 1708.03979, Fig. 4)

    Every pixel predicts for each of its anchors a score, a box and `landmarks` points. `anchors`:
    the sides of its squares, in pixels, of every map; they do not grow with the picture. `size`:
    the square input that costs are told for. Raises UsageError for what cannot be built.
    """

    head: Head
    backbone: ModelSpec | None
    size: int
    landmarks: int
    anchors: Sides
    filters: int = 64

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UsageError(f"head {self.head!r}: expected one of {HEADS}")
        if type(self.size) is not int or self.size < 32 or self.size % 16:
            raise UsageError(f"size {self.size!r}: expected a multiple of 16 from 32")
        if type(self.landmarks) is not int or self.landmarks < 1:
            raise UsageError(f"landmarks {self.landmarks!r}: expected at least 1")
        if type(self.filters) is not int or self.filters < 64 or self.filters % 64:
            raise UsageError(f"filters {self.filters!r}: expected a multiple of 64")
        if (self.backbone is None) != (self.head == "blazeface"):
            raise UsageError(
                f"head {self.head!r}: expected "
                + ("backbone None" if self.backbone is not None else "a backbone")
            )
        if self.backbone is not None and self.backbone.output_stride != 32:
            raise UsageError(f"output_stride {self.backbone.output_stride}: a detector's is 32")
        if len(self.anchors) != len(self.strides) or not all(self.anchors):
            raise UsageError(
                f"anchors of {len(self.anchors)} maps: expected some for each of strides "
                f"{self.strides}"
            )
        if not all(side > 0 for level in self.anchors for side in level):
            raise UsageError(f"anchors {self.anchors}: expected sides above 0")

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels a cell of every map, the finest first."""
        return tuple(tapped().values()) if self.head == "blazeface" else (8, 16, 32)

    @property
    def boxes(self) -> tuple[int, ...]:
        """Boxes that a pixel of every map predicts."""
        return tuple(map(len, self.anchors))

    def network(self) -> Network:
        """The rows of a backbone, up to the last map that the head reads."""
        assert self.backbone is not None
        spec = self.backbone
        return until(resolve(TABLES[spec.name], width=spec.width, rule=spec.width_rule), TAPS[-1])

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {**asdict(self), "anchors": [list(level) for level in self.anchors]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FaceSpec":
        """The inverse of `to_dict`. Raises UsageError on unknown or missing fields."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(data) - names), sorted(names - set(data))
        if unknown or missing:
            raise UsageError(
                f"face detector description: unknown fields {unknown}, missing {missing}"
            )
        backbone = data["backbone"]
        return cls(
            **{
                **data,
                "backbone": None if backbone is None else ModelSpec.from_dict(backbone),
                "anchors": tuple(map(tuple, data["anchors"])),
            }
        )


def _retinaface(backbone: ModelSpec) -> FaceSpec:
    return FaceSpec(
        head="retinaface",
        backbone=backbone,
        size=640,
        landmarks=len(FIVE_LANDMARKS),
        anchors=RETINAFACE_ANCHORS,
    )


FACES: dict[str, FaceSpec] = {
    "blazeface": FaceSpec(
        head="blazeface",
        backbone=None,
        size=128,
        landmarks=len(SIX_LANDMARKS),
        anchors=blazeface_anchors(),
    ),
    "retinaface_mobilenet_v1_0.25": _retinaface(replace(MODELS["mobilenet_v1"], width=0.25)),
    "retinaface_mobilenet_v2": _retinaface(MODELS["mobilenet_v2"]),
}


def create_faces(spec: FaceSpec) -> "FaceDetector":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    from .model import FaceDetector

    return FaceDetector(spec)

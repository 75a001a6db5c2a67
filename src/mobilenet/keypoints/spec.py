"""`KeypointSpec`: all that is needed to build a network for poses, without torch."""

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from ..architectures import Network, resolve, until
from ..errors import UsageError
from ..models import MODELS, TABLES, ModelSpec

if TYPE_CHECKING:
    from .model import KeypointNetwork

Head = Literal["heatmap", "centre"]
HEADS: tuple[str, ...] = ("heatmap", "centre")
STRIDE = 4  # pixels a cell of every output

# COCO's person: names, their mirror images, the edges of the skeleton, and how far annotators are
# apart (pycocotools/cocoeval.py, kpt_oks_sigmas)
COCO_KEYPOINTS: tuple[str, ...] = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
COCO_FLIPPED: tuple[int, ...] = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)
COCO_SKELETON: tuple[tuple[int, int], ...] = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
    (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip
COCO_SIGMAS: tuple[float, ...] = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class KeypointSpec:
    """A backbone (its classes and dropout do not matter), a head, and their sizes.

    Both heads read a pyramid of `filters` channels at stride 4. "heatmap": one person a picture, a
    heatmap and an offset for each of `keypoints` (simple baseline, arXiv 1804.06208, with
    PoseNet's offsets). "centre": any number, found by their centres, with the way from there to
    every keypoint besides (arXiv 1904.07850; MoveNet). Raises UsageError for what cannot be built.
    """

    backbone: ModelSpec = field(default_factory=lambda: MODELS["mobilenet_v2"])
    head: Head = "heatmap"
    keypoints: int = len(COCO_KEYPOINTS)
    filters: int = 64

    def __post_init__(self) -> None:
        if self.head not in HEADS:
            raise UsageError(f"head {self.head!r}: expected one of {HEADS}")
        if self.keypoints < 1:
            raise UsageError(f"keypoints {self.keypoints!r}: expected at least 1")
        if self.filters < 16 or self.filters % 16:
            raise UsageError(f"filters {self.filters!r}: expected a multiple of 16")
        self.network()

    def network(self) -> Network:
        """The backbone's rows, up to the last map that the head reads."""
        spec = self.backbone
        network = resolve(
            TABLES[spec.name],
            width=spec.width,
            output_stride=spec.output_stride,
            rule=spec.width_rule,
        )
        return until(network, "last" if network.hidden else "c5")

    @property
    def outputs(self) -> dict[str, int]:
        """The outputs and their channels; pairs are x, y of each keypoint in turn, in cells.

        heatmaps: how likely the keypoint is in this cell ("heatmap": from 0 to 1; "centre": the
        logit). offsets: from the cell's middle to the keypoint. centres: the logit of a person's
        middle. regression: from the cell's middle to every keypoint of the person there.
        """
        keypoints = self.keypoints
        found = {"heatmaps": keypoints, "offsets": 2 * keypoints}
        if self.head == "centre":
            found |= {"centres": 1, "regression": 2 * keypoints}
        return found

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "KeypointSpec":
        """The inverse of `to_dict`. Raises UsageError on unknown or missing fields."""
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown or "backbone" not in data:
            raise UsageError(f"keypoint description: unknown fields {unknown}, or no backbone")
        return cls(**{**data, "backbone": ModelSpec.from_dict(data["backbone"])})


def _poses(head: Head, word: str) -> dict[str, KeypointSpec]:
    names = ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
    return {f"{word}_{name}": KeypointSpec(backbone=MODELS[name], head=head) for name in names}


# One person a picture, and several
POSES: dict[str, KeypointSpec] = {**_poses("heatmap", "pose"), **_poses("centre", "multipose")}


def create_keypoints(spec: KeypointSpec) -> "KeypointNetwork":
    """Build the network, randomly initialised from torch's global generator, in training mode."""
    from .model import KeypointNetwork

    return KeypointNetwork(spec)

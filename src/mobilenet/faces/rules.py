"""How a face detector's candidates become faces, as model.json says it."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import UsageError

Merge = Literal["nms", "blend"]
MERGES: tuple[str, ...] = ("nms", "blend")


@dataclass(frozen=True, kw_only=True)
class FaceRules:
    """How candidates become faces: scores above `threshold`, the `top` surest, those of one face
    (IoU above `overlap`) made one by `merge`, at most `most`.

    merge "nms" keeps the surest of them, "blend" their mean weighted by their scores, which moves
    less from picture to picture (BlazeFace paper, 3.4).

    `names` of the landmarks, none where none was learned, and the position of each in a mirrored
    picture.
    """

    threshold: float
    top: int
    overlap: float
    most: int
    merge: Merge
    names: tuple[str, ...] = ()
    flipped: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("overlap", self.overlap)):
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise UsageError(f"{name} {value!r}: expected a number from 0 to 1")
        for name, count in (("top", self.top), ("most", self.most)):
            if type(count) is not int or count < 1:
                raise UsageError(f"{name} {count!r}: expected a whole number from 1")
        if self.merge not in MERGES:
            raise UsageError(f"merge {self.merge!r}: expected one of {MERGES}")
        if any(type(name) is not str for name in self.names):
            raise UsageError(f"names {self.names!r}: expected texts")
        if self.flipped and sorted(self.flipped) != list(range(len(self.names))):
            raise UsageError(
                f"flipped {self.flipped!r}: expected every position of {len(self.names)} landmarks"
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {**asdict(self), "names": list(self.names), "flipped": list(self.flipped)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "FaceRules":
        """The inverse of `to_dict`. Raises UsageError on unknown or missing fields."""
        names = {field.name for field in fields(cls)}
        unknown, missing = sorted(set(data) - names), sorted(names - set(data))
        if unknown or missing:
            raise UsageError(f"rules of faces: unknown fields {unknown}, missing {missing}")
        several = {name: tuple(data[name]) for name in ("names", "flipped")}
        return cls(**{**data, **several})


# MediaPipe's for BlazeFace. RetinaFace's as its authors' code measures on WIDER FACE, but for the
# 5000 surest, whose overlaps would need 100 MB
RULES: dict[str, FaceRules] = {
    "blazeface": FaceRules(threshold=0.5, top=896, overlap=0.3, most=100, merge="blend"),
    "retinaface": FaceRules(threshold=0.02, top=2000, overlap=0.4, most=750, merge="nms"),
}

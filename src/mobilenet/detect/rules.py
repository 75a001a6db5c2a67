"""How a detector's candidates become detections, as model.json says it."""

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class DecodeRules:
    """How candidates become detections: scores above `threshold`, the `top` surest of each class,
    those that overlap a surer one of their class by more than `overlap` (IoU) left out, at most
    `most` in all. The defaults are torchvision's of its SSDLite."""

    threshold: float = 0.001
    top: int = 300
    overlap: float = 0.55
    most: int = 300

    def __post_init__(self) -> None:
        for name, value in (("threshold", self.threshold), ("overlap", self.overlap)):
            if type(value) not in (int, float) or not 0 <= value <= 1:
                raise UsageError(f"{name} {value!r}: expected a number from 0 to 1")
        for name, count in (("top", self.top), ("most", self.most)):
            if type(count) is not int or count < 1:
                raise UsageError(f"{name} {count!r}: expected a whole number from 1")

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DecodeRules":
        """The inverse of `to_dict`."""
        return cls(**data)

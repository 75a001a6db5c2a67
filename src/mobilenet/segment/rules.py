"""How class scores become masks, as model.json says it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """Scores are enlarged to the picture, then the highest class is taken: `decode_masks`."""

    resize: Literal["bilinear"] = "bilinear"
    choose: Literal["argmax"] = "argmax"

    def __post_init__(self) -> None:
        if (self.resize, self.choose) != ("bilinear", "argmax"):
            raise UsageError(f"resize {self.resize!r}, choose {self.choose!r}: unknown rules")

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "MaskRules":
        """The inverse of `to_dict`."""
        return cls(**data)

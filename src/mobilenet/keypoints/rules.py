"""What a network's keypoints are, and how its maps become people, as model.json says it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError

SIGMA = 0.05  # of a keypoint for which nobody has measured how far annotators are apart


@dataclass(frozen=True, kw_only=True)
class KeypointRules:
    """`names` of the keypoints, pairs of positions that a `skeleton` joins, the position of each in
    a mirrored picture, and `sigmas` of their similarity (`oks`). Of head "centre": at most `limit`
    people whose score is at least `threshold`."""

    names: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...] = ()
    flipped: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()
    limit: int = 20
    threshold: float = 0.05

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count or any(type(name) is not str for name in self.names):
            raise UsageError(f"names {self.names!r}: expected texts, at least one")
        places = [place for pair in self.skeleton for place in pair] + list(self.flipped)
        if any(type(place) is not int or not 0 <= place < count for place in places):
            raise UsageError(f"skeleton, flipped: expected positions from 0 to {count - 1}")
        if self.flipped and sorted(self.flipped) != list(range(count)):
            raise UsageError(f"flipped {self.flipped}: expected every position once")
        if len(self.sigmas) != count or min(self.sigmas) <= 0:
            raise UsageError(f"sigmas {self.sigmas}: expected {count} numbers above 0")
        if type(self.limit) is not int or self.limit < 1 or not 0 <= self.threshold <= 1:
            raise UsageError(
                f"limit {self.limit!r}, threshold {self.threshold!r}: expected at least 1, and a "
                "number from 0 to 1"
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {
            **asdict(self),
            "names": list(self.names),
            "skeleton": [list(pair) for pair in self.skeleton],
            "flipped": list(self.flipped),
            "sigmas": list(self.sigmas),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "KeypointRules":
        """The inverse of `to_dict`."""
        several = {name: tuple(data[name]) for name in ("names", "flipped", "sigmas")}
        pairs = tuple((first, second) for first, second in data["skeleton"])
        return cls(**{**data, **several, "skeleton": pairs})


def sigmas_of(names: Sequence[str]) -> tuple[float, ...]:
    """COCO's for its own keypoints by name, `SIGMA` for others."""
    from .spec import COCO_KEYPOINTS, COCO_SIGMAS

    known = dict(zip(COCO_KEYPOINTS, COCO_SIGMAS, strict=True))
    return tuple(known.get(name, SIGMA) for name in names)

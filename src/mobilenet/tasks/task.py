"""What a task on scenes is to the verbs: `SceneTask`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..networks import Rules, SceneSpec, Task
from ..program import Floats
from ..scenes import SceneData
from ..scenes.sample import Sample
from .reading import Example

if TYPE_CHECKING:
    from torch import Tensor, nn

Ints = NDArray[np.int64]
Maps = Mapping[str, Floats]
Found = Any  # a task's own: Detections, a mask uint8 (H, W), People, Faces
Size = tuple[int, int]  # width, height


@dataclass(frozen=True, kw_only=True)
class SceneScores:
    """What a task's own metric says of `n` pictures. `figures` are shares from 0 to 1, None where
    there is nothing to measure; `primary` names the one that gates are about. `per_class` has some
    of them by class."""

    primary: str
    figures: Mapping[str, float | None]
    per_class: Mapping[str, Mapping[str, float | None]]
    n: int

    @property
    def value(self) -> float:
        """The primary figure; nan where there is nothing to measure."""
        found = self.figures[self.primary]
        return math.nan if found is None else found

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the figures by name, n, and per_class."""
        per_class = {name: dict(found) for name, found in self.per_class.items()}
        return {**self.figures, "n": self.n, "per_class": per_class}

    def lines(self) -> list[str]:
        """A few lines for people: the figures, and the classes that do worst."""
        width = max(map(len, self.figures))
        lines = [f"{name:<{width}}  {_share(value)}" for name, value in self.figures.items()]
        by_class = [
            (name, value)
            for name, found in self.per_class.items()
            if (value := found.get(self.primary)) is not None
        ]
        if len(by_class) > 1:
            worst = sorted(by_class, key=lambda each: each[1])[:5]
            listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in worst)
            lines.append(f"lowest {self.primary}: {listed}")
        return lines


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:6.2f} %"


def share(value: float | None) -> float | None:
    """None for nan."""
    return None if value is None or math.isnan(value) else float(value)


class Tally(Protocol):
    """Adds up what was found in example after example."""

    def add(self, example: Example, sample: Sample, found: Found) -> None:
        """One more, in the pixels of the sample."""
        ...

    def scores(self) -> SceneScores:
        """Of all that was added."""
        ...

    def resampled(self, rows: Ints) -> float:
        """The primary figure of these examples, by place, some several times; for intervals."""
        ...


class SceneTask(Protocol):
    """What one task does differently; all verbs are the same for every task otherwise."""

    name: Task
    mask: bool  # whether samples need their masks

    def spec_for(self, named: SceneSpec, data: SceneData, size: int) -> SceneSpec:
        """The network for these classes or keypoints. Raises DataError where they do not fit."""
        ...

    def labels(self, data: SceneData) -> tuple[str, ...]:
        """The names in model.json."""
        ...

    def rules(self, spec: SceneSpec, data: SceneData) -> Rules:
        """How what the network answers becomes what is found."""
        ...

    def windowed(self, spec: SceneSpec) -> bool:
        """Whether the network looks at one object at a time, in a window around it."""
        ...

    def vary(self, sample: Sample, rng: np.random.Generator, size: int, rules: Rules) -> Sample:
        """A sample as training sees it; it is brought to the network's input afterwards."""
        ...

    def target(self, spec: SceneSpec, sample: Sample) -> Any:
        """What a sample at the network's size should be answered with, as arrays."""
        ...

    def loss(self, network: "nn.Module", images: "Tensor", targets: Sequence[Any]) -> "Tensor":
        """Of a batch (N, 3, H, W) with N targets."""
        ...

    def decode(
        self, spec: SceneSpec, rules: Rules, maps: Maps, sizes: Sequence[Size], side: int
    ) -> list[Found]:
        """What is in each of N pictures of these sizes, in their pixels; `side` of the input."""
        ...

    def agreement(self, found: Found, other: Found) -> tuple[float, float]:
        """How much two answers to one picture have in common, and out of how much."""
        ...

    def tally(self, spec: SceneSpec, rules: Rules, labels: Sequence[str]) -> Tally:
        """A new count, of nothing."""
        ...

    def to_json(self, found: Found, labels: Sequence[str], rules: Rules) -> dict[str, Any]:
        """What `predict` prints of a picture."""
        ...

    def draw(
        self, picture: Image.Image, found: Found, labels: Sequence[str], rules: Rules
    ) -> Image.Image:
        """What was found, drawn on its picture."""
        ...

    def describe(self, found: Found, labels: Sequence[str]) -> str:
        """What was found, in a line."""
        ...

"""Which calibrator each tensor's range is taken from: the one that disturbs the answers least."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..integer.scheme import Affine, Place, Wide, largest_at
from ..program import IMAGE, Floats, Program
from ..progress import track
from .calibrate import Range, affine_of, bounded_ranges
from .observe import CALIBRATORS, Statistics
from .trace import run_step

_CHUNK = 8  # pictures at once
_ALIKE = 0.02  # of a range: candidates nearer to each other than this are one


def choose_ranges(
    program: Program,
    seen: Mapping[Place, Statistics],
    images: Floats,
    *,
    wide: Wide = Wide.NOWHERE,
) -> tuple[dict[Place, Range], dict[Place, str]]:
    """A range for every tensor, and the calibrator's name: for each by itself, all others left in
    float32, the one with the least squared error of the outputs for images (N, 3, H, W);
    with ten bits where it is to be `wide`."""
    candidates = {
        name: bounded_ranges(program, {place: find(s) for place, s in seen.items()})
        for name, find in CALIBRATORS.items()
    }
    runs = [FloatRun(program, part) for part in chunks_of(images)]
    ranges: dict[Place, Range] = {}
    names: dict[Place, str] = {}
    for place in track(sorted(seen), desc="ranges", unit="tensor"):
        offered = _distinct({name: found[place] for name, found in candidates.items()})
        most = largest_at(place, wide=wide)
        errors = {
            name: sum(
                run.error(program, {place: affine_of(range_, most)}, place.step) for run in runs
            )
            for name, range_ in offered.items()
        }
        names[place] = min(errors, key=errors.__getitem__)
        ranges[place] = offered[names[place]]
    return ranges, names


def chunks_of(images: Floats) -> list[Floats]:
    """A few images at a time."""
    return np.split(images, range(_CHUNK, len(images), _CHUNK))


def _distinct(offered: Mapping[str, Range]) -> dict[str, Range]:
    kept: dict[str, Range] = {}
    for name, (low, high) in offered.items():
        near = _ALIKE * (high - low)
        if not any(abs(low - a) <= near and abs(high - b) <= near for a, b in kept.values()):
            kept[name] = (low, high)
    return kept


class FloatRun:
    """All values of a float run, from which it can be run again with one thing changed."""

    def __init__(self, program: Program, images: Floats) -> None:
        self.program = program
        self.values = [torch.from_numpy(images).contiguous(memory_format=torch.channels_last)]
        with torch.inference_mode():
            for step in program.steps:
                inputs = [self.values[source] for source in step.sources]
                self.values.append(run_step(step, inputs, lambda _, y: y))

    def error(self, program: Program, ranges: Mapping[Place, Affine], start: int) -> float:
        """The squared error of the outputs where `program`, which differs from step `start` on at
        most (-1: the image), is run with the tensors at some places rounded to `ranges`."""
        changed: dict[int, Tensor] = {}
        with torch.inference_mode():
            if start < 0:
                changed[IMAGE] = rounded(self.values[IMAGE], ranges[Place.of(IMAGE)])
            for index, step in enumerate(program.steps[max(start, 0) :], max(start, 0)):
                if index != start and not any(source in changed for source in step.sources):
                    continue

                def inside(name: str, x: Tensor, index: int = index) -> Tensor:
                    affine = ranges.get(Place(index, name))
                    return x if affine is None else rounded(x, affine)

                inputs = [changed.get(source, self.values[source]) for source in step.sources]
                changed[index + 1] = inside("out", run_step(step, inputs, inside))
                for source in [s for s in changed if not self._read_behind(s, index)]:
                    del changed[source]
        return sum(
            float(((changed[out] - self.values[out]) ** 2).double().sum())
            for _, out in self.program.outputs
            if out in changed
        )

    def _read_behind(self, value: int, index: int) -> bool:
        named: Sequence[int] = [out for _, out in self.program.outputs]
        return value in named or any(
            value in later.sources for later in self.program.steps[index + 1 :]
        )


def rounded(x: Tensor, affine: Affine) -> Tensor:
    """Real numbers as a tensor of that range would have them."""
    steps = torch.round(x / affine.scale).clamp(-affine.zero, affine.largest - affine.zero)
    return steps * affine.scale

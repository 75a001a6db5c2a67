"""Which tensor and which filter of an int8 network costs how much of the answers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from ..integer import QuantisedProgram, stages
from ..program import Floats, Program
from .choose import FloatRun, chunks_of
from .ladder import decibels
from .result import Harm


def harms(program: Program, quantised: QuantisedProgram, images: Floats) -> Iterator[Harm]:
    """Every tensor's and every filter's, by itself: the outputs for images (N, 3, H, W) beside the
    float ones where this alone is rounded as `quantised` rounds it. `program` is what that was
    made of."""
    runs = [FloatRun(program, part) for part in chunks_of(images)]
    signal = sum(
        float((run.values[out] ** 2).double().sum()) for run in runs for _, out in program.outputs
    )

    def harm(kind: Literal["tensor", "weights"], step: int, name: str, error: float) -> Harm:
        where = "image" if step < 0 else f"{step} {name}"
        return Harm(kind=kind, where=where, snr_db=round(decibels(signal, error), 2))

    for place, affine in sorted(quantised.ranges.items()):
        error = sum(run.error(program, {place: affine}, place.step) for run in runs)
        yield harm("tensor", place.step, place.name, error)
    for index, step in enumerate(program.steps):
        for stage in stages(program, index):
            filter = quantised.filters[index][stage.name].real(quantised.ranges[stage.source].scale)
            steps = list(program.steps)
            steps[index] = replace(step, **{stage.name: filter})
            changed = replace(program, steps=tuple(steps))
            error = sum(run.error(changed, {}, index) for run in runs)
            yield harm("weights", index, stage.name, error)

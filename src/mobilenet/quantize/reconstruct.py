"""AdaRound (Nagel et al. 2020, arXiv 2004.10568) over whole blocks (BRECQ, Li et al. 2021, arXiv
2102.05426): weights go up or down so that each block answers as in float32 to what it is given.

A weight w / scale becomes floor + h, where h = clip(1.2 sigmoid(v) - 0.1, 0, 1) is learned and
driven to 0 or 1. Biases are learned beside it. No labels are needed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..integer.scheme import (
    LARGEST,
    Doubles,
    IntegerFilter,
    Place,
    QuantisedProgram,
    stages,
)
from ..integer.simulate import SimulatedFilter, Simulation, round_through
from ..program import Floats, Step
from ..progress import track
from .walk import in_chunks, simulated, walk

Report = Callable[[int, float], None]  # a step, and its error as a part of what it was

_STRETCH, _SHIFT = 1.2, 0.1  # of h, which so reaches 0 and 1 (equation 23)
_STEEPEST, _FLATTEST = 20.0, 2.0  # of the term that drives h to 0 or 1 (equation 24)
_DRIVE = 0.01  # its weight beside an error that starts at 1
_FREE = 0.2  # the first part of the iterations goes without it
_ELEMENTS = 2**22  # of the largest tensor in an iteration, which sets how many pictures it takes
_MOST = 32  # pictures in an iteration


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """How long each block is worked on, and how fast: `rate` is Adam's for v, and for biases in
    steps of the tensor behind them; a part `held_out` of the pictures decides if it has helped."""

    iterations: int = 300
    rate: float = 0.03
    held_out: float = 0.125
    seed: int = 0


def reconstruct(
    quantised: QuantisedProgram,
    images: Floats,
    options: Reconstruction,
    *,
    report: Report = lambda step, left: None,
) -> QuantisedProgram:
    """The same network with rounding and biases that make every block's output nearer to that of
    `quantised.program`, given images (N, 3, H, W); blocks that it does not help stay as they are.
    """
    filters = [dict(step) for step in quantised.filters]
    torch.manual_seed(options.seed)
    held = max(1, round(len(images) * options.held_out))
    steps = len(quantised.program.steps)
    for visit in track(walk(quantised, images), total=steps, desc="rounding", unit="block"):
        block = _Block(visit.simulation, visit.index, filters[visit.index])
        left = block.learn(visit.inputs, visit.target, held, options)
        filters[visit.index] = dict(block.filters)
        report(visit.index, left)
    return replace(quantised, filters=tuple(filters))


class _Block:
    """One step's filters while they are learned; `simulation.filters` follows them."""

    def __init__(
        self, simulation: Simulation, index: int, filters: dict[str, IntegerFilter]
    ) -> None:
        self.simulation = simulation
        self.learning = replace(simulation, exact=False)  # with the same filters
        self.index = index
        self.step = simulation.program.steps[index]
        self.filters = filters
        self.out = Place.of(index + 1)

    def learn(
        self, inputs: list[Tensor], target: Tensor, held: int, options: Reconstruction
    ) -> float:
        """Learn on all pictures but the first `held`; the error on those, as a part of what it
        was."""
        before = self.error(inputs, target, held)
        if before == 0:
            return 1.0
        soft = self.softened(target)
        parameters = [part for filter in soft.values() for part in (filter.v, filter.shift)]
        optimiser = torch.optim.Adam(parameters, lr=options.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.iterations)
        first = self.error([x[held:] for x in inputs], target[held:], 4 * held)
        count = self.pictures(inputs)
        for iteration in range(options.iterations):
            chosen = held + torch.randint(len(target) - held, (count,))
            for name, filter in soft.items():
                self.put(name, filter.filter())
            found = self.real([x[chosen] for x in inputs], self.learning)
            loss = ((found - target[chosen]) ** 2).mean() / first
            done = iteration / options.iterations
            if done >= _FREE:
                power = _FLATTEST + (_STEEPEST - _FLATTEST) * (1 - (done - _FREE) / (1 - _FREE))
                loss = loss + _DRIVE * sum(filter.undecided(power) for filter in soft.values())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        learned = {name: filter.hardened() for name, filter in soft.items()}
        for name, filter in learned.items():
            self.put(name, simulated(filter))
        after = self.error(inputs, target, held)
        if after >= before:
            for name, filter in self.filters.items():
                self.put(name, simulated(filter))
            return 1.0
        self.filters = learned
        return after / before

    def softened(self, target: Tensor) -> dict[str, "_Soft"]:
        ranges, found = self.simulation.ranges, {}
        for stage in stages(self.simulation.program, self.index):
            step = float(target.max() - target.min()) / LARGEST  # where there is no range
            if stage.target is not None:
                step = ranges[stage.target].scale
            filter = self.filters[stage.name]
            units = step / (ranges[stage.source].scale * filter.scale)
            found[stage.name] = _Soft(self.step, stage.name, filter, units)
        return found

    def put(self, name: str, filter: SimulatedFilter) -> None:
        self.simulation.filters[self.index, name] = filter

    def real(self, inputs: list[Tensor], simulation: Simulation) -> Tensor:
        """The output in real numbers."""
        ranges = simulation.ranges
        found = simulation.run_step(self.index, inputs)
        return found * ranges[self.out].scale if self.out in ranges else found

    def error(self, inputs: list[Tensor], target: Tensor, count: int) -> float:
        """The mean squared error of the output for the first `count` pictures."""
        with torch.no_grad():
            part = [x[:count] for x in inputs]
            found = in_chunks(lambda *x: self.real(list(x), self.simulation), part)
            return float(((found - target[:count]) ** 2).mean())

    def pictures(self, inputs: list[Tensor]) -> int:
        width = max(filter.outputs for filter in self.step.filters.values())
        elements = inputs[0].shape[2] * inputs[0].shape[3] * width
        return min(max(_ELEMENTS // elements, 2), _MOST)


class _Soft:
    """A filter whose rounding is being learned; `shift` is that of the bias, in steps of the
    tensor behind it, each as many `units` of the bias."""

    def __init__(self, step: Step, name: str, filter: IntegerFilter, units: Doubles) -> None:
        exact = step.filters[name].weight / filter.scale[:, None, None, None]
        self.floor = torch.from_numpy(np.floor(exact).astype(np.float32))
        part = torch.from_numpy((exact - np.floor(exact)).astype(np.float32))
        # nearest would have rounded so: h starts at the part that is rounded away
        start = ((part + _SHIFT) / _STRETCH).clamp(1e-4, 1 - 1e-4)
        self.v = torch.logit(start).requires_grad_()
        self.scale, self.most, self.dtype = filter.scale, filter.largest, filter.weight.dtype
        self.bias = torch.from_numpy(filter.bias.astype(np.float64))
        self.units = torch.from_numpy(units)
        self.shift = torch.zeros(len(self.bias), requires_grad=True)

    def height(self) -> Tensor:
        return (_STRETCH * torch.sigmoid(self.v) - _SHIFT).clamp(0, 1)

    def filter(self) -> SimulatedFilter:
        weight = (self.floor + self.height()).clamp(-self.most, self.most)
        return SimulatedFilter(weight=weight, bias=round_through(self.moved()))

    def moved(self) -> Tensor:
        return self.bias + self.shift * self.units

    def undecided(self, power: float) -> Tensor:
        """From 0, where every h is 0 or 1, to 1."""
        return (1 - (2 * self.height() - 1).abs() ** power).mean()

    def hardened(self) -> IntegerFilter:
        with torch.no_grad():
            weight = self.floor + (self.height() >= 0.5)
            bias = torch.round(self.moved())
        return IntegerFilter(
            weight=weight.clamp(-self.most, self.most).numpy().astype(self.dtype),
            scale=self.scale,
            bias=bias.numpy().astype(np.int32),
        )

"""Quantisation-aware training without labels: the int8 network learns to answer as the float one.

Batch norms are folded with the statistics that the float network was trained to, and stay so: a
short training has no better ones to offer (Krishnamoorthi 2018, arXiv 1806.08342, 3.2, freezes them
for its last steps). Weights and biases are learned through the int8 arithmetic, scales and ranges
are kept. Of the last weights and their moving average those are kept whose answers to
pictures held out are nearer to the float network's; what does not help is dropped.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..integer.scheme import IntegerFilter, QuantisedProgram, result_scale, stages
from ..integer.simulate import SimulatedFilter, Simulation, round_through
from ..program import LOGITS, Floats
from .trace import run_float

Advance = Callable[[float, float], None]  # the part that is done, the loss
Key = tuple[int, str]

_CHUNK = 8
_SHIFT = 8  # pixels of 224 by which a picture is moved at most
_LEAST = 1e-12  # variance of an answer that is the same everywhere
_WARM = 0.05  # the first part of the time, in which the rate rises


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """`seconds` of training by Adam at a peak `rate`, in steps of weights, and of the tensors
    behind them for biases; `batch` pictures in an iteration; a part `held_out` of the pictures
    decides what is kept; `decay` is that of the moving average."""

    seconds: float = 300.0
    rate: float = 0.001
    batch: int = 8
    held_out: float = 0.125
    decay: float = 0.98
    seed: int = 0


def distil(
    quantised: QuantisedProgram,
    images: Floats,
    options: Distillation,
    *,
    advance: Advance = lambda done, loss: None,
) -> QuantisedProgram:
    """The same network with weights learned on images (N, 3, H, W), mirrored and moved a little at
    random, from the answers of `quantised.program` in float32."""
    torch.manual_seed(options.seed)
    held = max(1, round(len(images) * options.held_out))
    student = _Student(quantised)
    best, least = quantised, _error(quantised, images[:held])
    optimiser = torch.optim.Adam(student.parameters(), lr=options.rate)
    average = {key: parameter.detach().clone() for key, parameter in student.named()}
    start = time.perf_counter()
    while (done := (time.perf_counter() - start) / options.seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = options.rate * min(1.0, done / _WARM) * (1 + np.cos(np.pi * done)) / 2
        chosen = held + torch.randint(len(images) - held, (options.batch,)).numpy()
        batch = _moved(torch.from_numpy(images[chosen]))
        loss = _difference(student(batch), _wanted(quantised, batch.numpy()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for key, parameter in student.named():
            average[key].lerp_(parameter.detach(), 1 - options.decay)
        advance(done, float(loss.detach()))
    for candidate in (student.hardened(), student.hardened(average)):
        error = _error(candidate, images[:held])
        if error < least:
            best, least = candidate, error
    return best


class _Student:
    """A simulation whose weights (in steps of their scale) and biases (moved by `shifts`, in steps
    of the tensor behind them) are learned."""

    def __init__(self, quantised: QuantisedProgram) -> None:
        self.quantised = quantised
        self.simulation = Simulation.of(quantised)
        self.bias: dict[Key, Tensor] = {}
        self.units: dict[Key, Tensor] = {}
        self.weights: dict[Key, Tensor] = {}
        self.shifts: dict[Key, Tensor] = {}
        for index in range(len(quantised.program.steps)):
            for stage in stages(quantised.program, index):
                key, filter = (index, stage.name), quantised.filters[index][stage.name]
                unit = result_scale(quantised.ranges, stage)
                if stage.target is not None:
                    unit = quantised.ranges[stage.target].scale
                elif stage.activation == "none":
                    unit = 1 / 16  # of logits
                per_step = unit / (quantised.ranges[stage.source].scale * filter.scale)
                self.units[key] = torch.from_numpy(per_step)
                self.bias[key] = torch.from_numpy(filter.bias.astype(np.float64))
                self.weights[key] = self._latent(index, stage.name, filter).requires_grad_()
                self.shifts[key] = torch.zeros(len(filter.bias), requires_grad=True)

    def _latent(self, index: int, name: str, filter: IntegerFilter) -> Tensor:
        """The real weights where they round to the whole ones; else the whole ones."""
        exact = self.quantised.program.steps[index].filters[name].weight
        exact = exact / filter.scale[:, None, None, None]
        near = np.clip(exact, filter.weight - 0.49, filter.weight + 0.49)
        return torch.from_numpy(near.astype(np.float32))

    def parameters(self) -> list[Tensor]:
        return [*self.weights.values(), *self.shifts.values()]

    def named(self) -> list[tuple[tuple[str, Key], Tensor]]:
        return [
            *((("weight", key), value) for key, value in self.weights.items()),
            *((("shift", key), value) for key, value in self.shifts.items()),
        ]

    def filter(self, weight: Tensor, shift: Tensor, key: Key) -> SimulatedFilter:
        bias = round_through(self.bias[key] + shift * self.units[key])
        index, name = key
        most = self.quantised.filters[index][name].largest
        limited = weight.clamp(-most, most)
        return SimulatedFilter(weight=round_through(limited), bias=bias)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        filters = {
            key: self.filter(self.weights[key], self.shifts[key], key) for key in self.weights
        }
        x = images.contiguous(memory_format=torch.channels_last)
        return replace(self.simulation, filters=filters, exact=False)(x)

    def hardened(self, values: "dict[tuple[str, Key], Tensor] | None" = None) -> QuantisedProgram:
        """The network with the weights as they are, or with these."""
        values = dict(self.named()) if values is None else values
        filters = [dict(step) for step in self.quantised.filters]
        with torch.no_grad():
            for key in self.weights:
                found = self.filter(values["weight", key], values["shift", key], key)
                index, name = key
                filters[index][name] = replace(
                    filters[index][name],
                    weight=found.weight.numpy().astype(filters[index][name].weight.dtype),
                    bias=found.bias.numpy().astype(np.int32),
                )
        return replace(self.quantised, filters=tuple(filters))


def _wanted(quantised: QuantisedProgram, images: Floats) -> Mapping[str, Tensor]:
    answers = run_float(quantised.program, images)
    return {name: torch.from_numpy(value) for name, value in answers.items()}


def _difference(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """How far answers (N, C, H, W) are from what they should be: the squared error of each as a
    part of its variance, and of logits the divergence of the probabilities besides."""
    total = torch.zeros(())
    for name, value in wanted.items():
        total = total + ((found[name] - value) ** 2).mean() / value.var().clamp(min=_LEAST)
        if name == LOGITS:
            ends = (found[name].flatten(1).log_softmax(1), value.flatten(1).log_softmax(1))
            total = total + F.kl_div(*ends, reduction="batchmean", log_target=True)
    return total


def _error(quantised: QuantisedProgram, images: Floats) -> float:
    simulation, total = Simulation.of(quantised), 0.0
    with torch.inference_mode():
        for part in np.split(images, range(_CHUNK, len(images), _CHUNK)):
            x = torch.from_numpy(part).contiguous(memory_format=torch.channels_last)
            total += float(_difference(simulation(x), _wanted(quantised, part))) * len(part)
    return total / len(images)


def _moved(images: Tensor) -> Tensor:
    """Each picture mirrored or not, and the batch moved by some pixels, its border repeated."""
    mirrored = torch.rand(len(images)) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    most = max(1, images.shape[3] * _SHIFT // 224)
    down, right = torch.randint(2 * most + 1, (2,)).tolist()
    padded = F.pad(images, (most,) * 4, mode="replicate")
    height, width = images.shape[2:]
    return padded[:, :, down : down + height, right : right + width].contiguous()

"""Optimizers, the learning rate over a phase, and the moving average of the weights."""

import math
from typing import Any

import torch
from torch import nn

from ..recipes import Optimizer, Schedule


def build_optimizer(module: nn.Module, options: Optimizer, *, batch: int) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters, its rate scaled to `batch` images a step.

    Norms and biases (one axis) never decay; depthwise kernels only where the recipe says so.
    """
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for part in module.modules():
        for parameter in part.parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            depthwise = isinstance(part, nn.Conv2d) and part.groups > 1
            spare = parameter.ndim <= 1 or (depthwise and not options.decay_depthwise)
            (spared if spare else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": options.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    lr = options.lr * batch / 256
    if options.name == "adamw":
        return torch.optim.AdamW(groups, lr=lr, betas=options.betas, eps=options.eps, fused=True)
    if options.name == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=lr, alpha=options.smoothing, eps=options.eps, momentum=options.momentum
        )
    return torch.optim.SGD(groups, lr=lr, momentum=options.momentum, nesterov=options.momentum > 0)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a saved state, every tensor in the memory layout of its parameter.

    Fused steps walk both in memory order, and a checkpoint does not keep channels-last.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def lr_factor(schedule: Schedule, *, progress: float, epochs: float, epochs_done: float) -> float:
    """What the peak rate is multiplied by. `progress` 0 to 1 of a phase that lasts `epochs`."""
    warmup = schedule.warmup_share
    if epochs > 0:
        warmup = min(warmup, schedule.warmup_epochs / epochs)
    if progress < warmup:
        return max(progress / warmup, 1e-3)  # the first step learns too
    if schedule.kind == "steps":
        return schedule.gamma ** math.floor(epochs_done / schedule.step_epochs)
    along = min((progress - warmup) / (1 - warmup), 1.0)
    return schedule.final + (1 - schedule.final) * 0.5 * (1 + math.cos(math.pi * along))


class WeightAverage:
    """An exponential moving average of a module's state, norms' statistics included.

    The decay grows from 0.1 as (1 + t) / (10 + t), so that short trainings are not held back by
    their first weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.state = {name: value.clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's state; `step` counts from 0 within the phase."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - keep)
            else:
                self.state[name].copy_(value)

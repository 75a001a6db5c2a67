"""What networks of a backbone and another head than a classifier's share: a training loop, and the
counting of what they cost."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from .errors import TrainingError, UsageError

Batch = TypeVar("Batch")
Schedule = Literal["cosine", "poly"]
Report = Callable[[int, float], None]  # step, loss


@dataclass(frozen=True, kw_only=True)
class HeadTraining:
    """How to train: AdamW, its rate warmed up over `warmup` of the steps, then "cosine" to zero or
    "poly", (1 - t)^0.9. The backbone learns at `backbone_rate` times `lr`; at 0 it is frozen, its
    norms' statistics too. `average`: the most that the moving average of the weights keeps a step.
    """

    steps: int
    lr: float = 1e-3
    backbone_rate: float = 0.1
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    weight_decay: float = 1e-4
    average: float = 0.999
    clip: float = 10.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0 or not self.backbone_rate >= 0:
            raise UsageError(
                f"steps {self.steps}, lr {self.lr}, backbone_rate {self.backbone_rate}: expected "
                "at least 1 step, a rate above 0 and one from 0"
            )
        if self.schedule not in ("cosine", "poly"):
            raise UsageError(f"schedule {self.schedule!r}: expected 'cosine' or 'poly'")

    def factor(self, step: int) -> float:
        """What the peak rates are multiplied by."""
        warm = self.warmup * self.steps
        if step < warm:
            return (step + 1) / (warm + 1)
        return falling(self.schedule, (step - warm) / max(self.steps - warm, 1))


def falling(schedule: Schedule, along: float) -> float:
    """What a peak rate is multiplied by behind the warm-up, from 0 to 1 `along` what is left."""
    if schedule == "poly":
        return (1 - along) ** 0.9
    return 0.5 * (1 + math.cos(math.pi * along))


def train_heads(
    network: nn.Module,
    batches: Iterable[Batch],
    loss_of: Callable[[Batch], Tensor],
    options: HeadTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train in place a network whose child "backbone" is one, on an endless iterable of batches or
    one of at least `steps`; the averaged state dict.

    Raises TrainingError where the batches end early or the loss is no longer a number.
    """
    optimizer = head_optimizer(
        network,
        lr=options.lr,
        backbone_rate=options.backbone_rate,
        weight_decay=options.weight_decay,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = [p for p in network.parameters() if p.requires_grad]
    done = 0
    for step, batch in enumerate(islice(batches, options.steps)):
        network.train()
        if options.backbone_rate == 0:
            network.get_submodule("backbone").eval()
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * options.factor(step)
        loss = loss_of(batch)
        if not math.isfinite(found := loss.item()):
            raise TrainingError(f"step {step}: the loss is {found}; lower lr ({options.lr})")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, options.clip)
        optimizer.step()
        update_average(average, network, min(options.average, (1 + step) / (10 + step)))
        if report is not None:
            report(step, found)
        done = step + 1
    if done < options.steps:
        raise TrainingError(f"the batches ended after {done} of {options.steps} steps")
    return average


def head_optimizer(
    network: nn.Module, *, lr: float, backbone_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over a network whose child "backbone" learns at `backbone_rate` times `lr`, and not at
    all where that is 0. Norms and biases (one axis) never decay."""
    groups = []
    for name, part in network.named_children():
        rate = lr * (backbone_rate if name == "backbone" else 1.0)
        part.requires_grad_(rate > 0)
        for decay, wanted in ((weight_decay, True), (0.0, False)):
            chosen = [p for p in part.parameters() if (p.ndim > 1) is wanted]
            if rate > 0 and chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=lr)


@torch.no_grad()
def update_average(average: dict[str, Tensor], network: nn.Module, keep: float) -> None:
    """Move an average of a network's state, in place, towards it: `keep` of the old stays."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)


@dataclass(frozen=True, kw_only=True)
class HeadCost:
    """As `mobilenet.cost` counts: multiply-adds of convolutions only, of one picture; parameters
    with the norms' scale and shift. What is only for training has parameters but is not run."""

    params: int
    madds: int


def count_network(create: Callable[[], nn.Module], height: int, width: int) -> HeadCost:
    """Count a network for pictures of height x width pixels, by running it without data."""
    madds = 0

    def counted(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal madds
        assert isinstance(layer, nn.Conv2d)
        madds += layer.weight.numel() * output.shape[2] * output.shape[3]

    with torch.device("meta"):
        network = create().eval()
        for part in network.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(counted)
        with torch.no_grad():
            network(torch.empty(1, 3, height, width))
    params = sum(parameter.numel() for parameter in network.parameters())
    return HeadCost(params=params, madds=madds)

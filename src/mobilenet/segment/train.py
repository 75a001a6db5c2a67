"""A segmenter's training loop: steps over batches of pictures and masks."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import TrainingError, UsageError
from .loss import AUXILIARY, segment_loss
from .model import Segmenter

Report = Callable[[int, float], None]


@dataclass(frozen=True, kw_only=True)
class SegmentTraining:
    """How to train: AdamW, its rate warmed up over `warmup` of the steps, then "cosine" to zero or
    "poly", (1 - t)^0.9. The backbone learns at `backbone_rate` times `lr`; at 0 it is frozen, its
    norms' statistics too. `average`: the most that the moving average of the weights keeps a step.
    `class_weights`: one a class, the background first.
    """

    steps: int
    lr: float = 1e-3
    backbone_rate: float = 0.1
    schedule: Literal["cosine", "poly"] = "cosine"
    warmup: float = 0.05
    weight_decay: float = 1e-4
    average: float = 0.999
    auxiliary: float = AUXILIARY
    class_weights: tuple[float, ...] | None = None
    clip: float = 10.0

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0 or not self.backbone_rate >= 0:
            raise UsageError(
                f"steps {self.steps}, lr {self.lr}, backbone_rate {self.backbone_rate}: expected "
                "at least 1 step, a rate above 0 and one from 0"
            )
        if self.schedule not in ("cosine", "poly"):
            raise UsageError(f"schedule {self.schedule!r}: expected 'cosine' or 'poly'")


def train_segmenter(
    segmenter: Segmenter,
    batches: Iterable[tuple[Tensor, Tensor]],
    options: SegmentTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train in place on (images (N, 3, H, W), masks (N, H, W) with 255 void), an endless iterable
    or one of at least `steps`; the averaged state dict. `report` is told (step, loss).

    Raises TrainingError where the batches end early or the loss is no longer a number.
    """
    weights = (
        None
        if options.class_weights is None
        else torch.tensor(options.class_weights, dtype=torch.float32)
    )
    if weights is not None and len(weights) != segmenter.spec.classes:
        raise UsageError(
            f"class weights: {len(weights)} for {segmenter.spec.classes} classes, the "
            "background among them"
        )
    optimizer = _optimizer(segmenter, options)
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = {name: value.clone() for name, value in segmenter.state_dict().items()}
    parameters = [p for p in segmenter.parameters() if p.requires_grad]
    done = 0
    for step, (images, masks) in enumerate(islice(batches, options.steps)):
        segmenter.train()
        if options.backbone_rate == 0:
            segmenter.backbone.eval()
        factor = _factor(options, step)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        loss = segment_loss(
            segmenter.scores(images), masks, weights=weights, auxiliary=options.auxiliary
        )
        if not math.isfinite(found := loss.item()):
            raise TrainingError(f"step {step}: the loss is {found}; lower lr ({options.lr})")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, options.clip)
        optimizer.step()
        _update(average, segmenter, min(options.average, (1 + step) / (10 + step)))
        if report is not None:
            report(step, found)
        done = step + 1
    if done < options.steps:
        raise TrainingError(f"the batches ended after {done} of {options.steps} steps")
    return average


def _optimizer(segmenter: Segmenter, options: SegmentTraining) -> torch.optim.Optimizer:
    """Norms and biases (one axis) never decay."""
    groups = []
    for name, part in segmenter.named_children():
        rate = options.lr * (options.backbone_rate if name == "backbone" else 1.0)
        part.requires_grad_(rate > 0)
        for decay, wanted in ((options.weight_decay, True), (0.0, False)):
            chosen = [p for p in part.parameters() if (p.ndim > 1) is wanted]
            if rate > 0 and chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=options.lr)


def _factor(options: SegmentTraining, step: int) -> float:
    """What the peak rates are multiplied by."""
    warm = options.warmup * options.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    along = (step - warm) / max(options.steps - warm, 1)
    if options.schedule == "poly":
        return (1 - along) ** 0.9
    return 0.5 * (1 + math.cos(math.pi * along))


@torch.no_grad()
def _update(average: dict[str, Tensor], segmenter: Segmenter, keep: float) -> None:
    for name, value in segmenter.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)

"""A detector's training loop: steps over batches of pictures, boxes and labels."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from ..errors import TrainingError, UsageError
from .loss import Losses, detector_loss
from .model import Detector

Report = Callable[[int, Losses], None]
Batch = tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class DetectTraining:
    """How to train: AdamW, its rate warmed up over `warmup` of the steps, then a cosine to zero.
    The backbone learns at `backbone_rate` times `lr`; at 0 it is frozen, its norms' statistics too.
    `average`: the most that the moving average of the weights keeps a step."""

    steps: int
    lr: float = 1e-3
    backbone_rate: float = 0.1
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


def train_detector(
    detector: Detector,
    batches: Iterable[Batch],
    options: DetectTraining,
    *,
    report: Report | None = None,
) -> dict[str, Tensor]:
    """Train in place on (images (N, 3, H, W), N times boxes (G, 4) in pixels of the images, N times
    labels (G,)), an endless iterable or one of at least `steps`; the averaged state dict. Crowd
    boxes are left out by the caller. `report` is told (step, losses).

    Raises TrainingError where the batches end early or the loss is no longer a number.
    """
    optimizer = _optimizer(detector, options)
    peaks = [group["lr"] for group in optimizer.param_groups]
    average = {name: value.clone() for name, value in detector.state_dict().items()}
    parameters = [p for p in detector.parameters() if p.requires_grad]
    done = 0
    for step, (images, boxes, labels) in enumerate(islice(batches, options.steps)):
        detector.train()
        if options.backbone_rate == 0:
            detector.backbone.eval()
        factor = _factor(options, step)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        height, width = images.shape[2:]
        losses = detector_loss(
            detector.spec, detector(images), boxes, labels, height=height, width=width
        )
        loss = losses.classes + losses.boxes
        if not math.isfinite(found := loss.item()):
            raise TrainingError(f"step {step}: the loss is {found}; lower lr ({options.lr})")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, options.clip)
        optimizer.step()
        _update(average, detector, min(options.average, (1 + step) / (10 + step)))
        if report is not None:
            report(step, Losses(*(part.detach() for part in losses)))
        done = step + 1
    if done < options.steps:
        raise TrainingError(f"the batches ended after {done} of {options.steps} steps")
    return average


def _optimizer(detector: Detector, options: DetectTraining) -> torch.optim.Optimizer:
    """Norms and biases (one axis) never decay."""
    groups = []
    for name, part in detector.named_children():
        rate = options.lr * (options.backbone_rate if name == "backbone" else 1.0)
        part.requires_grad_(rate > 0)
        for decay, wanted in ((options.weight_decay, True), (0.0, False)):
            chosen = [p for p in part.parameters() if (p.ndim > 1) is wanted]
            if rate > 0 and chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=options.lr)


def _factor(options: DetectTraining, step: int) -> float:
    """What the peak rates are multiplied by."""
    warm = options.warmup * options.steps
    if step < warm:
        return (step + 1) / (warm + 1)
    along = (step - warm) / max(options.steps - warm, 1)
    return 0.5 * (1 + math.cos(math.pi * along))


@torch.no_grad()
def _update(average: dict[str, Tensor], detector: Detector, keep: float) -> None:
    for name, value in detector.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - keep)
        else:
            average[name].copy_(value)

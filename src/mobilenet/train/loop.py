"""The loop: phases of epochs of steps, with every step's place in the run known and saved.

The order of pictures, their augmentation, dropout and mixing are pure functions of the seed and
of where in the run a step stands, so a checkpoint needs no generator states, and a run that is
resumed takes the same steps as one that was left alone.
"""

import contextlib
import copy
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..augment import build, mixup_cutmix
from ..checkpoint import CheckpointStore, flatten_state, unflatten_state
from ..classify import Classifier
from ..data import Split, batches, epoch_order, sample_rng, step_seed
from ..errors import TrainingError
from ..preprocess import Preprocess
from ..progress import say
from ..recipes import Phase, Recipe
from .features import FeatureCache, Interrupted, cut, to_input
from .interrupt import PoliteStop
from .log import Bar, MetricsLog
from .optimizer import WeightAverage, build_optimizer, lr_factor, restore_optimizer
from .record import require_same_checkpoint

CHECKPOINT_SECONDS = 30.0
CACHE_SHARE = 0.25  # of a budget of time, at most, goes into computing features
TRAINING_COST = 7  # a step of the whole network costs so many passes of the front (6.7 measured)
TIMED_VALIDATION = 500  # pictures, where time is the budget
FROZEN_NORM_BATCH = 16  # below, batch statistics are too noisy to learn from

_AMP = {"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}
_MIXING = 1 << 63  # far from the pictures' own random numbers


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the loop needs to know beside the recipe. `minutes` None: the budget is `epochs`."""

    epochs: float
    minutes: float | None
    batch_size: int
    seed: int
    workers: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where a run stands, and what the current epoch has added up so far."""

    phase: int = 0
    epoch: int = 0  # of the phase
    batch: int = 0  # of the epoch
    phase_step: int = 0
    phase_seconds: float = 0.0
    step: int = 0
    epochs: int = 0  # of the run
    seen: int = 0
    loss: float = 0.0
    correct: float = 0.0
    cached: int | None = None  # pictures in the phase's feature cache
    earlier_seconds: float = 0.0  # in the phases before
    last: bool = False  # whether this phase has the rest of the time, and no other follows


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's input: tensors on the device, and which pictures of the training split."""

    inputs: Tensor
    labels: Tensor
    indices: np.ndarray


Measure = Callable[[Classifier, int | None], tuple[float, float]]


class Trainer:
    """One run of one model over one dataset."""

    def __init__(
        self,
        model: Classifier,
        split: Split,
        pre: Preprocess,
        recipe: Recipe,
        settings: Settings,
        *,
        run: Path,
        measure: Measure,
        fingerprint: str,
    ) -> None:
        """`measure(model, limit)` gives validation loss and top-1; `fingerprint` tells runs with
        other options or data, whose checkpoints are refused."""
        self.model = model.to(settings.device)
        self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.split, self.pre, self.recipe, self.settings = split, pre, recipe, settings
        self.run_folder, self.measure, self.fingerprint = run, measure, fingerprint
        self.store = CheckpointStore(run / "checkpoints")
        self.position = Position()
        self.average = WeightAverage(model, recipe.ema) if recipe.ema else None
        self.optimizer: torch.optim.Optimizer | None = None
        self.class_weights = _class_weights(recipe, split.labels, settings.device)
        self.scaler = torch.amp.GradScaler(settings.device.type, enabled=recipe.amp == "fp16")
        self._optimizer_state: Any = None
        self._averaged: Classifier | None = None
        self._saved_at = time.monotonic()
        self._stop = threading.Event()

    @property
    def seconds(self) -> float:
        """Time spent learning so far, that of interrupted processes included."""
        return self.position.earlier_seconds + self.position.phase_seconds

    def resume(self) -> bool:
        """Go to the last checkpoint. False where there is none. Raises CheckpointError."""
        saved = self.store.latest()
        if saved is None:
            return False
        require_same_checkpoint(saved, self.run_folder, self.fingerprint)
        state = unflatten_state(saved.tensors, saved.scalars["state"])
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            for name, value in state["average"].items():
                self.average.state[name].copy_(value)
        self._optimizer_state = state["optimizer"]
        self.scaler.load_state_dict(state["scaler"])
        self.position = Position(**saved.scalars["position"])
        return True

    def run(self) -> dict[str, Tensor]:
        """Train to the end; the final weights (the average where the recipe keeps one), on the CPU.

        Raises TrainingError for a loss that is no number, Interrupted after Ctrl-C.
        """
        self.log = MetricsLog(self.run_folder, step=self.position.step)
        try:
            with PoliteStop(self._stop):
                while self.position.phase < len(self.recipe.phases):
                    self._run_phase(self.recipe.phases[self.position.phase])
                    if self.average is not None:  # the next phase goes on from the better weights
                        self.model.load_state_dict(self.average.state)
                    self.position = Position(
                        phase=len(self.recipe.phases)
                        if self.position.last
                        else self.position.phase + 1,
                        step=self.position.step,
                        epochs=self.position.epochs,
                        earlier_seconds=self.seconds,
                    )
                    self.optimizer = None
                    self._save()
        finally:
            self.log.close()
        state = self.average.state if self.average else self.model.state_dict()
        return {name: value.cpu() for name, value in state.items()}

    # ------------------------------------------------------------------------------- one phase

    def _run_phase(self, phase: Phase) -> None:
        seconds = self._phase_seconds(phase)
        cache: FeatureCache | None = None
        learner: nn.Module = self.model
        if phase.train != "all":
            parts = cut(self.model, phase.train)
            learner = parts.rest
            fresh = self.position.cached is None
            cache = FeatureCache(
                parts.front,
                self.split,
                self.pre,
                order=epoch_order(len(self.split), seed=self.settings.seed, epoch=0),
                folder=self.run_folder / "cache",
                workers=self.settings.workers,
                device=self.settings.device,
                seconds=None if seconds is None else min(self._budget() * CACHE_SHARE, seconds / 2),
                count=self.position.cached,
                stopped=self._stop.is_set,
            )
            if fresh:
                self.position = replace(
                    self.position,
                    cached=len(cache),
                    phase_seconds=cache.seconds,
                    last=not self._has_time_for_all(len(cache) / cache.seconds),
                )
            say(f"{phase.train}: features of {len(cache)} pictures in {cache.seconds:.1f} s")
            seconds = self._phase_seconds(phase)
        try:
            self._learn(phase, learner, cache, seconds)
        finally:
            if cache is not None:
                cache.close()

    def _learn(
        self, phase: Phase, learner: nn.Module, cache: FeatureCache | None, seconds: float | None
    ) -> None:
        settings, recipe = self.settings, self.recipe
        pictures = len(self.split) if cache is None else len(cache)
        batch_size = min(settings.batch_size, pictures)
        per_epoch = pictures // batch_size
        steps = max(round(phase.share * settings.epochs * per_epoch), 1)
        options = replace(recipe.optimizer, lr=recipe.optimizer.lr * phase.lr_scale)
        self.model.requires_grad_(False)
        learner.requires_grad_(True)
        self.optimizer = build_optimizer(learner, options, batch=batch_size)
        if self._optimizer_state is not None:
            restore_optimizer(self.optimizer, self._optimizer_state)
            self._optimizer_state = None

        def progress() -> float:
            here = self.position
            return here.phase_step / steps if seconds is None else here.phase_seconds / seconds

        started = time.perf_counter() - self.position.phase_seconds
        bar = Bar(phase.train, done=progress())
        while progress() < 1:
            epoch_started, epoch_seen = time.perf_counter(), self.position.seen
            for batch in self._batches(cache, batch_size):
                here = self.position
                lr = (options.lr * batch_size / 256) * lr_factor(
                    recipe.schedule,
                    progress=progress(),
                    epochs=steps / per_epoch,
                    epochs_done=here.phase_step / per_epoch,
                )
                for group in self.optimizer.param_groups:
                    group["lr"] = lr
                self._train_mode(phase, learner, batch_size)
                loss, correct = self._step(learner, batch, mix_boxes=cache is None)
                if self.average is not None:
                    self.average.update(self.model, here.phase_step)
                self.position = replace(
                    here,
                    batch=here.batch + 1,
                    phase_step=here.phase_step + 1,
                    phase_seconds=time.perf_counter() - started,
                    step=here.step + 1,
                    seen=here.seen + batch_size,
                    loss=here.loss + loss * batch_size,
                    correct=here.correct + correct,
                )
                here = self.position
                rate = (here.seen - epoch_seen) / (time.perf_counter() - epoch_started)
                self.log.step({"step": here.step, "loss": loss, "lr": lr, "img_per_s": rate})
                mean, top1 = here.loss / here.seen, here.correct / here.seen
                said = f"loss {mean:.3f}, top-1 {100 * top1:.1f} %, {rate:.0f} img/s"
                bar.update(progress(), said)
                self._save_if_due()
                if progress() >= 1:
                    break
            self._end_epoch(phase, started=epoch_started, before=epoch_seen)
        bar.close()

    def _save_if_due(self) -> None:
        """Save every so often, and before stopping."""
        if self._stop.is_set() or self._since_save() > CHECKPOINT_SECONDS:
            self._save()
        if self._stop.is_set():
            raise Interrupted

    def _since_save(self) -> float:
        return time.monotonic() - self._saved_at

    def _phase_seconds(self, phase: Phase) -> float | None:
        if self.settings.minutes is None:
            return None
        if self.position.last:
            return self._budget() - self.position.earlier_seconds
        return phase.share * self._budget()

    def _budget(self) -> float:
        """Seconds to learn in."""
        return math.inf if self.settings.minutes is None else 60 * self.settings.minutes

    def _has_time_for_all(self, rate: float) -> bool:
        """Whether the phases of the whole network that follow can see every picture once.

        With less, they would spoil what the phases before have learned. `rate`: pictures a second
        through the frozen front.
        """
        follow = self.recipe.phases[self.position.phase + 1 :]
        if self.settings.minutes is None or not follow:
            return True
        seconds = self._budget() * sum(later.share for later in follow if later.train == "all")
        return seconds * rate / TRAINING_COST >= len(self.split)

    def _batches(self, cache: FeatureCache | None, batch_size: int) -> Iterator[Batch]:
        """The rest of the current epoch."""
        here, settings = self.position, self.settings
        # epochs are numbered over all phases, so that no two see the same order
        if cache is not None:
            source = cache.batches(
                seed=settings.seed, epoch=here.epochs, batch_size=batch_size, start=here.batch
            )
            for features, chosen in source:
                labels = torch.from_numpy(cache.labels[chosen])
                yield Batch(
                    inputs=features.to(settings.device),
                    labels=labels.to(settings.device),
                    indices=cache.indices[chosen],
                )
            return
        order = epoch_order(len(self.split), seed=settings.seed, epoch=here.epochs)
        pre = self._training_preprocess()
        reading = batches(
            self.split,
            pre,
            batch_size=batch_size,
            order=order[here.batch * batch_size :],
            transform=build(self.recipe.augment, pre),
            seed=settings.seed,
            epoch=here.epochs,
            workers=settings.workers,
            drop_last=True,
        )
        with contextlib.closing(reading):
            for batch in reading:
                yield Batch(
                    inputs=to_input(batch.images, self.pre, settings.device),
                    labels=torch.from_numpy(batch.labels).to(settings.device),
                    indices=batch.indices,
                )

    def _training_preprocess(self) -> Preprocess:
        return replace(self.pre, size=max(round(self.pre.size * self.recipe.train_size), 32))

    def _train_mode(self, phase: Phase, learner: nn.Module, batch_size: int) -> None:
        """Frozen parts use their statistics; with tiny batches every norm does."""
        self.model.eval()
        learner.train()
        frozen: list[nn.Module] = []
        if batch_size < FROZEN_NORM_BATCH:
            frozen.append(learner)
        elif phase.frozen_norms:
            frozen.append(cut(self.model, "tail").front)
        for part in frozen:
            for layer in part.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()

    # -------------------------------------------------------------------------------- one step

    def _step(
        self,
        learner: nn.Module,
        batch: Batch,
        *,
        mix_boxes: bool,
    ) -> tuple[float, int]:
        """One optimizer step; the mean loss, and how many were right (of the main label)."""
        assert self.optimizer is not None
        recipe, here, device = self.recipe, self.position, self.settings.device
        torch.manual_seed(step_seed(self.settings.seed, here.step))  # dropout
        classes = self.model.head.classifier.out_channels
        targets = F.one_hot(batch.labels, classes).float()
        inputs, targets = mixup_cutmix(
            batch.inputs,
            targets,
            sample_rng(self.settings.seed, here.epochs, _MIXING + here.batch),
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix if mix_boxes else 0.0,
        )
        if recipe.label_smoothing:
            targets = targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / classes
        total, correct = 0.0, 0
        self.optimizer.zero_grad(set_to_none=True)
        for part, goal, label in zip(
            inputs.chunk(recipe.accumulate),
            targets.chunk(recipe.accumulate),
            batch.labels.chunk(recipe.accumulate),
            strict=True,
        ):
            with torch.autocast(device.type, dtype=_AMP[recipe.amp], enabled=recipe.amp != "none"):
                logits = learner(part)
            loss = F.cross_entropy(logits.float(), goal, weight=self.class_weights)
            loss = loss * (len(part) / len(inputs))
            self.scaler.scale(loss).backward()
            total += loss.item()
            correct += int((logits.argmax(1) == label).sum())
        if not math.isfinite(total):
            raise TrainingError(self._describe_failure(total, batch))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return total, correct

    def _describe_failure(self, loss: float, batch: Batch) -> str:
        assert self.optimizer is not None
        names = [self.split.name(int(index)) for index in batch.indices[:8]]
        more = f" and {len(batch.indices) - 8} more" if len(batch.indices) > 8 else ""
        inputs = "finite" if bool(torch.isfinite(batch.inputs).all()) else "NOT finite"
        return (
            f"loss {loss} at step {self.position.step} (phase "
            f"{self.recipe.phases[self.position.phase].train!r}, epoch {self.position.epoch}, "
            f"batch {self.position.batch}, learning rate "
            f"{self.optimizer.param_groups[0]['lr']:.3g}): its inputs are {inputs}; pictures: "
            f"{', '.join(names)}{more}. Lower --lr, or look at these pictures. The last "
            "checkpoint is kept"
        )

    # ------------------------------------------------------------------------------ epochs, saves

    def _end_epoch(self, phase: Phase, *, started: float, before: int) -> None:
        assert self.optimizer is not None
        here = self.position
        rate = (here.seen - before) / (time.perf_counter() - started)
        limit = TIMED_VALIDATION if self.settings.minutes is not None else None
        val_loss, val_top1 = self.measure(self._evaluated(), limit)
        record = {
            "phase": phase.train,
            "epoch": here.epochs,
            "step": here.step,
            "seconds": here.phase_seconds,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": here.loss / here.seen,
            "train_top1": here.correct / here.seen,
            "val_loss": val_loss,
            "val_top1": val_top1,
            "img_per_s": rate,
        }
        self.log.epoch(record)
        say(
            f"epoch {here.epochs + 1} ({phase.train}): loss {record['train_loss']:.4f}, top-1 "
            f"{100 * record['train_top1']:.2f} %; validation loss {val_loss:.4f}, top-1 "
            f"{100 * val_top1:.2f} %; {rate:.0f} img/s, {here.phase_seconds:.0f} s"
        )
        self.position = replace(
            here,
            epoch=here.epoch + 1,
            epochs=here.epochs + 1,
            batch=0,
            seen=0,
            loss=0.0,
            correct=0.0,
        )
        self._save()

    def _evaluated(self) -> Classifier:
        """The model to measure: a copy with the averaged weights where there are any."""
        if self.average is None:
            return self.model
        averaged = self._averaged or copy.deepcopy(self.model)
        averaged.load_state_dict(self.average.state)
        self._averaged = averaged
        return averaged

    def _save(self) -> None:
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "average": self.average.state if self.average else {},
            "optimizer": self.optimizer.state_dict() if self.optimizer else None,
            "scaler": self.scaler.state_dict(),
        }
        tensors, scalars = flatten_state(state)
        self.log.save()
        self.store.save(
            self.position.step,
            tensors,
            {
                "fingerprint": self.fingerprint,
                "position": asdict(self.position),
                "state": scalars,
            },
        )
        self._saved_at = time.monotonic()


def _class_weights(recipe: Recipe, labels: np.ndarray, device: torch.device) -> Tensor | None:
    """Per class, n / (classes * count): rare classes weigh more."""
    if recipe.class_weights == "none":
        return None
    counts = np.bincount(labels)
    weights = len(labels) / (len(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=device)

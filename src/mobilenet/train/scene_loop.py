"""The loop of networks for scenes: one phase, heads and backbone at once, the backbone slower.

As in the classifiers' loop, the order of pictures and all that varies them are pure functions of
the seed and of where in the run a step stands, so that a resumed run takes the same steps.
"""

import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backbone import Backbone, freeze
from ..checkpoint import CheckpointStore, flatten_state, unflatten_state
from ..data import epoch_order, sample_rng, step_seed
from ..data.reader import in_order
from ..errors import DataError, TrainingError
from ..heads import falling, head_optimizer, update_average
from ..networks import Rules, SceneSpec
from ..preprocess import ImageError, Preprocess, normalise
from ..progress import say
from ..recipes import SceneRecipe
from ..scenes.fit import fit_sample
from ..tasks import Example, SceneTask
from ..tasks.reading import AROUND
from .features import Interrupted
from .interrupt import PoliteStop
from .log import Bar, MetricsLog
from .loop import CHECKPOINT_SECONDS
from .optimizer import restore_optimizer
from .record import require_same_checkpoint

MEASURED = 0.1  # of the time, at most, goes into validation between epochs
_AHEAD = 2  # batches
_AROUND = (1.1, 1.6)  # sides of windows around single figures, varied


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What the loop needs to know beside the recipe. `minutes` None: the budget is `epochs`."""

    epochs: int
    minutes: float | None
    batch_size: int
    seed: int
    workers: int
    device: torch.device


@dataclass(frozen=True, kw_only=True)
class ScenePosition:
    """Where a run stands, and what the current epoch has added up so far."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # of the epoch
    seconds: float = 0.0
    seen: int = 0
    loss: float = 0.0
    measured: float = 0.0  # seconds that validation has taken


Measure = Callable[[nn.Module], tuple[str, float]]  # the primary figure's name and value


class SceneTrainer:
    """One run of one network over the examples of a dataset."""

    def __init__(
        self,
        network: nn.Module,
        examples: Sequence[Example],
        task: SceneTask,
        spec: SceneSpec,
        rules: Rules,
        pre: Preprocess,
        recipe: SceneRecipe,
        settings: SceneSettings,
        *,
        run: Path,
        measure: Measure,
        fingerprint: str,
    ) -> None:
        """`measure(network)` validates; `fingerprint` tells runs with other options or data, whose
        checkpoints are refused."""
        self.network = network.to(settings.device, memory_format=torch.channels_last)  # pyright: ignore
        self.examples, self.task, self.spec, self.rules = examples, task, spec, rules
        self.pre, self.recipe, self.settings = pre, recipe, settings
        self.run_folder, self.measure, self.fingerprint = run, measure, fingerprint
        self.store = CheckpointStore(run / "checkpoints")
        self.position = ScenePosition()
        self.average = {name: value.clone() for name, value in network.state_dict().items()}
        self.optimizer = head_optimizer(
            network,
            lr=recipe.lr,
            backbone_rate=recipe.backbone_rate,
            weight_decay=recipe.weight_decay,
        )
        if recipe.frozen is not None:
            backbone = network.get_submodule("backbone")
            assert isinstance(backbone, Backbone)
            freeze(backbone, recipe.frozen, settings.device)
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self._saved_at = time.monotonic()
        self._stop = threading.Event()

    def resume(self) -> bool:
        """Go to the last checkpoint. False where there is none. Raises CheckpointError."""
        saved = self.store.latest()
        if saved is None:
            return False
        require_same_checkpoint(saved, self.run_folder, self.fingerprint)
        state = unflatten_state(saved.tensors, saved.scalars["state"])
        self.network.load_state_dict(state["network"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        restore_optimizer(self.optimizer, state["optimizer"])
        self.position = ScenePosition(**saved.scalars["position"])
        return True

    def run(self) -> dict[str, Tensor]:
        """Train to the end; the averaged weights, on the CPU.

        Raises TrainingError for a loss that is no number, DataError for a picture that cannot be
        read, Interrupted after Ctrl-C.
        """
        self.log = MetricsLog(self.run_folder, step=self.position.step)
        try:
            with PoliteStop(self._stop):
                self._learn()
                self._save()
        except ImageError as error:
            raise DataError(
                f"{error}; mend or remove it, or leave out such pictures with --skip-bad"
            ) from None
        finally:
            self.log.close()
        return {name: value.cpu() for name, value in self.average.items()}

    def _learn(self) -> None:
        settings = self.settings
        batch_size = min(settings.batch_size, len(self.examples))
        steps = settings.epochs * (len(self.examples) // batch_size)

        def progress(ahead: int = 0) -> float:
            """Of the budget; of epochs, when so many further steps are done."""
            here = self.position
            if settings.minutes is None:
                return (here.step + ahead) / steps
            return here.seconds / (60 * settings.minutes)

        started = time.perf_counter() - self.position.seconds
        bar = Bar(self.task.name, done=progress())
        while progress() < 1:
            epoch_started, epoch_seen = time.perf_counter(), self.position.seen
            with contextlib.closing(self._batches(batch_size, progress)) as reading:
                for images, targets in reading:
                    lr = self._set_rate(progress())
                    loss = self._step(images, targets)
                    here = self.position
                    self.position = replace(
                        here,
                        step=here.step + 1,
                        batch=here.batch + 1,
                        seconds=time.perf_counter() - started,
                        seen=here.seen + batch_size,
                        loss=here.loss + loss * batch_size,
                    )
                    here = self.position
                    rate = (here.seen - epoch_seen) / (time.perf_counter() - epoch_started)
                    self.log.step({"step": here.step, "loss": loss, "lr": lr, "img_per_s": rate})
                    bar.update(progress(), f"loss {here.loss / here.seen:.3f}, {rate:.1f} img/s")
                    self._save_if_due()
                    if progress() >= 1:
                        break
            rate = (self.position.seen - epoch_seen) / (time.perf_counter() - epoch_started)
            self._end_epoch(rate, last=progress() >= 1)
            self.position = replace(self.position, seconds=time.perf_counter() - started)
        bar.close()

    def _set_rate(self, progress: float) -> float:
        """Of the heads; warmed up over the recipe's share of the budget, then falling."""
        warm = self.recipe.warmup
        if progress < warm:
            factor = max(progress / warm, 0.01)
        else:
            factor = falling(self.recipe.schedule, min((progress - warm) / (1 - warm), 1.0))
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        return self.recipe.lr * factor

    def _side(self, progress: float) -> int:
        """Of the input at this part of the budget."""
        whole = self.pre.size
        if progress >= self.recipe.small:
            return whole
        return max(round(whole * self.recipe.small_size / 32) * 32, 32)

    def _batches(
        self, batch_size: int, progress: Callable[[int], float]
    ) -> Generator[tuple[Tensor, list[Any]]]:
        """The rest of the current epoch: images (N, 3, side, side) and their targets."""
        here, settings = self.position, self.settings
        order = epoch_order(len(self.examples), seed=settings.seed, epoch=here.epoch)
        chosen = order[here.batch * batch_size : len(order) - len(order) % batch_size]

        def planned() -> Generator[tuple[int, int]]:
            """Each example and its batch's side, decided when its turn to be read comes."""
            for number in range(len(chosen) // batch_size):
                side = self._side(progress(here.step + number - self.position.step))
                for index in chosen[number * batch_size : (number + 1) * batch_size].tolist():
                    yield index, side

        def read(plan: tuple[int, int]) -> tuple[np.ndarray, Any]:
            index, side = plan
            rng = sample_rng(settings.seed, here.epoch, index)
            example = self.examples[index]
            around = float(rng.uniform(*_AROUND)) if example.person is not None else AROUND
            try:
                sample = example.read(mask=self.task.mask, around=around)
                varied = self.task.vary(sample, rng, side, self.rules)
                fitted, _ = fit_sample(varied, (side, side))
                return fitted.picture, self.task.target(self.spec, fitted)
            except Exception as error:
                error.add_note(f"while reading {example.name}")
                raise

        ahead = _AHEAD * batch_size
        done = in_order(read, planned(), workers=settings.workers, ahead=ahead)
        with contextlib.closing(done):
            for _ in range(len(chosen) // batch_size):
                pairs = [next(done) for _ in range(batch_size)]
                images = normalise(np.stack([picture for picture, _ in pairs]), self.pre)
                x = torch.from_numpy(images).to(settings.device, memory_format=torch.channels_last)
                yield x, [target for _, target in pairs]

    def _step(self, images: Tensor, targets: list[Any]) -> float:
        torch.manual_seed(step_seed(self.settings.seed, self.position.step))  # dropout
        self.network.train()
        if self.recipe.backbone_rate == 0:
            self.network.get_submodule("backbone").eval()
        loss = self.task.loss(self.network, images, targets)
        if not math.isfinite(found := loss.item()):
            raise TrainingError(
                f"loss {found} at step {self.position.step} (epoch {self.position.epoch}, batch "
                f"{self.position.batch}): lower --lr ({self.recipe.lr:g}). The last checkpoint is "
                "kept"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        learned = [p for p in self.network.parameters() if p.requires_grad]
        nn.utils.clip_grad_norm_(learned, self.recipe.clip)
        self.optimizer.step()
        step = self.position.step
        update_average(self.average, self.network, min(self.recipe.ema, (1 + step) / (10 + step)))
        return found

    def _end_epoch(self, rate: float, *, last: bool) -> None:
        here = self.position
        loss = here.loss / max(here.seen, 1)
        record: dict[str, Any] = {
            "epoch": here.epoch,
            "step": here.step,
            "seconds": here.seconds,
            "train_loss": loss,
            "img_per_s": rate,
        }
        said = f"epoch {here.epoch + 1}: loss {loss:.4f}"
        # the last measurement is that of the saved model
        if not last and here.measured <= MEASURED * here.seconds:
            start = time.perf_counter()
            name, value = self._validate()
            here = replace(here, measured=here.measured + time.perf_counter() - start)
            record[f"val_{name}"] = value
            said += f", validation {name} {100 * value:.2f} %"
        self.log.epoch(record)
        say(f"{said}; {rate:.1f} img/s, {here.seconds:.0f} s")
        self.position = replace(here, epoch=here.epoch + 1, batch=0, seen=0, loss=0.0)
        self._save()

    def _validate(self) -> tuple[str, float]:
        """With the averaged weights, which are put in for as long as it takes."""
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        try:
            return self.measure(self.network)
        finally:
            self.network.load_state_dict(own)

    def _save_if_due(self) -> None:
        if self._stop.is_set() or time.monotonic() - self._saved_at > CHECKPOINT_SECONDS:
            self._save()
        if self._stop.is_set():
            raise Interrupted

    def _save(self) -> None:
        tensors, scalars = flatten_state(
            {
                "network": self.network.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
            }
        )
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

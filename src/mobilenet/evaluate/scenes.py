"""How good a network for scenes is, by its field's own metric."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..faces import FaceRules
from ..preprocess import ImageError, normalise
from ..progress import say, track
from ..scenes import SceneData, open_scenes
from ..scenes.sample import Sample
from ..scenes.scan import readable
from ..tasks import Example, SceneScores, Tally, examples_of, read_examples
from .model import Device
from .scene_model import SceneModel, open_scene_model

RESAMPLES = 200  # for intervals
_READERS = 2


@dataclass(frozen=True, kw_only=True)
class SceneEvaluation:
    """What `evaluate` measured of a network for scenes, and under which conditions. `low` and
    `high`: of the primary figure, 95 % of as many pictures drawn anew (bootstrap)."""

    model: str
    data: str
    split: str
    task: str
    runtime: str
    seconds: float
    scores: SceneScores
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the task's figures (see `SceneScores`) and their conditions."""
        conditions = {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "runtime": self.runtime,
            "seconds": round(self.seconds, 3),
        }
        interval = [None if np.isnan(end) else end for end in (self.low, self.high)]
        return {
            "task": self.task,
            **self.scores.to_json(),
            "primary": self.scores.primary,
            "interval": interval,
            "conditions": conditions,
        }

    def __str__(self) -> str:
        """A few lines for people."""
        first, *others = self.scores.lines()
        first += f"  ({100 * self.low:.2f} to {100 * self.high:.2f} with 95 % confidence)"
        return "\n".join(
            [first, *others, f"{self.scores.n} examples, split {self.split} of {self.data}"]
        )


def evaluate_scenes(
    model: Path,
    data: str,
    *,
    split: str | None,
    batch_size: int,
    workers: int,
    threads: int | None,
    device: Device,
    limit: int | None,
    skip_bad: bool,
) -> SceneEvaluation:
    """`evaluate` for a network for scenes."""
    opened = open_scene_model(model, threads=threads, device=device)
    found, name = open_scene_split(opened, data, split, limit=limit, skip_bad=skip_bad)
    say(f"{data}: measuring split {name}, {len(found.splits[name])} pictures")
    return measure_scenes(opened, found, name, batch_size=batch_size, workers=workers)


def open_scene_split(
    model: SceneModel, data: str, split: str | None, *, limit: int | None, skip_bad: bool
) -> tuple[SceneData, str]:
    """A dataset of scenes, split as it was when the model was trained, and the split that is meant:
    without one test if there is one, else val. Raises DataError for other classes than the
    model's."""
    options, stated = (model.provenance.get(name) for name in ("options", "data"))
    seed = options.get("seed") if isinstance(options, dict) else None
    fraction = stated.get("val_fraction") if isinstance(stated, dict) else None
    if type(fraction) not in (int, float):
        fraction = None
    found = open_scenes(
        data,
        task=model.task.name,  # pyright: ignore[reportArgumentType] - a task on scenes
        seed=seed if isinstance(seed, int) else 0,
        val_fraction=0.0 if split == "all" else 0.1 if fraction is None else fraction,
        limit=limit,
        skip_bad=skip_bad,
    )
    if skip_bad:  # else the first that cannot be read ends it
        found = readable(found, workers=_READERS, skip_bad=True)
    for note in found.notes:
        say(f"{data}: {note}")
    check_classes(model, found)
    there = list(found.splits)
    if split == "all":
        if len(there) > 1:
            raise UsageError(f"split 'all': {data} has splits of its own: name one")
        return found, there[0]
    name = split or next((each for each in ("test", "val") if each in there), None)
    if name is None:
        raise UsageError(
            f"{data}: neither a test nor a val split, only {there}; say which with --split, or "
            "--split all"
        )
    if name not in there:
        raise UsageError(f"split {name!r}: {data} has only {there}; say which with --split")
    return found, name


def check_classes(model: SceneModel, found: SceneData) -> None:
    """Raise DataError where a dataset's classes, or keypoints, are not the model's; a detector of
    faces may be measured on faces without landmarks."""
    labels = model.task.labels(found)
    if labels != model.labels:
        raise DataError(
            f"{found.source}: its classes are {_listed(labels)}, but {model.name} was trained on "
            f"{_listed(model.labels)}; name and order them alike"
        )
    mine = getattr(model.rules, "names", ())
    if isinstance(model.rules, FaceRules) and not found.keypoints:
        return
    if tuple(mine) != tuple(found.keypoints if mine else ()):
        raise DataError(
            f"{found.source}: its keypoints are {_listed(found.keypoints)}, but {model.name} was "
            f"trained on {_listed(mine)}"
        )


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + rest


@dataclass(frozen=True, kw_only=True, eq=False)
class Answered:
    """One example, read, and what was found on it."""

    example: Example
    sample: Sample
    found: Any


def answer_scenes(
    model: SceneModel, examples: Sequence[Example], *, batch_size: int, workers: int
) -> Iterator[tuple[np.ndarray, list[Answered]]]:
    """Batch by batch: preprocessed images (N, 3, size, size), and what was found on them.

    Raises DataError naming a picture that cannot be read.
    """
    reading = read_examples(
        examples,
        model.preprocess,
        mask=model.task.mask,
        batch_size=batch_size,
        workers=workers,
    )
    total = -(-len(examples) // batch_size)
    with contextlib.closing(reading):
        try:
            for batch in track(reading, total=total, desc="evaluating", unit="batch"):
                images = normalise(batch.images, model.preprocess)
                sizes = [sample.size for sample in batch.samples]
                found = model.decoded(images, sizes, batch.examples[0].name)
                pairs = zip(batch.examples, batch.samples, found, strict=True)
                yield images, [Answered(example=e, sample=s, found=f) for e, s, f in pairs]
        except ImageError as error:
            raise DataError(
                f"{error}; mend or remove it, or leave out such pictures with --skip-bad"
            ) from None


def measure_scenes(
    model: SceneModel,
    data: SceneData,
    split: str,
    *,
    batch_size: int,
    workers: int = _READERS,
    resamples: int = RESAMPLES,
) -> SceneEvaluation:
    """`evaluate` for a model and a dataset that are already open."""
    start = time.perf_counter()
    examples = examples_of(data.splits[split], windowed=model.task.windowed(model.spec))
    if not examples:
        raise DataError(f"{data.source}: nothing of split {split} can be measured")
    tally = model.task.tally(model.spec, model.rules, model.labels)
    for _, batch in answer_scenes(model, examples, batch_size=batch_size, workers=workers):
        for one in batch:
            tally.add(one.example, one.sample, one.found)
    scores = tally.scores()
    low, high = interval_of(tally, scores.n, resamples=resamples)
    return SceneEvaluation(
        model=model.name,
        data=data.source,
        split=split,
        task=model.task.name,
        runtime=model.runtime,
        seconds=time.perf_counter() - start,
        scores=scores,
        low=low,
        high=high,
    )


def interval_of(tally: Tally, n: int, *, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The middle 95 % of a tally's primary figure over as many examples drawn anew."""
    rng = np.random.default_rng(0)
    drawn = [tally.resampled(rng.integers(n, size=n)) for _ in range(resamples)]
    found = [value for value in drawn if not np.isnan(value)]
    if not found:
        return float("nan"), float("nan")
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True, kw_only=True)
class SceneDrop:
    """By how many percentage points the primary figure is lower than the float network's, with 95 %
    of as many examples drawn anew, the same for both; below 0 it is higher."""

    points: float
    low: float
    high: float


def compare_tallies(reference: Tally, other: Tally, *, resamples: int = RESAMPLES) -> SceneDrop:
    """What `other` lost beside `reference`, both of the same examples in the same order."""
    whole = reference.scores()
    rng = np.random.default_rng(0)
    rows = [rng.integers(whole.n, size=whole.n) for _ in range(resamples)]
    drops = [100 * (reference.resampled(row) - other.resampled(row)) for row in rows]
    found = [drop for drop in drops if not np.isnan(drop)] or [float("nan")]
    low, high = np.quantile(found, (0.025, 0.975))
    return SceneDrop(
        points=100 * (whole.value - other.scores().value) + 0.0,
        low=float(low) + 0.0,
        high=float(high) + 0.0,
    )

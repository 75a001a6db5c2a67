"""How good a model is: `evaluate`, a run or an exported artifact on labelled images."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..data import Batch, Dataset, Split, batches, open_dataset, scan, without_bad
from ..errors import DataError, UsageError
from ..preprocess import ImageError, Preprocess, normalise
from ..progress import say, track
from .metrics import Ints, Metrics, Outcomes, outcomes_of, summarise
from .model import Device, Floats, Forward, OpenModel, not_a_number, open_model

if TYPE_CHECKING:
    from .scenes import SceneEvaluation

SplitChoice = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` measured, and under which conditions.

    `labels` are the model's classes; the labels in `outcomes` are places among them. `seconds`
    is the time that reading and answering took.
    """

    model: str
    data: str
    split: str
    runtime: str
    seconds: float
    labels: tuple[str, ...]
    metrics: Metrics
    outcomes: Outcomes

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the metrics (see `Metrics.to_json`) and their conditions."""
        conditions = {
            "model": self.model,
            "data": self.data,
            "split": self.split,
            "runtime": self.runtime,
            "seconds": round(self.seconds, 3),
        }
        return {**self.metrics.to_json(), "conditions": conditions}

    def __str__(self) -> str:
        """A few lines for people."""
        m = self.metrics
        worst = sorted((c for c in m.per_class if c.support), key=lambda c: c.f1.value)[:5]
        named = ", ".join(f"{c.name} {c.f1.value:.3f} (n = {c.support})" for c in worst)
        return "\n".join(
            [
                f"top-1   {100 * m.top1.value:6.2f} %  "
                f"({100 * m.top1.low:.2f} to {100 * m.top1.high:.2f} with 95 % confidence)",
                f"top-5   {100 * m.top5.value:6.2f} %  "
                f"({100 * m.top5.low:.2f} to {100 * m.top5.high:.2f})",
                f"loss    {m.loss:6.4f}    macro F1 {m.macro_f1:.4f}    "
                f"calibration error {100 * m.ece:.2f} %",
                f"images  {m.n}, split {self.split} of {self.data}",
                f"lowest F1: {named}",
            ]
        )


def evaluate(
    model: Path,
    data: str,
    /,
    *,
    split: SplitChoice | None = None,
    batch_size: int = 32,
    workers: int = 2,
    threads: int | None = None,
    device: Device = "auto",
    limit: int | None = None,
    skip_bad: bool = False,
) -> "Evaluation | SceneEvaluation":
    """Measure a run or an exported artifact on labelled images.

    Networks for scenes are measured by their field's metric: COCO's mAP, mIoU and boundary F,
    COCO's OKS-AP. Raises DataError where the data has classes that the model does not know, or,
    naming them, images that cannot be read.

    Args:
        model: Run folder, or the folder of an exported artifact (which needs no torch).
        data: Dataset: a folder, a manifest or a known name; for scenes COCO, VOC, YOLO, WIDER FACE
            or masks.
        split: Part of the data; "all": every image of data that has no splits. Without it test if
            there is one, else val.
        batch_size: Images in one pass through the network.
        workers: Threads that read images.
        threads: CPU threads of the network; without it all cores.
        device: Where a run computes; an artifact computes on the CPU.
        limit: Measure only so many images, each class in proportion.
        skip_bad: Leave out the images that cannot be read.
    """
    from .scene_model import task_in

    if task_in(model) != "classify":
        from .scenes import evaluate_scenes

        return evaluate_scenes(
            model,
            data,
            split=split,
            batch_size=batch_size,
            workers=workers,
            threads=threads,
            device=device,
            limit=limit,
            skip_bad=skip_bad,
        )
    opened = open_model(model, threads=threads, device=device)
    dataset, chosen = open_split(opened, data, split, limit=limit)
    dataset = replace(dataset, splits={chosen: dataset.splits[chosen]})
    if skip_bad:
        dataset = leave_out_bad(dataset, workers)
    say(f"{data}: measuring split {chosen}, {len(dataset.splits[chosen])} images")
    try:
        return measure(opened, dataset, chosen, batch_size=batch_size, workers=workers)
    except ImageError as error:
        raise DataError(
            f"{error}; mend or remove it, or leave out such images with --skip-bad "
            "(mobilenet doctor lists all)"
        ) from None


def leave_out_bad(dataset: Dataset, workers: int) -> Dataset:
    """The dataset without the images that cannot be read, each of them named."""
    found = scan(dataset, workers=workers)
    for bad in found.unreadable:
        say(f"left out: {bad.path}: {bad.reason}")
    return without_bad(dataset, found)


def open_split(
    model: OpenModel, data: str, split: SplitChoice | None, *, limit: int | None
) -> tuple[Dataset, str]:
    """A dataset, split as it was when the model was trained, and the split that is meant.

    A val split that was held out in training must be held out alike, or the model would be
    measured on pictures that it has learned.
    """
    seed, val_fraction = _held_out(model.provenance)
    fraction = 0.0 if split == "all" else val_fraction
    dataset = open_dataset(data, seed=seed, val_fraction=fraction, limit=limit)
    for note in dataset.notes:
        say(f"{data}: {note}")
    return dataset, choose_split(dataset, split)


def _held_out(provenance: dict[str, Any]) -> tuple[int, float]:
    """Seed and share of the val split in training; the defaults where they were not recorded."""
    options, data = provenance.get("options"), provenance.get("data")
    seed = options.get("seed") if isinstance(options, dict) else None
    fraction = data.get("val_fraction") if isinstance(data, dict) else None
    return (
        seed if isinstance(seed, int) else 0,
        fraction if isinstance(fraction, float) else 0.1,
    )


def choose_split(dataset: Dataset, wanted: SplitChoice | None) -> str:
    """The split that is meant. Raises UsageError where the dataset has none such."""
    there = list(dataset.splits)
    if wanted == "all":
        if len(there) > 1:
            raise UsageError(f"split 'all': {dataset.source} has splits of its own: name one")
        return there[0]
    name = wanted or next((name for name in ("test", "val") if name in there), None)
    if name is None:
        raise UsageError(
            f"{dataset.source}: neither a test nor a val split, only {there}; say which with "
            "--split, or --split all"
        )
    if name not in there:
        raise UsageError(f"split {name!r}: {dataset.source} has only {there}")
    return name


def measure(
    model: OpenModel, dataset: Dataset, split: str, *, batch_size: int, workers: int
) -> Evaluation:
    """`evaluate` for a model and a dataset that are already open."""
    part = dataset.splits[split]
    places = match_classes(dataset, model)
    start = time.perf_counter()
    parts = []
    for logits, batch in answer(
        model.forward, part, model.preprocess, batch_size=batch_size, workers=workers
    ):
        try:
            parts.append(outcomes_of(logits, places[batch.labels], batch.indices))
        except ValueError:
            first = batch.indices[~np.isfinite(logits).all(axis=1)][0]
            raise not_a_number(model.name, part.name(int(first))) from None
    outcomes = Outcomes.join(parts)
    return Evaluation(
        model=model.name,
        data=dataset.source,
        split=split,
        runtime=model.runtime,
        seconds=time.perf_counter() - start,
        labels=model.labels,
        metrics=summarise(outcomes, model.labels),
        outcomes=outcomes,
    )


def match_classes(dataset: Dataset, model: OpenModel) -> Ints:
    """The place of every class of the dataset among the model's labels, by name.

    Raises DataError, listing the difference, where one is not there.
    """
    classes, labels = dataset.classes, model.labels
    if classes == labels:
        return np.arange(len(labels))
    place = {label: index for index, label in enumerate(labels)}
    unknown = [name for name in classes if name not in place]
    if unknown:
        unused = [label for label in labels if label not in set(classes)]
        raise DataError(
            f"{dataset.source}: {len(unknown)} of its {len(classes)} classes are unknown to "
            f"{model.name}: {_listed(unknown)}. The model's classes that the data lacks: "
            f"{_listed(unused) or 'none'}. Rename or leave out those classes of the data"
        )
    if len(classes) == len(labels):
        say(f"{dataset.source}: its classes are in another order than the model's: matched by name")
    else:
        say(
            f"{dataset.source}: has {len(classes)} of the model's {len(labels)} classes: matched "
            "by name; the model still chooses among all of its own"
        )
    return np.array([place[name] for name in classes])


def answer(
    forward: Forward, split: Split, pre: Preprocess, *, batch_size: int, workers: int
) -> Iterator[tuple[Floats, Batch]]:
    """Every batch of a split, in order, with the logits (N, classes) that `forward` gives."""
    total = -(-len(split) // batch_size)
    reading = batches(split, pre, batch_size=batch_size, workers=workers)
    with contextlib.closing(reading):
        for batch in track(reading, total=total, desc="evaluating", unit="batch"):
            yield forward(normalise(batch.images, pre)), batch


def collect_logits(
    forward: Forward, split: Split, pre: Preprocess, *, batch_size: int = 32, workers: int = 2
) -> tuple[Floats, Ints, Ints]:
    """Logits float32 (n, classes), labels and places in the split, both int64 (n,), in order."""
    logits, labels, indices = [], [], []
    for part, batch in answer(forward, split, pre, batch_size=batch_size, workers=workers):
        logits.append(part)
        labels.append(batch.labels)
        indices.append(batch.indices)
    return np.concatenate(logits), np.concatenate(labels), np.concatenate(indices)


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(map(repr, names[:10])) + rest

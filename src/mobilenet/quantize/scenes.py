"""Networks for scenes on the ladder: their pictures, and the gate by the task's own metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..data import epoch_order
from ..errors import DataError, UsageError
from ..evaluate.scene_model import MapsOf, SceneModel, int8_maps, torch_maps
from ..evaluate.scenes import answer_scenes, compare_tallies, open_scene_split
from ..integer import QuantisedProgram
from ..layers import folded
from ..models import ModelSpec
from ..networks import task_of
from ..preprocess import normalise
from ..program import Floats
from ..progress import say, track
from ..runtime import usable_cores
from ..tasks import SCENE_TASKS, Example, Tally, examples_of, read_examples
from .pictures import BATCH
from .result import Flip, SceneGate, Share
from .source import FEW, FEWEST, Source

_LISTED = 50  # pictures on which the networks differ most
_BATCH = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """`calibration`: float32 (N, 3, size, size); `measured`: examples that had no part in it."""

    calibration: Floats
    measured: tuple[Example, ...]
    split: str
    notes: tuple[str, ...]
    labelled: bool = True


def model_of(source: Source, maps: MapsOf) -> SceneModel:
    """The source as a model whose maps are computed so. Raises UsageError for a classifier."""
    if isinstance(source.spec, ModelSpec) or source.rules is None:
        raise UsageError(f"{source.name}: a classifier; expected a network for scenes")
    return SceneModel(
        name=source.name,
        task=SCENE_TASKS[task_of(source.spec)],
        spec=source.spec,
        rules=source.rules,
        maps=maps,
        preprocess=source.preprocess,
        labels=source.labels,
        runtime="",
        provenance=dict(source.provenance),
    )


def open_examples(
    source: Source, data: str, *, count: int, limit: int | None, skip_bad: bool
) -> Examples:
    """Calibration pictures from the training split, and the validation split to measure on. Raises
    DataError for pictures that cannot be read, or too few."""
    model = model_of(source, lambda images: {})
    windowed = model.task.windowed(model.spec)
    train, _ = open_scene_split(model, data, "train", limit=None, skip_bad=skip_bad)
    held, name = open_scene_split(model, data, "val", limit=limit, skip_bad=skip_bad)
    examples = examples_of(train.splits["train"], windowed=windowed)
    measured = examples_of(held.splits[name], windowed=windowed)
    count = min(count, len(examples))
    if count < FEWEST or not measured:
        raise DataError(
            f"{data}: {count} pictures to calibrate with and {len(measured)} to measure on; at "
            f"least {FEWEST} and 1 are needed, and some hundred are better"
        )
    chosen = np.sort(epoch_order(len(examples), seed=0, epoch=0)[:count])
    some = [examples[index] for index in chosen]
    reading = read_examples(
        some, source.preprocess, mask=False, batch_size=BATCH, workers=usable_cores()
    )
    total = -(-count // BATCH)
    parts = [
        normalise(read.images, source.preprocess)
        for read in track(reading, total=total, desc="reading", unit="batch")
    ]
    notes = []
    if count < FEW:
        notes.append(f"only {count} pictures to calibrate with: ranges may be too narrow")
    if len(measured) < FEW:
        notes.append(f"only {len(measured)} to measure on: a drop of a point is not seen")
    for note in notes:
        say(f"{data}: {note}")
    return Examples(
        calibration=np.concatenate(parts), measured=measured, split=name, notes=tuple(notes)
    )


class SceneJudge:
    """Measures int8 networks beside the float one, on the examples that are kept for it."""

    def __init__(self, source: Source, examples: Examples) -> None:
        self.examples = examples
        self.model = model_of(source, torch_maps(folded(source.network), torch.device("cpu")))
        self.reference, self.float_found = self._answers(self.model)
        self.int8_found: Sequence[Any] = self.float_found

    def _answers(self, model: SceneModel) -> tuple[Tally, list[Any]]:
        tally = model.task.tally(model.spec, model.rules, model.labels)
        found = []
        for _, batch in answer_scenes(
            model, self.examples.measured, batch_size=_BATCH, workers=usable_cores()
        ):
            for one in batch:
                tally.add(one.example, one.sample, one.found)
                found.append(one.found)
        return tally, found

    def gate(self, quantised: QuantisedProgram) -> SceneGate:
        """What the last network that is measured finds is kept for `flips`."""
        side, threads = self.model.preprocess.size, torch.get_num_threads()
        maps, _ = int8_maps(quantised, side, threads=threads)
        tally, self.int8_found = self._answers(replace(self.model, maps=maps))
        pairs = list(zip(self.float_found, self.int8_found, strict=True))
        shares = [self.model.task.agreement(one, other) for one, other in pairs]
        total = sum(whole for _, whole in shares)
        return SceneGate(
            float_scores=self.reference.scores(),
            int8_scores=tally.scores(),
            drop=compare_tallies(self.reference, tally),
            agreement=Share(value=sum(same for same, _ in shares) / total if total else 1.0),
        )

    def flips(self) -> tuple[Flip, ...]:
        """The examples on which the last network and the float one agree least."""
        task, labels = self.model.task, self.model.labels
        pairs = list(zip(self.float_found, self.int8_found, strict=True))
        shares = [task.agreement(one, other) for one, other in pairs]
        common = np.array([same / whole if whole else 1.0 for same, whole in shares])
        order = [index for index in np.argsort(common, kind="stable") if common[index] < 1]
        return tuple(
            Flip(
                picture=self.examples.measured[index].name,
                float_label=task.describe(pairs[index][0], labels),
                int8_label=task.describe(pairs[index][1], labels),
            )
            for index in order[:_LISTED]
        )

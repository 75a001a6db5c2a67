"""What is quantised, on which pictures: a run or a known network, and a dataset, opened."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import load_network, read_model_json
from ..data import Dataset, Split
from ..errors import CheckpointError, DataError, UsageError
from ..evaluate import leave_out_bad, match_classes, open_split
from ..evaluate.model import OpenModel
from ..models import MODELS, parse_model_name
from ..networks import Rules, Spec, read_rules
from ..preprocess import ImageError, Preprocess
from ..program import Floats
from ..progress import say, track
from ..runtime import usable_cores
from ..weights import load_pretrained
from .pictures import BATCH, calibration_batches

if TYPE_CHECKING:
    from torch import Tensor, nn

FEWEST = 8  # pictures that a network can be calibrated with
FEW = 100  # below so many, or in one class only, ranges are a guess: said, not refused


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A float network and all that belongs to it."""

    name: str
    spec: Spec
    state: "Mapping[str, Tensor]"
    preprocess: Preprocess
    labels: tuple[str, ...]
    rules: Rules | None  # of a network for scenes
    provenance: Mapping[str, Any]
    network: "nn.Module"


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """`calibration`: float32 (N, 3, H, W); `measured`: a split that had no part in it, and the
    model's label of every picture there, None where the data has other classes than the model."""

    calibration: Floats
    measured: Split
    split: str
    labels: np.ndarray | None
    notes: tuple[str, ...]

    @property
    def labelled(self) -> bool:
        """Whether the labels are the data's own."""
        return self.labels is not None


def open_source(model: str | Path) -> Source:
    """A run folder, or a known name with its ImageNet weights. Raises UsageError for neither."""
    folder = Path(model)
    if not folder.exists():
        return _named(str(model))
    if "artifact" in read_model_json(folder):
        raise UsageError(f"{folder}: an exported model; give the run that it came from")
    loaded = load_network(folder)
    try:
        contract = Preprocess.from_dict(loaded.preprocess)
    except UsageError as error:
        raise CheckpointError(f"{folder / 'model.json'}: {error}") from None
    return Source(
        name=str(folder),
        spec=loaded.spec,
        state=loaded.state,
        preprocess=contract,
        labels=loaded.labels,
        rules=None if loaded.task == "classify" else read_rules(loaded.task, loaded.decoding),
        provenance=loaded.provenance,
        network=loaded.module(),
    )


def _named(name: str) -> Source:
    try:
        parsed = parse_model_name(name)
    except UsageError:
        raise UsageError(
            f"{name}: neither a folder that train wrote, nor a model's name; expected one of "
            f"{sorted(MODELS)}"
        ) from None
    found = load_pretrained(parsed.spec, "imagenet", size=parsed.size)
    for note in found.notes:
        say(f"{name}: {note}")
    assert found.labels is not None  # ImageNet's
    network = found.module()
    return Source(
        name=name,
        spec=found.spec,
        state=network.state_dict(),
        preprocess=found.preprocess,
        labels=found.labels,
        rules=None,
        provenance={"weights": {"sha256": found.sha256}},
        network=network,
    )


def open_pictures(
    source: Source, data: str, *, count: int, limit: int | None, skip_bad: bool
) -> Pictures:
    """Calibration pictures from the training split, evenly over its classes, and the validation
    split to measure on. Raises DataError for pictures that cannot be read, or too few."""
    model = OpenModel(
        name=source.name,
        forward=lambda images: images,  # is not asked
        preprocess=source.preprocess,
        labels=source.labels,
        runtime="",
        provenance=dict(source.provenance),
    )
    workers = usable_cores()
    dataset, train = open_split(model, data, "train", limit=None)
    held, name = open_split(model, data, "val", limit=limit)
    if skip_bad:
        both = replace(dataset, splits={train: dataset.splits[train], name: held.splits[name]})
        both = leave_out_bad(both, workers)
        dataset, held = both, both
    labels = _labels(model, held, held.splits[name])
    split = dataset.splits[train]
    count = min(count, len(split))
    if count < FEWEST:
        raise DataError(
            f"{data}: {count} pictures to calibrate with, at least {FEWEST} are needed, and some "
            "hundred are better"
        )
    found = calibration_batches(split, source.preprocess, count=count, workers=workers)
    try:
        batches = list(track(found, total=-(-count // BATCH), desc="reading", unit="batch"))
    except ImageError as error:
        raise DataError(
            f"{error}; mend or remove it, or leave out such images with --skip-bad "
            "(mobilenet doctor lists all)"
        ) from None
    notes = _notes(split, count, len(held.splits[name]), labels is not None)
    for note in notes:
        say(f"{data}: {note}")
    return Pictures(
        calibration=np.concatenate(batches),
        measured=held.splits[name],
        split=name,
        labels=labels,
        notes=notes,
    )


def _labels(model: OpenModel, dataset: Dataset, split: Split) -> np.ndarray | None:
    if not set(dataset.classes) & set(model.labels):
        return None
    return match_classes(dataset, model)[split.labels]


def _notes(split: Split, count: int, measured: int, labelled: bool) -> tuple[str, ...]:
    notes = []
    if count < FEW:
        notes.append(f"only {count} pictures to calibrate with: ranges may be too narrow")
    if labelled and len(np.unique(split.labels)) == 1:
        notes.append("all calibration pictures are of one class: what others hold is not seen")
    if not labelled:
        notes.append(
            "none of its classes are the model's: the float network's answers stand in for labels"
        )
    if measured < FEW:
        notes.append(f"only {measured} pictures to measure on: a drop below 1 point is not seen")
    return tuple(notes)

"""From labelled images to a trained, measured model: `train`."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checkpoint import read_model_json, save_model
from ..data import Dataset, ScanReport, Split, open_dataset, scan, without_bad
from ..errors import DataError, MissingDependency, UsageError
from ..evaluate import Evaluation, choose_split, collect_logits, measure
from ..evaluate.metrics import log_softmax
from ..evaluate.model import Device, choose_device, open_model, torch_forward
from ..models import ModelSpec, parse_model_name
from ..networks import SCENE_NETWORKS
from ..preprocess import Preprocess, torchvision
from ..progress import say
from ..recipes import RECIPES, Overrides, Recipe, choose_recipe, override
from ..runtime.machine import inspect_machine
from .record import command_line, require_same, revision, versions

if TYPE_CHECKING:
    import torch

    from ..classify import Classifier
    from ..evaluate.scenes import SceneEvaluation
    from ..weights import Pretrained
    from .loop import Measure

_STEPS_PER_EPOCH = 8  # at least, on small sets: a smaller batch than the recipe's is taken
_SAMPLED = 64  # pictures looked at to tell whether they are smaller than the input


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run. `seconds` is the time spent learning, summed over interruptions."""

    run: Path
    model: str
    weights_sha256: str
    steps: int
    seconds: float
    report: Path
    evaluation: "Evaluation | SceneEvaluation"

    def to_json(self) -> dict[str, Any]:
        """A JSON object: the run and its metrics."""
        return {
            "run": str(self.run),
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "steps": self.steps,
            "seconds": round(self.seconds, 3),
            "report": str(self.report),
            **self.evaluation.to_json(),
        }

    def __str__(self) -> str:
        return f"{self.evaluation}\nreport: {self.report}"


def train(
    data: str,
    *,
    out: Path,
    model: str = "mobilenet_v2",
    width: float | None = None,
    size: int | None = None,
    weights: str = "imagenet",
    recipe: str | None = None,
    overrides: Overrides = Overrides(),  # noqa: B008 - frozen
    epochs: int | None = None,
    minutes: float | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    resize: int | None = None,
    val_fraction: float = 0.1,
    limit: int | None = None,
    seed: int = 0,
    threads: int | None = None,
    workers: int | None = None,
    device: Device = "auto",
) -> TrainResult:
    """Train a MobileNet on labelled images, from ImageNet weights or from scratch.

    A network's name decides the task: mobilenet_v2 names what a picture shows,
    ssdlite_mobilenet_v2 finds objects, lraspp_mobilenet_v2 their pixels, pose_mobilenet_v2 a
    figure's keypoints, blazeface faces with their landmarks; `mobilenet info` lists all.
    Ctrl-C, a crash or kill -9 lose at most half a minute: run the same command with --resume.
    Raises UsageError, DataError (pictures that cannot be read are named first), WeightsError,
    CheckpointError, TrainingError.

    Args:
        data: Dataset: a folder of class folders, a CSV or Parquet manifest, or fashion-mnist; for
            scenes COCO, VOC, YOLO, WIDER FACE or masks.
        out: Run folder to write: the model, metrics, report and TensorBoard events.
        model: Network: see `mobilenet info`.
        width: Width multiplier.
        size: Side of the square input in pixels, 32 or more.
        weights: imagenet, none (from scratch), a name of the catalogue, or a weights file.
        recipe: Training recipe; by default finetune, or the network's own from scratch.
        epochs: Budget: passes over the training pictures; by default the recipe's.
        minutes: Budget: time to learn in, instead of epochs; the final measurement comes after it.
        resume: Go on with the run in --out.
        skip_bad: Leave out the pictures that cannot be read.
        resize: Shorter side in pixels before the centre crop; by default 256/224 of the size, or
            the size itself where the pictures are smaller than that.
        val_fraction: Share of each class held out for validation where the data has no val split.
        limit: Use only so many pictures of every split.
        seed: Of everything random: the same seed gives the same run.
        threads: CPU threads of the network; by default all cores.
        workers: Threads that read pictures; by default one a core.
        device: Where to compute.
    """
    out = Path(out)
    if model in SCENE_NETWORKS:
        if recipe is not None or resize is not None:
            raise UsageError("--recipe and --resize are of classifiers")
        from .scenes import SceneOptions, train_scenes

        options = SceneOptions(
            width=width,
            size=size,
            weights=weights,
            overrides=overrides,
            epochs=epochs,
            minutes=minutes,
            resume=resume,
            skip_bad=skip_bad,
            val_fraction=val_fraction,
            limit=limit,
            seed=seed,
            threads=threads,
            workers=workers,
            device=device,
        )
        return train_scenes(data, out, model, options)
    check_options(epochs=epochs, minutes=minutes, resume=resume, out=out, threads=threads)
    require_torch()
    import torch

    from ..report import gather, write_report
    from .allocator import keep_freed_memory
    from .features import Interrupted
    from .loop import Settings, Trainer

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    workers = workers if workers is not None else min(os.cpu_count() or 1, 8)

    dataset, checked = _open_checked(
        data, seed=seed, val_fraction=val_fraction, limit=limit, workers=workers, skip_bad=skip_bad
    )
    named = parse_model_name(model)
    spec = replace(named.spec, width=width or named.spec.width, classes=len(dataset.classes))
    size = size or named.size or 224
    if size < 32:
        raise UsageError(f"size {size}: expected 32 pixels or more")
    pretrained = None if weights == "none" else _load(spec, weights, size)
    recipe_name = choose_recipe(recipe, model=spec.name, pretrained=pretrained is not None)
    settled = _settle(override(RECIPES[recipe_name], overrides), len(dataset.splits["train"]))
    if pretrained is None and any(phase.train != "all" for phase in settled.phases):
        raise UsageError(f"recipe {recipe_name!r} freezes blocks: it needs --weights, not none")
    if pretrained is not None:
        spec = pretrained.spec
    spec = replace(spec, dropout=settled.dropout)
    pre = _preprocess(dataset.splits["train"], pretrained, size=size, resize=resize)

    options = {
        "model": spec.to_dict(),
        "preprocess": pre.to_dict(),
        "weights": pretrained.sha256 if pretrained else "none",
        "recipe": asdict(settled),
        "epochs": epochs or settled.epochs,
        "minutes": minutes,
        "seed": seed,
        "data": _fingerprint(dataset),
    }
    fingerprint = hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
    torch.manual_seed(seed)
    trainer = Trainer(
        _module(spec, pretrained),
        dataset.splits["train"],
        pre,
        settled,
        Settings(
            epochs=epochs or settled.epochs,
            minutes=minutes,
            batch_size=settled.batch_size,
            seed=seed,
            workers=workers,
            device=choose_device(device),
        ),
        run=out,
        measure=_measure(dataset.splits["val"], pre, workers, choose_device(device)),
        fingerprint=fingerprint,
    )
    out.mkdir(parents=True, exist_ok=True)
    resumed = resume and trainer.resume()
    if resume and not resumed and (out / "model.json").exists():
        require_same(out, fingerprint)
        say(f"{out}: this run is finished")
    else:
        say(_headline(spec, dataset, pre, recipe_name, options))
        if resumed:
            say(f"resumed at step {trainer.position.step}")
        try:
            state = trainer.run()
        except Interrupted:
            say(f"stopped; the same command with --resume goes on ({out})")
            raise KeyboardInterrupt from None
        save_model(
            out,
            spec,
            state,
            preprocess=pre.to_dict(),
            labels=dataset.classes,
            provenance={
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command_line(out),
                "recipe": recipe_name,
                "fingerprint": fingerprint,
                "options": options,
                "data": {
                    "source": dataset.source,
                    "kind": dataset.kind,
                    "val_fraction": val_fraction,
                    "counts": checked.counts,
                },
                "weights": list(pretrained.notes) if pretrained else [],
                "steps": trainer.position.step,
                "seconds": round(trainer.seconds, 3),
                "threads": torch.get_num_threads(),
                "machine": asdict(inspect_machine()),
                "versions": versions(),
                "revision": revision(),
            },
        )
        say(f"learned for {trainer.seconds:.0f} s; measuring the saved model")
    evaluation = measure(
        open_model(out, threads=threads, device=device),
        dataset,
        choose_split(dataset, None),
        batch_size=32,
        workers=workers,
    )
    report = write_report(out, gather(evaluation, dataset, scan=checked, command=command_line(out)))
    trainer.store.clear()  # last: until here --resume repeats only what was not done
    contract = read_model_json(out)
    return TrainResult(
        run=out,
        model=spec.name,
        weights_sha256=contract["weights"]["sha256"],
        steps=contract["provenance"]["steps"],
        seconds=contract["provenance"]["seconds"],
        report=report,
        evaluation=evaluation,
    )


def check_options(
    *, epochs: int | None, minutes: float | None, resume: bool, out: Path, threads: int | None
) -> None:
    if epochs is not None and minutes is not None:
        raise UsageError("--epochs and --minutes are two budgets: give one")
    if epochs is not None and epochs < 1:
        raise UsageError(f"epochs {epochs}: expected at least 1")
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes {minutes}: expected more than 0")
    if threads is not None and threads < 1:
        raise UsageError(f"threads {threads}: expected at least 1")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: a file; --out is a folder")
    if not resume and any((out / name).exists() for name in ("model.json", "checkpoints")):
        raise UsageError(f"{out}: holds a run; go on with --resume, or choose another --out")


def require_torch() -> None:
    try:
        import safetensors
        import torch
    except ImportError:
        raise MissingDependency("torch", "train", "training") from None
    del safetensors, torch


def _open_checked(
    data: str,
    *,
    seed: int,
    val_fraction: float,
    limit: int | None,
    workers: int,
    skip_bad: bool,
) -> tuple[Dataset, ScanReport]:
    """The dataset, every picture of it looked at, and what was found."""
    dataset = open_dataset(data, seed=seed, val_fraction=val_fraction, limit=limit)
    checked = scan(dataset, workers=workers)
    if not skip_bad:
        checked.refuse_unreadable()
    for bad in checked.unreadable:
        say(f"left out: {bad.path}: {bad.reason}")
    dataset = without_bad(dataset, checked)
    if len(dataset.classes) < 2:
        raise DataError(f"{data}: {list(dataset.classes)} is all; there is nothing to tell apart")
    for name in ("train", "val"):
        if name not in dataset.splits or not len(dataset.splits[name]):
            raise DataError(
                f"{data}: no pictures to {'train on' if name == 'train' else 'validate with'}; "
                "give each class at least two, or a folder (or manifest split) of that name"
            )
    for note in dataset.notes:
        say(note)
    return dataset, checked


def _load(spec: ModelSpec, weights: str, size: int) -> "Pretrained":
    from ..weights import load_pretrained

    pretrained = load_pretrained(spec, weights, size=size)
    for note in pretrained.notes:
        say(f"weights: {note}")
    return pretrained


def _module(spec: ModelSpec, pretrained: "Pretrained | None") -> "Classifier":
    from ..models import create

    module = create(spec)
    if pretrained is not None:
        module.load_state_dict(pretrained.state, strict=not pretrained.fresh)
    return module


def _settle(recipe: Recipe, pictures: int) -> Recipe:
    """The recipe with a batch that gives a small set several steps an epoch."""
    if recipe.batch_size < 1 or not 1 <= recipe.accumulate <= recipe.batch_size:
        raise UsageError(
            f"batch_size {recipe.batch_size}, accumulate {recipe.accumulate}: expected at least 1 "
            "picture a step, and no more passes than pictures"
        )
    batch_size = max(min(recipe.batch_size, pictures // _STEPS_PER_EPOCH), min(pictures, 8))
    if batch_size < recipe.batch_size:
        say(f"batch {batch_size} instead of the recipe's {recipe.batch_size}: {pictures} pictures")
    return replace(recipe, batch_size=batch_size, accumulate=min(recipe.accumulate, batch_size))


def _preprocess(
    split: Split, pretrained: "Pretrained | None", *, size: int, resize: int | None
) -> Preprocess:
    """How pictures are cropped, with the mean and standard deviation of the weights."""
    if resize is not None and resize < size:
        raise UsageError(f"resize {resize}: expected at least the size, {size}")
    if resize is None:
        places = np.linspace(0, len(split) - 1, min(_SAMPLED, len(split))).astype(int)
        sides = [min(split.picture(int(place)).size) for place in places]
        resize = size if np.median(sides) < size else None
    pre = torchvision(size, resize=resize)
    if pretrained is None:
        return pre
    return replace(pre, mean=pretrained.preprocess.mean, std=pretrained.preprocess.std)


def _measure(split: Split, pre: Preprocess, workers: int, device: "torch.device") -> "Measure":
    """Validation: a function of (model, limit) that gives the mean loss and top-1."""

    from ..layers import folded

    def run(model: "Classifier", limit: int | None) -> tuple[float, float]:
        part = split
        if limit is not None and limit < len(split):  # evenly spaced, so every class has its share
            part = split.subset(np.linspace(0, len(split) - 1, limit).astype(int))
        logits, labels, _ = collect_logits(
            torch_forward(folded(model), device), part, pre, workers=workers
        )
        rows = np.arange(len(labels))
        loss = -log_softmax(logits)[rows, labels].mean()
        return float(loss), float((logits.argmax(axis=1) == labels).mean())

    return run


def _fingerprint(dataset: Dataset) -> str:
    """sha256 of the classes, and of every split's names and labels."""
    digest = hashlib.sha256(json.dumps(dataset.classes).encode())
    for name, split in sorted(dataset.splits.items()):
        digest.update(f"\0{name}\0".encode())
        for index, label in enumerate(split.labels.tolist()):
            digest.update(f"{split.name(index)}\0{label}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _headline(
    spec: ModelSpec, dataset: Dataset, pre: Preprocess, recipe: str, options: dict[str, Any]
) -> str:
    counts = ", ".join(f"{len(split)} {name}" for name, split in dataset.splits.items())
    minutes, epochs = options["minutes"], options["epochs"]
    budget = f"{epochs} epochs" if minutes is None else f"{minutes:g} minutes"
    return (
        f"{spec.name} {spec.width:g} at {pre.size} px on {dataset.source} ({dataset.kind}): "
        f"{len(dataset.classes)} classes, {counts} pictures; recipe {recipe}, {budget}"
    )

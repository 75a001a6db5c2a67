"""From labelled scenes to a trained, measured network: `train` for tasks on scenes."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..backbone import Backbone, load_backbone
from ..checkpoint import read_model_json, save_model
from ..detect import DetectorSpec
from ..errors import DataError, UsageError
from ..evaluate.model import Device, choose_device
from ..evaluate.scene_model import SceneModel, open_scene_model, torch_maps
from ..evaluate.scenes import measure_scenes
from ..layers import folded
from ..networks import SCENE_NETWORKS, SceneSpec, create_network, default_size, name_of, task_of
from ..preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from ..progress import say
from ..recipes import SCENE_RECIPES, Overrides, override_scenes
from ..runtime.machine import inspect_machine
from ..scenes import Scene, SceneData, open_scenes
from ..scenes.scan import readable
from ..segment import SegmenterSpec
from ..tasks import SCENE_TASKS, SceneTask, examples_of
from . import TrainResult, check_options, require_torch
from .allocator import keep_freed_memory
from .features import Interrupted
from .record import command_line, require_same, revision, versions
from .scene_loop import Measure, SceneSettings, SceneTrainer

if TYPE_CHECKING:
    from ..weights import Pretrained

_VALIDATED = 200  # pictures between epochs
_BATCH = 8


@dataclass(frozen=True, kw_only=True)
class SceneOptions:
    """See `train`."""

    width: float | None
    size: int | None
    weights: str
    overrides: Overrides
    epochs: int | None
    minutes: float | None
    resume: bool
    skip_bad: bool
    val_fraction: float
    limit: int | None
    seed: int
    threads: int | None
    workers: int | None
    device: Device


def train_scenes(data: str, out: Path, model: str, options: SceneOptions) -> TrainResult:
    """`train` for a network for scenes."""
    check_options(
        epochs=options.epochs,
        minutes=options.minutes,
        resume=options.resume,
        out=out,
        threads=options.threads,
    )
    require_torch()
    from ..report.scenes import write_scene_report

    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    named = SCENE_NETWORKS[model]
    task = SCENE_TASKS[task_of(named)]
    size = default_size(named) if options.size is None else options.size
    if size < 32:
        raise UsageError(f"size {size}: expected 32 pixels or more")
    if options.width is not None and not options.width > 0:
        raise UsageError(f"width {options.width:g}: expected more than 0")
    workers = options.workers if options.workers is not None else min(os.cpu_count() or 1, 8)
    found = _open(data, task, options, workers)
    pretrained, spec = _with_weights(task.spec_for(named, found, size), options, size)
    rules = task.rules(spec, found)
    recipe = override_scenes(SCENE_RECIPES[task.name], options.overrides)
    if pretrained is None:
        recipe = replace(recipe, frozen=None, backbone_rate=1.0)
    pre = Preprocess(
        size=size,
        resize_mode="stretch",
        mean=pretrained.preprocess.mean if pretrained else IMAGENET_MEAN,
        std=pretrained.preprocess.std if pretrained else IMAGENET_STD,
    )
    recorded = {
        "model": spec.to_dict(),
        "preprocess": pre.to_dict(),
        "weights": pretrained.sha256 if pretrained else "none",
        "recipe": asdict(recipe),
        "epochs": options.epochs or recipe.epochs,
        "minutes": options.minutes,
        "seed": options.seed,
        "data": _fingerprint(found),
    }
    fingerprint = hashlib.sha256(json.dumps(recorded, sort_keys=True).encode()).hexdigest()
    torch.manual_seed(options.seed)
    network = create_network(spec)
    if pretrained is not None:
        _load_backbone(network, spec, pretrained)
    device = choose_device(options.device)
    windowed = task.windowed(spec)
    examples = examples_of(found.splits["train"], windowed=windowed)
    if not examples:
        raise DataError(f"{data}: nothing to learn from in split train")
    shell = SceneModel(
        name=str(out),
        task=task,
        spec=spec,
        rules=rules,
        maps=lambda images: {},  # of the network as it stands, see `_measure`
        preprocess=pre,
        labels=task.labels(found),
        runtime="",
        provenance={},
    )
    trainer = SceneTrainer(
        network,
        examples,
        task,
        spec,
        rules,
        pre,
        recipe,
        SceneSettings(
            epochs=options.epochs or recipe.epochs,
            minutes=options.minutes,
            batch_size=recipe.batch_size,
            seed=options.seed,
            workers=workers,
            device=device,
        ),
        run=out,
        measure=_measure(shell, found, device, workers),
        fingerprint=fingerprint,
    )
    out.mkdir(parents=True, exist_ok=True)
    resumed = options.resume and trainer.resume()
    if options.resume and not resumed and (out / "model.json").exists():
        require_same(out, fingerprint)
        say(f"{out}: this run is finished")
    else:
        counts = ", ".join(f"{len(part)} {name}" for name, part in found.splits.items())
        budget = (
            f"{recorded['epochs']} epochs"
            if options.minutes is None
            else f"{options.minutes:g} minutes"
        )
        say(
            f"{model} at {size} px on {found.source} ({found.kind}): {len(found.classes)} classes, "
            f"{counts} pictures; {budget}"
        )
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
            labels=shell.labels,
            rules=rules,
            provenance={
                "made": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command_line(out),
                "name": model,
                "fingerprint": fingerprint,
                "options": recorded,
                "data": {
                    "source": found.source,
                    "kind": found.kind,
                    "val_fraction": options.val_fraction,
                    "counts": {name: len(part) for name, part in found.splits.items()},
                },
                "weights": list(pretrained.notes) if pretrained else [],
                "steps": trainer.position.step,
                "seconds": round(trainer.position.seconds, 3),
                "threads": torch.get_num_threads(),
                "machine": asdict(inspect_machine()),
                "versions": versions(),
                "revision": revision(),
            },
        )
        say(f"learned for {trainer.position.seconds:.0f} s; measuring the saved network")
    opened = open_scene_model(out, threads=options.threads, device=options.device)
    split = "test" if "test" in found.splits else "val"
    evaluation = measure_scenes(opened, found, split, batch_size=_BATCH, workers=workers)
    report = write_scene_report(out, opened, found, evaluation)
    trainer.store.clear()  # last: until here --resume repeats only what was not done
    contract = read_model_json(out)
    return TrainResult(
        run=out,
        model=name_of(spec),
        weights_sha256=contract["weights"]["sha256"],
        steps=contract["provenance"]["steps"],
        seconds=contract["provenance"]["seconds"],
        report=report,
        evaluation=evaluation,
    )


def _open(data: str, task: SceneTask, options: SceneOptions, workers: int) -> SceneData:
    """The dataset, every picture of it looked at."""
    found = open_scenes(
        data,
        task=task.name,  # pyright: ignore[reportArgumentType] - a task on scenes
        seed=options.seed,
        val_fraction=options.val_fraction,
        limit=options.limit,
        skip_bad=options.skip_bad,
    )
    found = readable(found, workers=workers, skip_bad=options.skip_bad)
    for note in found.notes:
        say(f"{data}: {note}")
    for name in ("train", "val"):
        if not found.splits.get(name):
            raise DataError(
                f"{data}: no pictures to {'train on' if name == 'train' else 'validate with'}; it "
                f"has {list(found.splits)}"
            )
    return found


def _with_weights(
    spec: SceneSpec, options: SceneOptions, size: int
) -> "tuple[Pretrained | None, SceneSpec]":
    """The backbone's weights, and the network with their padding, epsilon and width rule."""
    from ..weights import load_pretrained

    if spec.backbone is None:
        if options.width is not None or options.weights not in ("none", "imagenet"):
            raise UsageError(
                f"--width, --weights FILE: {name_of(spec)} has no backbone to take them"
            )
        say(f"weights: there are none for {name_of(spec)}; it begins at random")
        return None, spec
    backbone = replace(spec.backbone, width=options.width or spec.backbone.width)
    if options.weights == "none":
        return None, replace(spec, backbone=backbone)
    pretrained = load_pretrained(replace(backbone, output_stride=32), options.weights, size=size)
    for note in pretrained.notes:
        say(f"weights: {note}")
    theirs = replace(pretrained.spec, output_stride=backbone.output_stride)
    return pretrained, replace(spec, backbone=theirs)


def _load_backbone(network: torch.nn.Module, spec: SceneSpec, pretrained: "Pretrained") -> None:
    backbone = network.get_submodule("backbone")
    assert isinstance(backbone, Backbone)
    fewer = (isinstance(spec, DetectorSpec) and spec.reduced_tail) or (
        isinstance(spec, SegmenterSpec) and spec.halved
    )
    left = load_backbone(backbone, pretrained.state, halved=fewer)
    if left:
        say(f"weights: {len(left)} tensors of the reduced tail begin at random")


def _measure(shell: SceneModel, found: SceneData, device: torch.device, workers: int) -> Measure:
    """Validation between epochs, on some pictures spread evenly over the split."""
    scenes = found.splits["val"]
    chosen = _spread(scenes, _VALIDATED)
    part = replace(found, splits={"val": chosen})

    def run(network: torch.nn.Module) -> tuple[str, float]:
        model = replace(shell, maps=torch_maps(folded(network), device))
        scores = measure_scenes(
            model, part, "val", batch_size=_BATCH, workers=workers, resamples=0
        ).scores
        return scores.primary, scores.value

    return run


def _spread(scenes: Sequence[Scene], most: int) -> tuple[Scene, ...]:
    step = max(len(scenes) / most, 1.0)
    return tuple(scenes[int(place * step)] for place in range(min(most, len(scenes))))


def _fingerprint(found: SceneData) -> str:
    """sha256 of the classes and keypoints, and of all that every split's scenes are labelled with
    (of masks their names)."""
    digest = hashlib.sha256(json.dumps([found.classes, found.keypoints]).encode())
    root = Path(found.source)
    for name, scenes in sorted(found.splits.items()):
        digest.update(f"\0{name}\0".encode())
        for scene in scenes:
            path = scene.image
            inner = path.relative_to(root) if path.is_relative_to(root) else path.name
            digest.update(f"{inner}\0".encode("utf-8", "surrogateescape"))
            digest.update(scene.boxes.tobytes())
            digest.update(scene.labels.tobytes())
            digest.update(scene.crowd.tobytes())
            if scene.keypoints is not None:
                digest.update(scene.keypoints.tobytes())
            for segment in scene.segments or ():
                digest.update(repr(segment).encode())
    return digest.hexdigest()

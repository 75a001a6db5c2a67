"""Opening labelled scenes: which format they are in, and how they are split."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..data.splits import SPLITS, choose, hold_out
from ..errors import DataError, UsageError
from .coco import is_coco, list_coco
from .faces import only_faces
from .marks import Defects, Found
from .masks import is_masks, list_masks
from .scene import Scene, SceneData
from .voc import list_voc, voc_root
from .wider import is_wider, list_wider
from .yolo import is_yolo, list_yolo

Task = Literal["detect", "segment", "keypoints", "faces"]

TASKS: tuple[Task, ...] = ("detect", "segment", "keypoints", "faces")
_EXPECTED = (
    "expected COCO (annotations/instances_train.json, or train/_annotations.coco.json), Pascal VOC "
    "(JPEGImages, Annotations), YOLO (data.yaml, or images, labels and classes.txt), WIDER FACE "
    "(wider_face_split, or train/label.txt), or images, masks and classes.txt"
)


def open_scenes(
    source: str | Path,
    *,
    task: Task = "detect",
    seed: int = 0,
    val_fraction: float = 0.1,
    limit: int | None = None,
    skip_bad: bool = False,
) -> SceneData:
    """Find out what format the scenes in `source` have, and list and split them.

    Headers of pictures are read, to check their sizes. `task` chooses among the files of a
    dataset that has several (COCO's instances or person_keypoints, VOC's Main or Segmentation), and
    what each scene must have: "segment" a mask or segments, "keypoints" named keypoints. "faces"
    keeps the class of faces with the landmarks that are labelled anywhere, if any. Without a val
    split, `val_fraction` of train is held out by a hash of (seed, file name). `limit` keeps so
    many pictures of every split. `skip_bad` leaves out what is wrong, and says so in the notes.
    Raises DataError where there are no scenes, and for defects: the first ten with file and line.
    """
    if task not in TASKS:
        raise UsageError(f"task {task!r}: expected one of {TASKS}")
    if not 0 <= val_fraction < 1:
        raise UsageError(f"val_fraction {val_fraction}: expected a share from 0 to below 1")
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit}: expected at least one picture")
    path = Path(source).expanduser()
    defects = Defects(str(source))
    found = list_scenes(path, defects, task)
    if not found.classes:
        raise DataError(f"{source}: {found.kind} without a class; label at least one object")
    settled = defects.settle(skip_bad=skip_bad)
    if task == "faces":
        found = only_faces(found, str(source))
    notes = [*found.notes, *settled]
    _check_task(found, source, task)
    splits = _finish(found, path, seed, val_fraction, limit, notes)
    return SceneData(
        kind=found.kind,
        source=str(source),
        classes=found.classes,
        splits=splits,
        keypoints=found.keypoints,
        skeleton=found.skeleton,
        flipped=found.flipped,
        notes=tuple(notes),
    )


def list_scenes(path: Path, defects: Defects, task: Task) -> Found:
    """What the files say, of whichever format they are; what is wrong goes to `defects`.

    Raises DataError where there are no scenes.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; {_EXPECTED}")
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".json":
            return list_coco(path, defects, task=task)
        if suffix in (".yaml", ".yml"):
            return list_yolo(path, defects, task=task)
        raise DataError(f"{path}: not a file of labels that is known; {_EXPECTED}")
    voc = voc_root(path)
    if voc is not None:
        return list_voc(voc, defects, task=task)
    if is_coco(path):
        return list_coco(path, defects, task=task)
    if is_wider(path):
        return list_wider(path, defects)
    if is_yolo(path):
        return list_yolo(path, defects, task=task)
    if is_masks(path):
        return list_masks(path, defects)
    raise DataError(f"{path}: no labelled scenes; {_EXPECTED}")


def is_scenes(source: str) -> bool:
    """Whether a path looks like labelled scenes, not like a classifier's dataset."""
    path = Path(source).expanduser()
    if path.is_file():
        return path.suffix.lower() in (".json", ".yaml", ".yml")
    kinds = (voc_root, is_coco, is_wider, is_yolo, is_masks)
    return path.is_dir() and any(bool(kind(path)) for kind in kinds)


def _check_task(found: Found, source: str | Path, task: Task) -> None:
    scenes = [scene for part in found.splits.values() for scene in part]
    if not scenes:
        raise DataError(f"{source}: {found.kind} without a picture; {_EXPECTED}")
    marked = any(len(scene.boxes) for scene in scenes)
    if task == "keypoints" and not found.keypoints:
        raise DataError(f"{source}: {found.kind} without keypoints; name them, or detect instead")
    if task == "segment":
        if not any(scene.mask is not None or scene.segments is not None for scene in scenes):
            raise DataError(f"{source}: {found.kind} without masks or polygons; detect instead")
    elif not marked:
        raise DataError(f"{source}: {found.kind} without a single box; segment instead")


def _finish(
    found: Found,
    path: Path,
    seed: int,
    val_fraction: float,
    limit: int | None,
    notes: list[str],
) -> dict[str, Sequence[Scene]]:
    """Hold out val where there is none, then keep no more than `limit` of each split."""
    parts = {"train" if name == "all" else name: part for name, part in found.splits.items()}
    if "val" not in parts and parts.get("train") and val_fraction:
        train = parts["train"]
        nothing = np.zeros(len(train), np.int64)
        kept, held = hold_out(nothing, _keys(train, path), fraction=val_fraction, seed=seed)
        if len(held):
            notes.append(f"val: {len(held)} of {len(train)} pictures, held out of train")
            parts["train"] = [train[at] for at in kept]
            parts["val"] = [train[at] for at in held]
    splits: dict[str, Sequence[Scene]] = {}
    for name in SPLITS:
        scenes = parts.get(name)
        if scenes is None:
            continue
        if not scenes:
            raise DataError(f"{path}: no picture of split {name} is left; {_EXPECTED}")
        if limit is not None and limit < len(scenes):
            notes.append(f"{name}: limited to {limit} of {len(scenes)} pictures")
            nothing = np.zeros(len(scenes), np.int64)
            rows = choose(nothing, _keys(scenes, path), limit=limit, seed=seed)
            scenes = [scenes[at] for at in rows]
        splits[name] = tuple(scenes)
    return splits


def _keys(scenes: Sequence[Scene], path: Path) -> list[str]:
    """Names within the dataset, the same wherever that is copied to."""
    root = path if path.is_dir() else path.parent
    return [
        s.image.relative_to(root).as_posix() if s.image.is_relative_to(root) else s.image.name
        for s in scenes
    ]

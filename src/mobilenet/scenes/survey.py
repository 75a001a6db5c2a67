"""What a dataset of labelled scenes holds, and what is wrong with it, without training on it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.scan import Unreadable
from ..errors import DataError
from .marks import Defects
from .opening import TASKS, Task, list_scenes, open_scenes
from .scan import Copies, look
from .scene import SceneData

SMALL, LARGE = 32.0**2, 96.0**2  # px², COCO's bounds
FEW = 20  # objects of a class in train
_TINY = 8.0  # pixels of an object's shorter side


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a dataset of scenes holds, by split. `objects`: by split and class, crowds apart.
    `sizes`: objects below 32², up to 96² and above px². `tasks`: what it can be trained for.
    `defects`: what is wrong in its files, each with file and line; what they are in is left out of
    the counts."""

    source: str
    kind: str
    classes: tuple[str, ...]
    keypoints: tuple[str, ...]
    tasks: tuple[str, ...]
    pictures: Mapping[str, int]
    empty: Mapping[str, int]
    objects: Mapping[str, Mapping[str, int]]
    crowds: int
    sizes: Mapping[str, int]
    tiny: int
    defects: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    copies: tuple[Copies, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing in it is broken."""
        return not self.defects and not self.unreadable


def survey(source: str, *, seed: int, val_fraction: float, workers: int) -> Survey:
    """Read every label and every picture. Raises DataError where there are no scenes at all."""
    defects = Defects(source)
    list_scenes(Path(source).expanduser(), defects, "detect")
    opened: dict[Task, SceneData] = {}
    reasons = []
    for task in TASKS:
        try:
            opened[task] = open_scenes(
                source, task=task, seed=seed, val_fraction=val_fraction, skip_bad=True
            )
        except DataError as error:
            reasons.append(error)
    if not opened:
        raise reasons[0]
    data = next(iter(opened.values()))
    looked = look(data, workers=workers)
    scenes = [scene for part in data.splits.values() for scene in part]
    areas = np.concatenate([np.zeros(0), *(scene.areas[~scene.crowd] for scene in scenes)])
    sides = [(s.boxes[:, 2:] - s.boxes[:, :2]).min(1)[~s.crowd] for s in scenes if len(s.boxes)]
    return Survey(
        source=source,
        kind=data.kind,
        classes=data.classes,
        keypoints=data.keypoints or next((d.keypoints for d in opened.values() if d.keypoints), ()),
        tasks=tuple(opened),
        pictures={name: len(part) for name, part in data.splits.items()},
        empty={
            name: sum(not len(scene.boxes) and scene.mask is None for scene in part)
            for name, part in data.splits.items()
        },
        objects={name: _by_class(data, name) for name in data.splits},
        crowds=sum(int(scene.crowd.sum()) for scene in scenes),
        sizes={
            "small": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas <= LARGE)).sum()),
            "large": int((areas > LARGE).sum()),
        },
        tiny=int((np.concatenate([np.zeros(0), *sides][1:] or [np.zeros(0)]) < _TINY).sum()),
        defects=tuple(defects.listed),
        unreadable=looked.unreadable,
        copies=looked.copies,
        notes=tuple(note for note in data.notes if not note.startswith("left out for")),
    )


def _by_class(data: SceneData, split: str) -> dict[str, int]:
    found: Counter[int] = Counter()
    for scene in data.splits[split]:
        found.update(scene.labels[~scene.crowd].tolist())
    return {name: found[index] for index, name in enumerate(data.classes)}


def advise(found: Survey) -> Iterator[str]:
    """What to do about what was found, most important first."""
    if found.defects:
        yield f"defects in the labels: {len(found.defects)}; mend them, or train with --skip-bad"
    if found.unreadable:
        yield (
            f"unreadable pictures: {len(found.unreadable)}; mend or remove them, or train with "
            "--skip-bad"
        )
    if found.copies:
        yield (
            f"pictures in several splits: {len(found.copies)}; remove the copies, or what is "
            "measured is too good"
        )
    train = found.objects.get("train", {})
    few = [f"{name} ({count})" for name, count in train.items() if count < FEW]
    if few and any(train.values()):
        more = f" and {len(few) - 10} more" if len(few) > 10 else ""
        yield f"fewer than {FEW} objects in train: {', '.join(few[:10])}{more}"
    total = sum(found.sizes.values())
    if total and found.tiny > 0.05 * total:
        yield (
            f"objects narrower than {_TINY:g} pixels: {found.tiny} of {total}; few networks find "
            "them: cut pictures into tiles, or label fewer"
        )


def lines_of(found: Survey) -> list[str]:
    """What was found, for people."""
    objects = {name: sum(counts.values()) for name, counts in found.objects.items()}
    total = max(sum(found.sizes.values()), 1)
    shares = ", ".join(f"{name} {100 * n / total:.0f} %" for name, n in found.sizes.items())
    lines = [
        f"{found.source}: {found.kind}, {sum(found.pictures.values())} pictures, "
        f"{len(found.classes)} classes",
        f"serves    {', '.join(found.tasks)}",
        "splits    "
        + ", ".join(
            f"{name} {count} pictures with {objects[name]} objects"
            + (f", {found.empty[name]} without any" if found.empty[name] else "")
            for name, count in found.pictures.items()
        ),
        *(f"          {note}" for note in found.notes),
        f"objects   {shares}" + (f"; {found.crowds} crowds" if found.crowds else ""),
    ]
    if found.keypoints:
        lines.append(f"keypoints {', '.join(found.keypoints)}")
    heads = list(found.objects)
    for label in found.classes:
        counts = ", ".join(f"{split} {found.objects[split][label]}" for split in heads)
        lines.append(f"          {label}: {counts}")
    return lines

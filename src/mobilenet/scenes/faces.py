"""The faces of a dataset, without what else is labelled in it."""

from dataclasses import replace

import numpy as np

from ..errors import DataError
from .marks import Found
from .scene import Scene


def only_faces(found: Found, source: str) -> Found:
    """The one class that is called face, or whose name has it, with the keypoints that are labelled
    on any of its faces. Raises DataError where no class or several are."""
    label = _label(found.classes, source)
    scenes = {
        split: [_chosen(scene, label) for scene in part] for split, part in found.splits.items()
    }
    labelled = np.zeros(len(found.keypoints), bool)
    for scene in (scene for part in scenes.values() for scene in part):
        if scene.keypoints is not None:
            labelled |= (scene.keypoints[..., 2] > 0).any(0)
    kept = np.flatnonzero(labelled).tolist()
    place = {old: new for new, old in enumerate(kept)}
    flipped = [place.get(found.flipped[old], place[old]) for old in kept] if found.flipped else []
    lines = [line for line in found.skeleton if labelled[list(line)].all()]
    note = f"of {len(found.classes)} classes only {found.classes[label]}"
    return replace(
        found,
        classes=(found.classes[label],),
        splits={split: [_pointed(scene, kept) for scene in part] for split, part in scenes.items()},
        keypoints=tuple(found.keypoints[old] for old in kept),
        skeleton=tuple((place[start], place[end]) for start, end in lines),
        flipped=tuple(flipped),
        notes=(*found.notes, *([note] if len(found.classes) > 1 else [])),
    )


def _label(classes: tuple[str, ...], source: str) -> int:
    for called in (lambda name: name == "face", lambda name: "face" in name):
        labels = [label for label, name in enumerate(classes) if called(name.lower())]
        if len(labels) == 1:
            return labels[0]
    raise DataError(
        f"{source}: its classes are {list(classes)}; to find faces, call exactly one of them face"
    )


def _chosen(scene: Scene, label: int) -> Scene:
    """With the objects of this class only, which becomes class 0."""
    own = np.flatnonzero(scene.labels == label)
    segments = scene.segments
    return replace(
        scene,
        boxes=scene.boxes[own],
        labels=np.zeros(len(own), np.int64),
        crowd=scene.crowd[own],
        areas=scene.areas[own],
        keypoints=None if scene.keypoints is None else scene.keypoints[own],
        segments=None if segments is None else tuple(segments[index] for index in own),
        mask=None,
    )


def _pointed(scene: Scene, kept: list[int]) -> Scene:
    """With these of its keypoints only."""
    points = scene.keypoints
    return replace(scene, keypoints=points[:, kept] if points is not None and kept else None)

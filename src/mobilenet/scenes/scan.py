"""Looking at every picture of labelled scenes before any is trained on."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace

from ..data.reader import in_order
from ..data.scan import Unreadable
from ..errors import DataError
from ..preprocess import ImageError, decode, read_file
from ..progress import track
from .scene import Scene, SceneData

_LISTED = 10
_AHEAD = 8  # pictures a thread


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Files with the same bytes that are in several splits: (path, split) of each."""

    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What reading every picture has found. `repeated`: further copies of a picture in its own
    split."""

    unreadable: tuple[Unreadable, ...]
    copies: tuple[Copies, ...]
    repeated: int


def look(data: SceneData, *, workers: int) -> Looked:
    """Read, hash and decode every picture of every split, by `workers` threads."""
    unreadable: list[Unreadable] = []
    same: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for name, scenes in data.splits.items():
        looks = in_order(_look, scenes, workers=workers, ahead=_AHEAD * max(workers, 1))
        shown = track(looks, total=len(scenes), desc=f"checking {name}")
        for index, (scene, found) in enumerate(zip(scenes, shown, strict=True)):
            path = str(scene.image)
            if isinstance(found, bytes):
                same[found].append((path, name))
            else:
                unreadable.append(Unreadable(path=path, split=name, index=index, reason=found))
    several = [tuple(dict.fromkeys(files)) for files in same.values()]
    return Looked(
        unreadable=tuple(unreadable),
        copies=tuple(Copies(files=files) for files in several if len({s for _, s in files}) > 1),
        repeated=sum(len(files) - len({split for _, split in files}) for files in several),
    )


def _look(scene: Scene) -> bytes | str:
    """The sha256 of its bytes, or why it cannot be decoded."""
    try:
        content = read_file(scene.image)
        decode(content, name=str(scene.image))
    except ImageError as error:
        return error.reason
    return hashlib.sha256(content).digest()


def readable(data: SceneData, *, workers: int, skip_bad: bool) -> SceneData:
    """The scenes whose pictures can be decoded; those that are left out are named in the notes.

    Raises DataError naming the pictures that cannot be, unless they are to be skipped, and for a
    split of which nothing is left.
    """
    bad = look(data, workers=workers).unreadable
    if not bad:
        return data
    text = "\n".join(f"  {one.path}: {one.reason}" for one in bad[:_LISTED])
    text += f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    if not skip_bad:
        raise DataError(
            f"{data.source}: {len(bad)} pictures cannot be read; mend or remove them, or leave "
            f"them out with --skip-bad\n{text}"
        )
    lost = {(one.split, one.index) for one in bad}
    splits = {
        name: tuple(scene for at, scene in enumerate(scenes) if (name, at) not in lost)
        for name, scenes in data.splits.items()
    }
    for name, scenes in splits.items():
        if not scenes:
            raise DataError(f"{data.source}: none of the pictures of split {name} can be read")
    note = f"left out, {len(bad)} pictures that cannot be read:\n{text}"
    return replace(data, splits=splits, notes=(*data.notes, note))

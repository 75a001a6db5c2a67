"""The verb `compose`: cut-outs on photographs to labelled scenes on disk."""

import hashlib
import json
import secrets
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from ..data.splits import SPLITS, hold_out
from ..errors import DataError, UsageError
from ..preprocess import read_file
from ..progress import track
from ..scenes.draw import PALETTE
from ..scenes.marks import mirrored_names
from ..scenes.segments import runs_of, to_text
from .backgrounds import crop_background, find_backgrounds
from .cutouts import Cutout, Shelf, find_cutouts
from .figures import FACE_POINTS, PERSON_POINTS, PERSON_SKELETON, face, person
from .paste import Look, Pasted, box_of, paste_scene

T = TypeVar("T")

_QUALITY = 92  # of the JPEG files


@dataclass(frozen=True, kw_only=True)
class Composed:
    """What was composed. `pictures`, `objects`: how many, by split. `cutouts`: distinct objects by
    class and split; none is in two splits. `backgrounds`: photographs by split, likewise.
    `notes`: what was left out."""

    path: Path
    classes: tuple[str, ...]
    pictures: dict[str, int]
    objects: dict[str, int]
    cutouts: dict[str, dict[str, int]]
    backgrounds: dict[str, int]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object of every field."""
        return {**asdict(self), "path": str(self.path)}

    def __str__(self) -> str:
        """A few lines for people."""
        splits = ", ".join(f"{count} {name}" for name, count in self.pictures.items())
        lines = [f"{self.path}: {splits} pictures, {sum(self.objects.values())} objects"]
        lines += [
            f"  {name}: cut-outs {', '.join(f'{n} {split}' for split, n in counts.items())}"
            for name, counts in self.cutouts.items()
        ]
        return "\n".join([*lines, *self.notes])


def compose(
    cutouts: Path | None = None,
    *,
    out: Path,
    backgrounds: Path | None = None,
    classes: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    pictures: int = 1000,
    size: int = 320,
    objects: tuple[int, int] = (1, 6),
    figures: int = 0,
    faces: int = 0,
    held_out: float = 0.2,
    seed: int = 0,
    skip_bad: bool = False,
) -> Composed:
    """Compose labelled scenes of cut-outs pasted on photographs: COCO JSON, PNG masks, pictures.

    Objects and backgrounds of val and test are in no other split. Equal arguments write equal
    bytes; the folder appears once all is written. Raises DataError for cut-outs that cannot be
    used, UsageError for options that cannot work.

    Args:
        cutouts: Folder of class folders, nested or not, of pictures with alpha. Points named in its
            landmarks.json or landmarks.csv become keypoints.
        out: Folder to write, which is not there yet.
        backgrounds: Folder of photographs; without it those of scikit-image and scikit-learn.
        classes: One of its folders, or several put together: NAME=FOLDER,FOLDER. Without it all.
        without: A folder to leave out, at any depth.
        pictures: Of train; val and test have held_out as many each.
        size: Pixels of a picture's side.
        objects: How many a picture has, the least and the most.
        figures: So many drawn people, with COCO's seventeen keypoints.
        faces: So many drawn faces, with six landmarks.
        held_out: Part of each class's objects, and of the backgrounds, for val, and for test.
        seed: Of all that is random.
        skip_bad: Leave out cut-outs that are damaged or have no alpha.
    """
    _check(cutouts, pictures, size, objects, figures, faces, held_out)
    target = Path(out).expanduser()
    if target.exists():
        raise UsageError(f"out {out}: is there already; remove it, or choose another folder")
    shelf = Shelf(classes=(), cutouts=(), points=(), skeletons=())
    if cutouts is not None:
        shelf = find_cutouts(Path(cutouts).expanduser(), classes, without, skip_bad=skip_bad)
    shelf = _with_drawn(shelf, figures, faces, seed)
    photographs = find_backgrounds(None if backgrounds is None else Path(backgrounds).expanduser())
    parts = _split_cutouts(shelf, held_out, seed)
    behind = _split_backgrounds(photographs, held_out, seed)
    counts = {"train": pictures, **dict.fromkeys(SPLITS[1:], max(round(pictures * held_out), 1))}
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".{target.name}.{secrets.token_hex(4)}.mobilenet-tmp"
    marked: dict[str, int] = {}
    try:
        for number, split in enumerate(SPLITS):
            writer = _Writer(aside, split, shelf)
            scenes = _scenes(shelf, parts[split], behind[split], counts[split], size, objects,
                             [seed, number])  # fmt: skip
            for picture, pasted in track(scenes, total=counts[split], desc=f"{split} scenes"):
                writer.add(picture, pasted)
            marked[split] = writer.finish()
        composed = Composed(
            path=target,
            classes=shelf.classes,
            pictures=counts,
            objects=marked,
            cutouts=_tally(shelf, parts),
            backgrounds={split: len(paths) for split, paths in behind.items()},
            notes=shelf.notes,
        )
        _write_facts(aside, composed, parts, behind, size, objects, seed)
        aside.rename(target)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return composed


class _Writer:
    """One split's pictures, masks and annotations."""

    def __init__(self, root: Path, split: str, shelf: Shelf) -> None:
        self.split, self.shelf, self.root = split, shelf, root
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        for part in ("images", "masks"):
            (root / part / split).mkdir(parents=True)

    def add(self, picture: np.ndarray, pasted: Sequence[Pasted]) -> None:
        height, width = picture.shape[:2]
        key = len(self.images) + 1
        name = f"{key:06}"
        path = self.root / "images" / self.split / f"{name}.jpg"
        Image.fromarray(picture).save(path, quality=_QUALITY, subsampling=0)
        record = {"id": key, "file_name": f"{name}.jpg", "width": width, "height": height}
        self.images.append(record)
        mask = np.zeros((height, width), np.uint8)
        for one in pasted:
            mask[one.mask] = one.cutout.label + 1
            self.annotations.append(self._annotation(one, key))
        drawn = Image.fromarray(mask, mode=None)
        drawn.putpalette(PALETTE.tobytes())
        drawn.save(self.root / "masks" / self.split / f"{name}.png")

    def finish(self) -> int:
        """Write the annotations; how many objects there are."""
        categories: list[dict[str, Any]] = []
        for label, name in enumerate(self.shelf.classes):
            category: dict[str, Any] = {"id": label + 1, "name": name, "supercategory": "object"}
            if self.shelf.points[label]:
                category["keypoints"] = list(self.shelf.points[label])
                lines = self.shelf.skeletons[label]
                category["skeleton"] = [[start + 1, end + 1] for start, end in lines]
            categories.append(category)
        content = {
            "info": {"description": "scenes composed by mobilenet"},
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        path = self.root / "annotations" / f"instances_{self.split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, separators=(",", ":")) + "\n")
        return len(self.annotations)

    def _annotation(self, one: Pasted, image: int) -> dict[str, Any]:
        x0, y0, x1, y1 = box_of(one.mask)
        runs = runs_of(one.mask)
        record: dict[str, Any] = {
            "id": len(self.annotations) + 1,
            "image_id": image,
            "category_id": one.cutout.label + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": int(one.mask.sum()),
            "iscrowd": 0,
            "segmentation": {"size": [runs.height, runs.width], "counts": to_text(runs)},
        }
        if self.shelf.points[one.cutout.label]:
            rows = [[round(float(x), 2), round(float(y), 2), int(v)] for x, y, v in one.points]
            record["keypoints"] = [value for row in rows for value in row]
            record["num_keypoints"] = sum(row[2] > 0 for row in rows)
        return record


def _check(
    cutouts: str | Path | None,
    pictures: int,
    size: int,
    objects: tuple[int, int],
    figures: int,
    faces: int,
    held_out: float,
) -> None:
    if cutouts is None and not figures and not faces:
        raise UsageError("nothing to paste: pass a folder of cut-outs, figures or faces")
    if pictures < 1:
        raise UsageError(f"pictures {pictures}: expected at least one")
    if not 64 <= size <= 2048:
        raise UsageError(f"size {size}: expected 64 to 2048 pixels")
    if not 1 <= objects[0] <= objects[1] <= 100:
        raise UsageError(f"objects {objects}: expected the least and the most, from 1 to 100")
    if not 0 < held_out <= 0.4:
        raise UsageError(f"held_out {held_out}: expected a share above 0, at most 0.4")
    for name, count in (("figures", figures), ("faces", faces)):
        if count and count < 3:
            raise UsageError(f"{name} {count}: expected none, or 3 for the three splits, or more")


def _with_drawn(shelf: Shelf, figures: int, faces: int, seed: int) -> Shelf:
    kinds = (
        ("person", figures, person, PERSON_POINTS, PERSON_SKELETON),
        ("face", faces, face, FACE_POINTS, ()),
    )
    for name, count, draw, points, skeleton in kinds:
        if not count:
            continue
        if name in shelf.classes:
            raise UsageError(f"class {name!r}: drawn and cut out; rename the folder's class")
        label = len(shelf.classes)
        drawn = tuple(draw(index, seed, label) for index in range(count))
        shelf = replace(
            shelf,
            classes=(*shelf.classes, name),
            cutouts=(*shelf.cutouts, *drawn),
            points=(*shelf.points, points),
            skeletons=(*shelf.skeletons, tuple(skeleton)),
        )
    return shelf


def _split_cutouts(shelf: Shelf, held_out: float, seed: int) -> dict[str, list[Cutout]]:
    """Each object in one split; at least one of each class in every split."""
    groups: dict[tuple[int, str], list[Cutout]] = defaultdict(list)
    for cutout in shelf.cutouts:
        groups[cutout.label, cutout.group].append(cutout)
    labels = np.array([label for label, _ in groups], np.int64)
    for label, name in enumerate(shelf.classes):
        count = int((labels == label).sum())
        if count < 3:
            raise DataError(
                f"class {name}: {count} objects that differ; expected 3 or more, for train, val "
                "and test each its own"
            )
    members = list(groups.values())
    keys = [f"{label}/{group}" for label, group in groups]
    return _three_ways(members, labels, keys, held_out, seed)


def _split_backgrounds(paths: list[Path], held_out: float, seed: int) -> dict[str, list[Path]]:
    """Each photograph in one split, with its copies."""
    copies: dict[bytes, list[Path]] = defaultdict(list)
    for path in paths:
        copies[hashlib.blake2b(read_file(path), digest_size=16).digest()].append(path)
    members = list(copies.values())
    if len(members) < 3:
        raise DataError(
            f"{paths[0].parent}: {len(members)} backgrounds that differ; expected 3 or more"
        )
    names = [same[0].name for same in members]
    return _three_ways(members, np.zeros(len(members), np.int64), names, held_out, seed)


def _three_ways(
    members: list[list[T]], labels: np.ndarray, keys: list[str], held_out: float, seed: int
) -> dict[str, list[T]]:
    rest, test = hold_out(labels, keys, fraction=held_out, seed=seed)
    kept, val = hold_out(
        labels[rest], [keys[at] for at in rest], fraction=held_out / (1 - held_out), seed=seed
    )
    chosen = {"train": rest[kept], "val": rest[val], "test": test}
    return {split: [one for at in rows for one in members[at]] for split, rows in chosen.items()}


def _scenes(
    shelf: Shelf,
    cutouts: Sequence[Cutout],
    backgrounds: Sequence[Path],
    count: int,
    size: int,
    objects: tuple[int, int],
    seeds: list[int],
) -> Iterator[tuple[np.ndarray, list[Pasted]]]:
    by_class = [[one for one in cutouts if one.label == at] for at in range(len(shelf.classes))]
    flips = [mirrored_names(names) for names in shelf.points]
    look = Look()
    for index in range(count):
        rng = np.random.default_rng([*seeds, index])
        background = crop_background(backgrounds[int(rng.integers(len(backgrounds)))], size, rng)
        chosen: list[Cutout] = []
        for _ in range(int(rng.integers(objects[0], objects[1] + 1))):
            own = by_class[int(rng.integers(len(by_class)))]
            chosen.append(own[int(rng.integers(len(own)))])
        yield paste_scene(background, chosen, flips, look, rng)


def _tally(shelf: Shelf, parts: dict[str, list[Cutout]]) -> dict[str, dict[str, int]]:
    return {
        name: {
            split: len({one.group for one in part if one.label == label})
            for split, part in parts.items()
        }
        for label, name in enumerate(shelf.classes)
    }


def _write_facts(
    root: Path,
    composed: Composed,
    parts: dict[str, list[Cutout]],
    behind: dict[str, list[Path]],
    size: int,
    objects: tuple[int, int],
    seed: int,
) -> None:
    (root / "classes.txt").write_text("\n".join(composed.classes) + "\n")
    facts = {key: value for key, value in asdict(composed).items() if key not in ("path", "notes")}
    facts |= {
        "size": size,
        "objects_per_picture": list(objects),
        "seed": seed,
        "cutouts_of": {split: [one.name for one in part] for split, part in parts.items()},
        "backgrounds_of": {split: [path.name for path in part] for split, part in behind.items()},
    }
    (root / "compose.json").write_text(json.dumps(facts, indent=1) + "\n")

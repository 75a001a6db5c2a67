"""Pascal VOC: JPEGImages, Annotations, ImageSets, and SegmentationClass with 255 void.

Boxes are VOC's, pixels counted from 1 with both ends inside: xmin 1, xmax 10 is 0 to 10 here.
"""

from pathlib import Path
from xml.etree import ElementTree

from ..data.folders import PICTURES
from ..data.listing import sort_naturally
from ..errors import DataError
from ..preprocess import ImageError
from ..progress import track
from .marks import Defects, Found, Mark, build, check_size, read_text
from .scene import Scene, check_mask

# In the order of the indices in SegmentationClass
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_SETS = {"detect": "Main", "segment": "Segmentation", "keypoints": "Main", "faces": "Main"}
_LISTS = {"train": ("train", "trainval"), "val": ("val", "valid"), "test": ("test",)}


def voc_root(root: Path) -> Path | None:
    """The folder that holds JPEGImages: `root`, or the one below it in VOCdevkit.

    Raises DataError where several years lie side by side."""
    for folders in ([root], sorted(root.glob("VOC*")), sorted(root.glob("VOCdevkit/VOC*"))):
        found = [
            folder
            for folder in folders
            if (folder / "JPEGImages").is_dir() and (folder / "Annotations").is_dir()
        ]
        if len(found) > 1:
            years = ", ".join(folder.name for folder in found)
            raise DataError(f"{root}: several datasets, {years}; pass the folder of one of them")
        if found:
            return found[0]
    return None


def list_voc(root: Path, defects: Defects, *, task: str) -> Found:
    """Read a VOC dataset. What is wrong in single files goes to `defects`."""
    lists = _lists(root, _SETS[task]) or _lists(root, "Main")
    if not lists:
        names = sort_naturally(path.stem for path in (root / "Annotations").glob("*.xml"))
        if not names:
            raise DataError(f"{root / 'Annotations'}: no XML files")
        lists = {"all": names}
    trees = {
        name: _parse(root / "Annotations" / f"{name}.xml", defects)
        for name in dict.fromkeys(name for part in lists.values() for name in part)
    }
    classes = _classes(root, trees, task)
    splits: dict[str, list[Scene]] = {}
    for split, names in lists.items():
        splits[split] = []
        for name in track(names, total=len(names), desc=f"{root.name} {split}"):
            scene = _scene(root, name, trees[name], classes, defects, task)
            if scene is not None:
                splits[split].append(scene)
    return Found(kind="voc", classes=classes, splits=splits)


def _lists(root: Path, folder: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split, choices in _LISTS.items():
        for choice in choices:
            path = root / "ImageSets" / folder / f"{choice}.txt"
            if path.is_file():
                names = [line.split()[0] for line in read_text(path).splitlines() if line.strip()]
                found[split] = names
                break
    if "train" in found and not (root / "ImageSets" / folder / "train.txt").is_file():
        held = {name for split in ("val", "test") for name in found.get(split, [])}
        found["train"] = [name for name in found["train"] if name not in held]
    return found


def _parse(path: Path, defects: Defects) -> ElementTree.Element | None:
    if not path.is_file():
        return None
    try:
        return ElementTree.fromstring(path.read_bytes())  # in the encoding that it states
    except ElementTree.ParseError as error:
        defects.add(f"{path}, line {error.position[0]}", f"not XML: {error}")
    except OSError as error:
        defects.add(path, f"cannot be read: {error.strerror or error}")
    except (LookupError, ValueError) as error:
        defects.add(path, f"in an encoding that is not known: {error}; save it as UTF-8")
    return None


def _classes(
    root: Path, trees: dict[str, ElementTree.Element | None], task: str
) -> tuple[str, ...]:
    given = root / "classes.txt"
    if given.is_file():
        return tuple(line.strip() for line in read_text(given).splitlines() if line.strip())
    names = {
        name
        for tree in trees.values()
        if tree is not None
        for one in tree.iter("object")
        if (name := (one.findtext("name") or "").strip())
    }
    if names <= set(CLASSES):
        return CLASSES
    if task == "segment":
        raise DataError(
            f"{root}: the classes {sort_naturally(names)[:10]} are not VOC's twenty, and what "
            f"indices they have in the masks is not known; name them in {given}, a class a line, "
            "that of index 1 first"
        )
    return tuple(sort_naturally(names))


def _scene(
    root: Path,
    name: str,
    tree: ElementTree.Element | None,
    classes: tuple[str, ...],
    defects: Defects,
    task: str,
) -> Scene | None:
    path = root / "Annotations" / f"{name}.xml"
    mask = root / "SegmentationClass" / f"{name}.png"
    has_mask = mask.is_file()
    if task == "segment" and not has_mask:
        defects.add(mask, "no such mask; draw it, or take the name from the list")
        return None
    if tree is None and (task != "segment" or path.is_file()):
        if not path.is_file():
            defects.add(path, "no such file; label the picture, or take its name from the list")
        return None
    try:
        image = _picture(root, name)
        size = check_size(image, str(path), None if tree is None else _stated(tree))
    except ImageError as error:
        defects.add(error.name or path, error.reason)
        return None
    if task == "segment":
        try:
            check_mask(mask, *size, len(classes))
        except DataError as error:
            defects.listed.append(str(error))
            return None
    marks: list[Mark] = []
    for number, one in enumerate([] if tree is None else tree.findall("object"), 1):
        label = (one.findtext("name") or "").strip()
        where = f"{path}, object {number} ({label})"
        if label not in classes:
            defects.add(where, f"a class that is none of {list(classes)}; name it in classes.txt")
            continue
        ends = [one.findtext(f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")]
        try:
            x0, y0, x1, y1 = (float(end or "") for end in ends)
        except ValueError:
            defects.add(where, f"bndbox {ends}: expected the numbers xmin, ymin, xmax, ymax")
            continue
        difficult = (one.findtext("difficult") or "0").strip() == "1"
        box = (x0 - 1, y0 - 1, x1, y1)
        marks.append(Mark(where=where, label=classes.index(label), box=box, crowd=difficult))
    return build(image, size, marks, defects, mask=mask if has_mask else None)


def _picture(root: Path, name: str) -> Path:
    folder = root / "JPEGImages"
    for suffix in (".jpg", ".jpeg", ".png", *sorted(PICTURES)):
        for spelled in (suffix, suffix.upper()):
            if (folder / f"{name}{spelled}").is_file():
                return folder / f"{name}{spelled}"
    raise ImageError("no such picture", str(folder / f"{name}.jpg"))


def _stated(tree: ElementTree.Element) -> tuple[int, int] | None:
    try:
        width, height = (int(tree.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width and height else None

"""The names of ImageNet-1k's classes.

`imagenet1k.txt` holds a name a line in the order of every published 1000-way classifier (sorted by
WordNet id), in the wording of torchvision's weights (pytorch/vision, torchvision/models/_meta.py,
BSD-3-Clause).
"""

from functools import cache
from importlib.resources import files

BACKGROUND = "background"  # class 0 of the 1001-way classifiers trained with TF-slim


@cache
def imagenet_labels(classes: int = 1000) -> tuple[str, ...]:
    """The class names in order: 1000, or 1001 with "background" first.

    Raises ValueError for another number of classes.
    """
    names = tuple(files(__name__).joinpath("imagenet1k.txt").read_text("utf-8").splitlines())
    match classes:
        case 1000:
            return names
        case 1001:
            return (BACKGROUND, *names)
    raise ValueError(f"classes {classes!r}: expected 1000 or 1001")

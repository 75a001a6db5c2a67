"""What a reader finds in a file made elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..models import ModelSpec
from ..preprocess import Preprocess, keras, slim, timm, torchvision
from ..program import Floats

if TYPE_CHECKING:
    from torch import Tensor

RULES: Mapping[str, Callable[[int], Preprocess]] = {
    "torchvision": torchvision,
    "timm": timm,
    "keras": keras,
    "slim": slim,
}
SIZE = 224  # where nothing tells


@dataclass(frozen=True, kw_only=True)
class Original:
    """The file run by what made it: `answer` takes images as the network does, float32
    (N, 3, `size`, `size`), and gives logits (N, classes). Raises MobilenetError where it fails."""

    name: str
    size: int
    answer: Callable[[Floats], Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A file's network. `facts` were read from the file; `assumed` could not be.

    `labels` is None where nothing in the file names the classes. `original` is None where the file
    cannot be run here; then `unchecked` says why. `published` names the catalogue's entry.
    """

    kind: str
    publisher: str
    spec: ModelSpec
    state: "Mapping[str, Tensor]"
    preprocess: Preprocess
    labels: tuple[str, ...] | None
    facts: tuple[str, ...]
    assumed: tuple[str, ...]
    original: Original | None
    unchecked: str | None
    published: str | None = None

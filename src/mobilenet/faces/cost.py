"""Parameters and multiply-adds of face detectors and embedding networks."""

from typing import TYPE_CHECKING

from .embedding import EmbeddingSpec, create_embedding
from .spec import FaceSpec, create_faces

if TYPE_CHECKING:
    from ..heads import HeadCost


def count_faces(spec: FaceSpec, size: int | None = None) -> "HeadCost":
    """Count a detector for square pictures of `size` pixels, None: its own."""
    from ..heads import count_network

    pixels = size or spec.size
    return count_network(lambda: create_faces(spec), pixels, pixels)


def count_embedding(spec: EmbeddingSpec) -> "HeadCost":
    """Count an embedding network; PReLU's slopes are parameters."""
    from ..heads import count_network

    return count_network(lambda: create_embedding(spec), spec.size, spec.size)

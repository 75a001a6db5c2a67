"""Parameters and multiply-adds of a detector."""

from typing import TYPE_CHECKING

from .spec import DetectorSpec, create_detector

if TYPE_CHECKING:
    from ..heads import HeadCost


def count_detector(spec: DetectorSpec, size: int | None = None) -> "HeadCost":
    """Count a detector for square pictures of `size` pixels, None: its own."""
    from ..heads import count_network

    pixels = size or spec.size
    return count_network(lambda: create_detector(spec), pixels, pixels)

"""Parameters and multiply-adds of a segmenter."""

from typing import TYPE_CHECKING

from .spec import SegmenterSpec, create_segmenter

if TYPE_CHECKING:
    from ..heads import HeadCost


def count_segmenter(spec: SegmenterSpec, height: int, width: int) -> "HeadCost":
    """Count a segmenter for pictures of height x width pixels."""
    from ..heads import count_network

    return count_network(lambda: create_segmenter(spec), height, width)

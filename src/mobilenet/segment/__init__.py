"""Segmentation: a class for every pixel. Nothing here imports torch until a network is built."""

from .decode import decode_masks, resize_scores
from .metric import (
    VOID,
    SegmentScores,
    boundaries,
    confusion,
    default_tolerance,
    segment_scores,
)
from .program import SEGMENTS, segment_program
from .rules import MaskRules
from .spec import SEGMENTERS, TORCHVISION, SegmenterSpec, create_segmenter

__all__ = [
    "SEGMENTERS",
    "SEGMENTS",
    "TORCHVISION",
    "VOID",
    "MaskRules",
    "SegmentScores",
    "SegmenterSpec",
    "boundaries",
    "confusion",
    "create_segmenter",
    "decode_masks",
    "default_tolerance",
    "resize_scores",
    "segment_program",
    "segment_scores",
]

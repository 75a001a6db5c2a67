"""Detection: boxes around objects. Nothing here imports torch until a network is built."""

from .anchors import (
    Anchors,
    anchor_boxes,
    fit_anchors,
    point_grid,
    tensorflow_anchors,
    torchvision_anchors,
)
from .decode import (
    BOXES,
    CLASSES,
    Detections,
    batched_nms,
    decode_maps,
    nms,
    select,
)
from .metric import DetectionScores, Truth, detection_scores
from .program import detector_program
from .rules import DecodeRules
from .spec import DETECTORS, TORCHVISION, DetectorSpec, create_detector

__all__ = [
    "BOXES",
    "CLASSES",
    "DETECTORS",
    "TORCHVISION",
    "Anchors",
    "DecodeRules",
    "DetectionScores",
    "Detections",
    "DetectorSpec",
    "Truth",
    "anchor_boxes",
    "batched_nms",
    "create_detector",
    "decode_maps",
    "detection_scores",
    "detector_program",
    "fit_anchors",
    "nms",
    "point_grid",
    "select",
    "tensorflow_anchors",
    "torchvision_anchors",
]

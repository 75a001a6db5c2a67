"""Poses: named points of people. Nothing here imports torch until a network is built."""

from .decode import People, decode_people, decode_single
from .metric import KeypointScores, TruePeople, keypoint_scores, oks
from .program import keypoint_program
from .rules import KeypointRules, sigmas_of
from .spec import (
    COCO_FLIPPED,
    COCO_KEYPOINTS,
    COCO_SIGMAS,
    COCO_SKELETON,
    POSES,
    STRIDE,
    KeypointSpec,
    create_keypoints,
)
from .targets import centre_targets, single_targets

__all__ = [
    "COCO_FLIPPED",
    "COCO_KEYPOINTS",
    "COCO_SIGMAS",
    "COCO_SKELETON",
    "POSES",
    "STRIDE",
    "KeypointRules",
    "KeypointScores",
    "KeypointSpec",
    "People",
    "TruePeople",
    "centre_targets",
    "create_keypoints",
    "decode_people",
    "decode_single",
    "keypoint_program",
    "keypoint_scores",
    "oks",
    "sigmas_of",
    "single_targets",
]

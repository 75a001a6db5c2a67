"""Tasks on scenes: what detection, segmentation, poses and faces do differently in every verb.

Nothing here imports torch but the losses.
"""

from collections.abc import Mapping

from .detect import DETECT
from .faces import FACES
from .keypoints import KEYPOINTS
from .reading import Example, examples_of, read_examples
from .segment import SEGMENT
from .task import Ints, Maps, SceneScores, SceneTask, Tally

SCENE_TASKS: Mapping[str, SceneTask] = {
    "detect": DETECT,
    "segment": SEGMENT,
    "keypoints": KEYPOINTS,
    "faces": FACES,
}

__all__ = [
    "SCENE_TASKS",
    "Example",
    "Ints",
    "Maps",
    "SceneScores",
    "SceneTask",
    "Tally",
    "examples_of",
    "read_examples",
]

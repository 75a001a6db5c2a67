"""Labelled scenes: pictures with boxes, masks and keypoints, read from their field's formats."""

from .opening import open_scenes
from .scene import Scene, SceneData

__all__ = ["Scene", "SceneData", "open_scenes"]

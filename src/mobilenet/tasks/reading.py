"""Scenes as examples: whole pictures, or windows around single objects; read by threads."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..data.reader import BATCHES_AHEAD, in_order
from ..preprocess import Preprocess, crop_and_resize
from ..scenes import Scene
from ..scenes.augment import crop
from ..scenes.sample import Sample, sample_of

AROUND = 1.25  # a window's side, of the longer side of the object in it


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A scene; with `person`, a place among its objects, the window around that one."""

    scene: Scene
    person: int | None = None

    @property
    def areas(self) -> np.ndarray:
        """Of the objects that are asked for, float32 (N,), px² of the picture."""
        return self.scene.areas if self.person is None else self.scene.areas[[self.person]]

    @property
    def name(self) -> str:
        """For people."""
        at = "" if self.person is None else f", object {self.person + 1}"
        return f"{self.scene.image}{at}"

    def read(self, *, mask: bool, around: float = AROUND) -> Sample:
        """Its arrays, in the pixels of the picture or of the window.

        Raises ImageError for a picture that cannot be decoded, DataError for a mask that is not.
        """
        sample = sample_of(self.scene, mask=mask)
        if self.person is None:
            return sample
        return crop(sample.only(np.array([self.person])), self.window(around))

    def window(self, around: float = AROUND) -> tuple[int, int, int, int]:
        """The square around the object, in whole pixels, which may reach beyond the picture."""
        assert self.person is not None
        x0, y0, x1, y1 = self.scene.boxes[self.person].astype(np.float64).tolist()
        side = max(round(max(x1 - x0, y1 - y0) * around), 2)
        left, top = round((x0 + x1 - side) / 2), round((y0 + y1 - side) / 2)
        return left, top, left + side, top + side


def examples_of(scenes: Sequence[Scene], *, windowed: bool) -> tuple[Example, ...]:
    """Every scene; with `windowed`, every object of it that has a labelled keypoint."""
    if not windowed:
        return tuple(Example(scene=scene) for scene in scenes)
    return tuple(
        Example(scene=scene, person=index)
        for scene in scenes
        if scene.keypoints is not None
        for index in np.flatnonzero((scene.keypoints[..., 2] > 0).any(1) & ~scene.crowd).tolist()
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """`images` uint8 (N, size, size, 3) as the contract makes them of the `samples`."""

    images: np.ndarray
    samples: tuple[Sample, ...]
    examples: tuple[Example, ...]


def read_examples(
    examples: Sequence[Example], pre: Preprocess, *, mask: bool, batch_size: int, workers: int
) -> Generator[Read, None, None]:
    """Batches in order. Closing the iterator stops the threads. Raises as `Example.read`."""

    def read(example: Example) -> tuple[np.ndarray, Sample]:
        sample = example.read(mask=mask)
        return crop_and_resize(Image.fromarray(sample.picture), pre), sample

    done = in_order(read, examples, workers=workers, ahead=BATCHES_AHEAD * batch_size)
    with contextlib.closing(done):
        for start in range(0, len(examples), batch_size):
            part = tuple(examples[start : start + batch_size])
            pairs = [next(done) for _ in part]
            yield Read(
                images=np.stack([image for image, _ in pairs]),
                samples=tuple(sample for _, sample in pairs),
                examples=part,
            )

"""A scene read into arrays."""

from dataclasses import dataclass, replace

import numpy as np

from .scene import Scene

FILL = 114  # grey around pictures that do not fill their place


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A picture and what is on it, as arrays.

    `picture`: uint8 (H, W, 3). `boxes`: float32 (N, 4), x0, y0, x1, y1 in pixels. `labels`: int64
    (N,). `crowd`: bool (N,). `mask`: uint8 (H, W), 255 void. `keypoints`: float32 (N, K, 3).
    """

    picture: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    mask: np.ndarray | None = None
    keypoints: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.picture.shape[1], self.picture.shape[0]

    def only(self, kept: np.ndarray) -> "Sample":
        """With these objects, positions or bool (N,)."""
        return replace(
            self,
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            crowd=self.crowd[kept],
            keypoints=None if self.keypoints is None else self.keypoints[kept],
        )


def sample_of(scene: Scene, *, mask: bool = False) -> Sample:
    """A scene read into arrays; with its mask of classes where `mask` is asked for."""
    return Sample(
        picture=scene.pixels(),
        boxes=scene.boxes,
        labels=scene.labels,
        crowd=scene.crowd,
        mask=scene.semantic() if mask else None,
        keypoints=scene.keypoints,
    )

"""Faces brought to one position by five landmarks (NumPy and Pillow)."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, UsageError
from ..program import Floats

if TYPE_CHECKING:
    from PIL import Image

Doubles = NDArray[np.float64]

SIZE = 112
# Where InsightFace's ArcFace networks, and most published since, have the eyes, nose and corners of
# the mouth on 112 x 112 pixels. There a pixel's middle is at a whole number; here it is half a
# pixel beyond, as boxes have it
TEMPLATE: tuple[tuple[float, float], ...] = (
    (38.2946 + 0.5, 51.6963 + 0.5),
    (73.5318 + 0.5, 51.5014 + 0.5),
    (56.0252 + 0.5, 71.7366 + 0.5),
    (41.5493 + 0.5, 92.3655 + 0.5),
    (70.7299 + 0.5, 92.2041 + 0.5),
)
_CLOSE = 0.1  # pixels around their middle: landmarks that tell no position
_TINY = 1e-3  # the share of the target that a fit reaches which is none, as of a mirrored square


def similarity(source: Floats, target: Floats) -> Doubles:
    """The matrix (2, 3) that turns, scales and moves points (K, 2) nearest to others (K, 2), by
    least squares and without a reflection (Umeyama, IEEE TPAMI 13, 1991).

    Raises UsageError for other shapes, DataError for points that are no numbers, all in one place,
    or that no turn and scale brings near the others.
    """
    first, second = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if first.shape != second.shape or first.shape[1:] != (2,) or len(first) < 2:
        raise UsageError(
            f"points {first.shape} and {second.shape}: expected (K, 2) twice, K at least 2"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise DataError("landmarks that are no numbers: leave the face out")
    # In the plane a turn and scale is the product with a complex number, whose least squares have a
    # closed form; Umeyama's singular values give the same
    before, after = first.mean(0), second.mean(0)
    here = (first - before) @ np.array([1, 1j])
    there = (second - after) @ np.array([1, 1j])
    for points, around in ((first, here), (second, there)):
        if np.sqrt((np.abs(around) ** 2).mean()) < _CLOSE:
            raise DataError(
                f"landmarks {points.tolist()} lie in one place: leave the face out, or detect it "
                "again"
            )
    turn = (here.conj() * there).sum() / (np.abs(here) ** 2).sum()
    if abs(turn) * np.linalg.norm(here) < _TINY * np.linalg.norm(there):
        raise DataError(f"landmarks {first.tolist()} are a mirrored face: check their order")
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.concatenate([linear, (after - linear @ before)[:, None]], axis=1)


def align_face(image: "Image.Image", landmarks: Floats, *, size: int = SIZE) -> "Image.Image":
    """The face with these landmarks (5, 2), in pixels of the picture, cut out upright: size x size
    pixels, bilinear, black beyond the picture.

    The five as RetinaFace has them: the eye on the left of the picture, the other, nose, the corner
    of the mouth on the left, the other. Raises as `similarity`.
    """
    from PIL import Image

    target = np.array(TEMPLATE) * (size / SIZE)
    matrix = np.vstack([similarity(landmarks, target.astype(np.float32)), [0, 0, 1]])
    back = np.linalg.inv(matrix)[:2]
    coefficients = tuple(float(value) for value in back.reshape(-1))
    return image.transform(
        (size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )

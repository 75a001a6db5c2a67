"""Images as a file takes them that normalises by itself: pixels."""

import json
from collections.abc import Callable

import numpy as np

from ..errors import CheckpointError, UsageError
from ..preprocess import Preprocess
from .sessions import Floats


def to_pixels(contract: str | None) -> Callable[[Floats], np.ndarray]:
    """What makes pixels, uint8 (N, 3, H, W), of images normalised by that text of model.json.

    Exact for whatever a picture was normalised to; other numbers go to the nearest pixel. Raises
    CheckpointError without a contract.
    """
    try:
        rules = Preprocess.from_dict(json.loads(contract or "{}")["preprocess"])
    except (ValueError, KeyError, UsageError) as error:
        raise CheckpointError(
            f"the file takes pixels, but says no normalisation: {error}"
        ) from None
    std = np.array(rules.std, np.float32)[:, None, None]
    mean = np.array(rules.mean, np.float32)[:, None, None]

    def pixels(images: Floats) -> np.ndarray:
        return np.clip(np.rint((images * std + mean) * 255), 0, 255).astype(np.uint8)

    return pixels

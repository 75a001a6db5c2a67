"""The worst mistakes of a classifier, as thumbnails."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
from PIL import Image

from ..data import Split
from ..errors import DataError
from ..evaluate.metrics import Outcomes

_MOST = 24
_PIXELS = 128  # of the longer edge: shown at about 96 points on a screen of high density


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One image taken for another class; scores are probabilities, `loss` in nats.

    `picture` is a JPEG as a data URI, None where the image can no longer be read.
    """

    name: str
    true: str
    predicted: str
    true_score: float
    predicted_score: float
    loss: float
    picture: str | None


def worst_mistakes(
    outcomes: Outcomes, split: Split, labels: Sequence[str], *, most: int = _MOST
) -> tuple[Mistake, ...]:
    """The wrongly classified images of the highest loss, at most so many.

    `outcomes.indices` are places in `split`; `labels` names the classes of the outcomes.
    """
    wrong = np.flatnonzero(~outcomes.correct)
    worst = wrong[np.argsort(-outcomes.loss[wrong], kind="stable")][:most]
    return tuple(
        Mistake(
            name=split.name(int(outcomes.indices[at])),
            true=labels[int(outcomes.labels[at])],
            predicted=labels[int(outcomes.predicted[at])],
            true_score=exp(-outcomes.loss[at]),
            predicted_score=float(outcomes.confidence[at]),
            loss=float(outcomes.loss[at]),
            picture=_thumbnail(split, int(outcomes.indices[at])),
        )
        for at in worst.tolist()
    )


def _thumbnail(split: Split, index: int) -> str | None:
    try:
        image = split.read(index).convert("RGB")
    except (DataError, OSError):
        return None
    image.thumbnail((_PIXELS, _PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"

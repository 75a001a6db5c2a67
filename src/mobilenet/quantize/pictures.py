"""Which pictures of a dataset a network is calibrated with."""

from collections.abc import Generator

import numpy as np

from ..data import Split, batches, epoch_order
from ..preprocess import Preprocess, normalise
from ..program import Floats

PICTURES = 512
BATCH = 16


def calibration_batches(
    split: Split, contract: Preprocess, *, count: int = PICTURES, workers: int = 0
) -> Generator[Floats]:
    """`count` pictures, evenly over the classes, through the contract: float32 (N, 3, size, size).

    The same ones each time. Raises ImageError for a picture that cannot be decoded.
    """
    order = evenly(split.labels, count)
    for batch in batches(split, contract, batch_size=BATCH, order=order, workers=workers):
        yield normalise(batch.images, contract)


def evenly(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of at most `count` pictures, as many of each class as can be, in order."""
    shuffled = epoch_order(len(labels), seed=0, epoch=0)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    first = np.searchsorted(labels[by_class], labels[by_class])
    # a picture's turn within its class; the first turns of all classes come first
    turn = np.arange(len(labels)) - first
    return np.sort(by_class[np.argsort(turn, kind="stable")[:count]])

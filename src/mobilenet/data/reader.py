"""Pictures of a split to batches: read by threads, in order, with a bound on what is held.

Threads suffice: reading, decoding and resizing release the interpreter's lock. Order and
augmentation are pure functions of (seed, epoch, index), so that batches do not depend on how
many threads made them.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np

from ..errors import UsageError
from ..preprocess import Preprocess, crop_and_resize
from .picture import Picture
from .splits import Split

T = TypeVar("T")
R = TypeVar("R")

Transform = Callable[[Picture, np.random.Generator], np.ndarray]

BATCHES_AHEAD = 2  # at most so many are being read beyond the one that is handed out next
_PIECE = 8  # pictures that a thread reads in one go
_ORDER, _SAMPLE = 0, 1  # purposes of random numbers


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`images` uint8 (N, size, size, 3); `labels` and `indices` into the split, int64 (N,)."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """A random order of n pictures, int64 (n,): a pure function of its arguments.

    Made of raw Philox numbers, which no version of NumPy may change.
    """
    return np.argsort(_philox(seed, epoch, 0, _ORDER).random_raw(n), kind="stable")


def sample_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one picture in one epoch: a pure function of its arguments."""
    return np.random.Generator(_philox(seed, epoch, index, _SAMPLE))


def step_seed(seed: int, step: int) -> int:
    """A seed for torch in one step of a run: a pure function of its arguments."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def _philox(seed: int, epoch: int, index: int, purpose: int) -> np.random.Philox:
    """A stream of its own for each argument: 2^128 numbers lie between two counters' starts."""
    for name, value in (("seed", seed), ("epoch", epoch)):
        if not 0 <= value < 2**64:
            raise UsageError(f"{name} {value}: expected an integer from 0 to 2^64 - 1")
    counter = np.array([0, 0, index, purpose], np.uint64)
    return np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=counter)


def batches(
    split: Split,
    pre: Preprocess,
    *,
    batch_size: int,
    order: np.ndarray | None = None,
    transform: Transform | None = None,
    seed: int = 0,
    epoch: int = 0,
    workers: int = 0,
    drop_last: bool = False,
) -> Generator[Batch, None, None]:
    """Read a split, in `order` (positions; None: as it is), by `workers` threads (0: by this one).

    Without a transform the pictures are the contract's, exactly; with one, they are what it makes
    of each picture and `sample_rng(seed, epoch, position)`. Closing the iterator stops the threads.
    Raises ImageError naming the file where one cannot be decoded.
    """
    if batch_size < 1 or workers < 0:
        raise UsageError(
            f"batch_size {batch_size}, workers {workers}: expected at least 1 and at least 0"
        )
    order = np.arange(len(split)) if order is None else np.asarray(order, np.int64)
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    groups = [order[start : start + batch_size] for start in range(0, end, batch_size)]

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(where to write, which, the batch's images), allocated only when its turn comes."""
        for group in groups:
            images = np.empty((len(group), pre.size, pre.size, 3), np.uint8)
            for start in range(0, len(group), _PIECE):
                yield images[start : start + _PIECE], group[start : start + _PIECE], images

    def read(piece: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        out, indices, images = piece
        for place, index in enumerate(indices.tolist()):
            try:
                if transform is None:
                    out[place] = crop_and_resize(split.read(index), pre)
                else:
                    out[place] = transform(split.picture(index), sample_rng(seed, epoch, index))
            except Exception as error:
                error.add_note(f"while reading {split.name(index)}")
                raise
        return images

    ahead = BATCHES_AHEAD * -(-batch_size // _PIECE)
    done = in_order(read, pieces(), workers=workers, ahead=ahead)
    return _collect(done, groups, split.labels)


def _collect(
    done: Generator[np.ndarray], groups: list[np.ndarray], labels: np.ndarray
) -> Generator[Batch]:
    try:
        for group in groups:
            *_, images = islice(done, -(-len(group) // _PIECE))
            yield Batch(images=images, labels=labels[group], indices=group)
            del _, images
    finally:
        done.close()


def in_order(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, ahead: int
) -> Generator[R]:
    """`map` by `workers` threads, results in the items' order; 0: by this thread.

    At most `ahead` items are taken whose results have not been handed out. An exception is raised
    in its turn. Closing the iterator drops what has not begun and waits for what has.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mobilenet-read")
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

"""The frozen front of a network, computed once over the pictures and kept for many epochs."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..classify import Classifier
from ..data import Split, batches, epoch_order
from ..errors import TrainingError
from ..layers import folded
from ..preprocess import Preprocess
from ..progress import say, track
from ..recipes import Trainable

CHUNK = 32  # pictures in one pass: larger ones fall out of the cache and run slower
MEMORY_BYTES = 1 << 30  # a larger cache lies on the disk
DISK_SHARE = 0.5  # of the free space, at most


class Interrupted(Exception):
    """Ctrl-C or a polite kill; everything that is worth it is saved."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A network in two: `front` is frozen and computed once, `rest` learns."""

    front: nn.Module
    rest: nn.Module


class _Pooled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def cut(model: Classifier, train: Trainable) -> Cut:
    """Cut before stage 5 ("tail") or behind the pool ("head"); both share the model's weights."""
    blocks = model.backbone.blocks
    if train == "head":
        return Cut(front=nn.Sequential(blocks, _Pooled()), rest=model.head)
    first = next(i for i, block in enumerate(model.backbone.network.blocks) if block.stage == 5)
    return Cut(front=blocks[:first], rest=nn.Sequential(blocks[first:], model.head))


class FeatureCache:
    """Features of `count` pictures, float16 (N, H, W, C): in memory, or in a file when large.

    Which pictures are kept is the start of `order`; `count` is fewer than there are where time
    (`seconds`) or space ran out, and is repeated exactly when given.
    """

    def __init__(
        self,
        front: nn.Module,
        split: Split,
        pre: Preprocess,
        *,
        order: np.ndarray,
        folder: Path,
        workers: int,
        device: torch.device,
        seconds: float | None,
        count: int | None,
        stopped: Callable[[], bool],
    ) -> None:
        self.path = folder / "features.f16"
        order = order if count is None else order[:count]
        start = time.perf_counter()
        self._array: np.ndarray | None = None
        done = 0
        front = folded(front).to(device)
        reading = batches(split, pre, batch_size=CHUNK, order=order, workers=workers)
        with contextlib.closing(reading), torch.inference_mode():
            total = -(-len(order) // CHUNK)
            for batch in track(reading, total=total, desc="features", unit="batch"):
                images = to_input(batch.images, pre, device)
                features = front(images).permute(0, 2, 3, 1).to(torch.float16).cpu().numpy()
                if self._array is None:
                    self._array = self._allocate(len(order), features.shape[1:])
                room = min(len(features), len(self._array) - done)
                self._array[done : done + room] = features[:room]
                done += room
                if stopped():
                    self.close()
                    raise Interrupted
                late = seconds is not None and time.perf_counter() - start > seconds
                if done == len(self._array) or (late and count is None):
                    break
        assert self._array is not None
        self._array = self._array[:done]
        self.indices = order[:done]
        self.labels = split.labels[self.indices]
        self.seconds = time.perf_counter() - start

    def __len__(self) -> int:
        return len(self.indices)

    def _allocate(self, count: int, shape: tuple[int, ...]) -> np.ndarray:
        each = 2 * int(np.prod(shape))
        if count * each <= MEMORY_BYTES:
            return np.empty((count, *shape), np.float16)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        room = int(shutil.disk_usage(self.path.parent).free * DISK_SHARE) // each
        if room < CHUNK:
            raise TrainingError(
                f"{self.path.parent}: no room for the cached features of {count} pictures "
                f"({count * each >> 20} MiB): free some space"
            )
        if room < count:
            say(f"features of {room} of {count} pictures are cached: the disk has no room for more")
        return np.memmap(self.path, np.float16, "w+", shape=(min(count, room), *shape))

    def batches(
        self, *, seed: int, epoch: int, batch_size: int, start: int
    ) -> Iterator[tuple[Tensor, np.ndarray]]:
        """Features (B, C, H, W) float32, channels last, and their positions in the cache."""
        assert self._array is not None
        order = epoch_order(len(self), seed=seed, epoch=epoch)
        for first in range(start * batch_size, len(order) - batch_size + 1, batch_size):
            chosen = np.sort(order[first : first + batch_size])  # reads a file forwards
            features = torch.from_numpy(self._array[chosen]).float()
            yield features.permute(0, 3, 1, 2), chosen

    def close(self) -> None:
        """Forget the features and remove their file."""
        self._array = None
        self.path.unlink(missing_ok=True)


def to_input(images: np.ndarray, pre: Preprocess, device: torch.device) -> Tensor:
    """Pixels uint8 (N, H, W, 3) to the network's input (N, 3, H, W), channels last.

    The arithmetic is that of `preprocess.normalise`, to the bit.
    """
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()
    mean = torch.tensor(pre.mean, device=device).view(1, 3, 1, 1)
    std = torch.tensor(pre.std, device=device).view(1, 3, 1, 1)
    return pixels.div_(255).sub_(mean).div_(std)

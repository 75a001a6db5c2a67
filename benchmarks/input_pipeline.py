"""Our input pipeline beside torchvision's: JPEG files to normalised float32 batches of 64.

    python benchmarks/input_pipeline.py [--images 384] [--rounds 7] [--workers 2] [--json]

A few hundred 500x375 JPEGs of quality 85 to 95 are cut from scikit-image's photographs into a
temporary folder. Both sides read them with the same number of workers, ours threads, torchvision's
processes (ImageFolder, DataLoader; kept alive between epochs, their start not counted). One round
is one epoch of each, in turn; a ratio is the median of the rounds' ratios.

train: random resized crop of 224, flip, normalise. evaluate: shorter side to 256, centre 224; ours
gives torchvision's bits there, which the benchmark checks.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mobilenet.augment import Augment, build
from mobilenet.data import Picture, Split, batches, epoch_order, open_dataset
from mobilenet.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise, torchvision

BATCH = 64
PHOTOGRAPHS = ("coffee", "chelsea", "astronaut", "rocket", "motorcycle_left", "ihc")
Epoch = Callable[[], Iterator[torch.Tensor]]


def write_photographs(folder: Path, count: int) -> int:
    """Write JPEGs into two class folders; returns their median size in bytes."""
    import skimage.data

    source = Path(skimage.data.__file__).parent
    files = [next(source.glob(f"{name}.*")) for name in PHOTOGRAPHS]
    photographs = [Image.open(file).convert("RGB") for file in files]
    rng = np.random.default_rng(0)
    sizes = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        width = min(photograph.width, photograph.height * 4 / 3) * rng.uniform(0.7, 1)
        height = width * 3 / 4
        left = rng.uniform(0, photograph.width - width)
        top = rng.uniform(0, photograph.height - height)
        box = (left, top, left + width, top + height)
        path = folder / f"class{index % 2}" / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture = photograph.resize((500, 375), Image.Resampling.BICUBIC, box=box)
        picture.save(path, quality=int(rng.integers(85, 96)))
        sizes.append(path.stat().st_size)
    return int(statistics.median(sizes))


class Counted(Split):
    """A split that counts the pictures that are begun and not yet handed out."""

    def __init__(self, split: Split) -> None:
        self.split, self.labels = split, split.labels
        self.begun = self.taken = self.peak = 0

    def _begin(self) -> None:
        self.begun += 1
        self.peak = max(self.peak, self.begun - self.taken)

    def name(self, index: int) -> str:
        return self.split.name(index)

    def content(self, index: int) -> bytes:
        return self.split.content(index)

    def subset(self, indices) -> Split:
        return Counted(self.split.subset(indices))

    def read(self, index: int) -> Image.Image:
        self._begin()
        return self.split.read(index)

    def picture(self, index: int) -> Picture:
        self._begin()
        return self.split.picture(index)


def our_epochs(folder: Path, workers: int, peaks: dict[str, float]) -> dict[str, Epoch]:
    pre = torchvision(224)
    split = open_dataset(folder, val_fraction=0).splits["train"]
    transform = build(Augment(), pre)

    def epoch(task: str) -> Iterator[torch.Tensor]:
        counted = Counted(split)
        training = task == "train"
        for batch in batches(
            counted,
            pre,
            batch_size=BATCH,
            order=epoch_order(len(split), seed=0, epoch=0) if training else None,
            transform=transform if training else None,
            workers=workers,
        ):
            counted.taken += len(batch.labels)
            yield torch.from_numpy(normalise(batch.images, pre))
        peaks[task] = counted.peak / BATCH

    return {task: lambda task=task: epoch(task) for task in ("train", "evaluate")}


def their_epochs(folder: Path, workers: int) -> dict[str, Epoch]:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    normalised = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    stages = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
        "evaluate": [transforms.Resize(256), transforms.CenterCrop(224)],
    }

    def epoch(loader: DataLoader) -> Iterator[torch.Tensor]:
        for images, _ in loader:
            yield images

    epochs = {}
    for task, stage in stages.items():
        loader = DataLoader(
            ImageFolder(folder, transforms.Compose(stage + normalised)),
            batch_size=BATCH,
            shuffle=task == "train",
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        epochs[task] = lambda loader=loader: epoch(loader)
    return epochs


def rate(epoch: Epoch) -> float:
    """Images a second of one epoch."""
    start, count = time.perf_counter(), 0
    for images in epoch():
        count += len(images)
    return count / (time.perf_counter() - start)


def summarise(ours: list[float], theirs: list[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        "ours_images_per_s": round(statistics.median(ours), 1),
        "torchvision_images_per_s": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(ratios), 3),
        "lowest_ratio": round(ratios[0], 3),
        "highest_ratio": round(ratios[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = write_photographs(folder, options.images)
        peaks: dict[str, float] = {}
        ours = our_epochs(folder, options.workers, peaks)
        theirs = their_epochs(folder, options.workers)
        same = all(
            torch.equal(a, b)
            for a, b in zip(
                sorted_batches(ours["evaluate"]), sorted_batches(theirs["evaluate"]), strict=True
            )
        )
        rate(ours["train"]), rate(theirs["train"])  # warm up; starts torchvision's processes
        rates: dict[str, tuple[list[float], list[float]]] = {}
        for _ in range(options.rounds):
            for task in ("train", "evaluate"):
                mine, other = rates.setdefault(task, ([], []))
                mine.append(rate(ours[task]))
                other.append(rate(theirs[task]))
    result = {
        "conditions": {
            "images": options.images,
            "jpeg": "500x375, quality 85 to 95",
            "median_bytes": size,
            "batch": BATCH,
            "workers": options.workers,
            "rounds": options.rounds,
            "cores": len(os.sched_getaffinity(0)),
            "load": round(os.getloadavg()[0], 2),
            "machine": platform.machine(),
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("mobilenet", "torch", "torchvision", "pillow", "simplejpeg", "numpy")
            },
        },
        "results": {task: summarise(*pair) for task, pair in rates.items()},
        "peak_batches_in_flight": {task: round(peak, 2) for task, peak in peaks.items()},
        "evaluation_bits_equal_torchvision": same,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(json.dumps(result["conditions"], indent=None), file=sys.stderr)
    for task, row in result["results"].items():
        print(
            f"{task:9} ours {row['ours_images_per_s']:7.1f} img/s   torchvision "
            f"{row['torchvision_images_per_s']:7.1f} img/s   ratio {row['ratio']:.2f} "
            f"({row['lowest_ratio']:.2f} to {row['highest_ratio']:.2f})   peak batches in flight "
            f"{result['peak_batches_in_flight'][task]}"
        )
    print(f"evaluation gives torchvision's bits: {same}")


def sorted_batches(epoch: Epoch) -> Iterator[torch.Tensor]:
    """All pictures of an epoch, in an order of their own content: the two sides list files
    differently."""
    images = torch.cat(list(epoch()))
    yield from images[torch.argsort(images.double().sum(dim=(1, 2, 3)))]


if __name__ == "__main__":
    main()

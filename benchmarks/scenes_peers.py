"""torchvision's own SSDLite and LR-ASPP on its MobileNetV2, trained by its reference recipes.

The recipes are those of references/detection and references/segmentation (SGD, momentum 0.9):
SSDLite with a rate of 0.15 for 192 pictures a step, decay 4e-5, cosine, random IoU crops and flips;
LR-ASPP with 0.01 for 32 pictures, decay 1e-6, polynomial, scales 0.5 to 2 and flips. The rates are
in proportion to the batch, the warm-up is a thirtieth of the time.
"""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import MobileNetV2
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _mobilenet_extractor
from torchvision.models.segmentation.lraspp import LRASPP

from mobilenet.data import epoch_order, sample_rng
from mobilenet.data.reader import in_order
from mobilenet.detect import Detections
from mobilenet.evaluate.scenes import interval_of
from mobilenet.networks import SCENE_NETWORKS
from mobilenet.preprocess import IMAGENET_MEAN, IMAGENET_STD
from mobilenet.scenes import SceneData, open_scenes
from mobilenet.scenes.augment import iou_crop, jitter_scale, mirror
from mobilenet.scenes.sample import Sample
from mobilenet.tasks import SCENE_TASKS, Example, examples_of
from mobilenet.weights import load_pretrained

BATCH = 16
NETWORKS = {"detect": "ssdlite_mobilenet_v2", "segment": "lraspp_mobilenet_v2"}
_MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
_STD = torch.tensor(IMAGENET_STD)[:, None, None]
_WARM = 1 / 30
_CURVE = 100  # validation pictures of a point of the curve


def backbone(path: Path) -> MobileNetV2:
    """torchvision's MobileNetV2 with its ImageNet weights."""
    network = MobileNetV2()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def detector(path: Path, classes: int, size: int) -> SSD:
    """As `ssdlite320_mobilenet_v3_large` is built, on V2."""
    norm = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
    network = backbone(path)
    for block in network.features:
        if getattr(block, "_is_cn", False):
            block.block = block.conv  # the name that V3's blocks have, which the extractor reads
    extractor = _mobilenet_extractor(network, 6, norm)
    anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    with torch.no_grad():
        maps = extractor.eval()(torch.zeros(1, 3, size, size))
    channels = [value.shape[1] for value in maps.values()]
    head = SSDLiteHead(channels, anchors.num_anchors_per_location(), classes + 1, norm)
    return SSD(
        extractor,
        anchors,
        (size, size),
        classes + 1,
        head=head,
        score_thresh=0.001,
        nms_thresh=0.55,
        detections_per_img=300,
        topk_candidates=300,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )


def segmenter(path: Path, classes: int) -> LRASPP:
    """As `lraspp_mobilenet_v3_large` is built, on V2, which torchvision cannot dilate: the maps
    before the last two strides."""
    features = backbone(path).features
    taken = IntermediateLayerGetter(features, return_layers={"6": "low", "17": "high"})
    return LRASPP(taken, 32, 320, classes + 1)


def batches(
    task: str, data: SceneData, size: int, seed: int, workers: int
) -> Iterator[list[Sample]]:
    """Endless, varied as the reference recipes do."""
    examples = examples_of(data.splits["train"], windowed=False)

    def read(which: tuple[int, int]) -> Sample:
        epoch, index = which
        rng = sample_rng(seed, epoch, index)
        sample = examples[index].read(mask=task == "segment")
        if task == "detect":
            sample = iou_crop(sample, rng)
        else:
            sample = jitter_scale(sample, size, size, rng, scale=(0.5, 2.0))
        return mirror(sample) if rng.random() < 0.5 else sample

    def order() -> Iterator[tuple[int, int]]:
        for epoch in itertools.count():
            for index in epoch_order(len(examples), seed=seed, epoch=epoch).tolist():
                yield epoch, index

    done = in_order(read, order(), workers=workers, ahead=2 * BATCH)
    while True:
        yield [next(done) for _ in range(BATCH)]


def pixels(sample: Sample) -> Tensor:
    """(3, H, W) from 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(sample.picture)).permute(2, 0, 1).float().div(255)


def loss_of(task: str, network: nn.Module, batch: list[Sample]) -> Tensor:
    if task == "detect":
        targets = [
            {
                "boxes": torch.from_numpy(sample.boxes.astype(np.float32)),
                "labels": torch.from_numpy(sample.labels.astype(np.int64) + 1),
            }
            for sample in batch
        ]
        return sum(network([pixels(sample) for sample in batch], targets).values())
    images = torch.stack([(pixels(sample) - _MEAN) / _STD for sample in batch])
    masks = torch.from_numpy(np.stack([sample.mask for sample in batch])).long()
    images = images.contiguous(memory_format=torch.channels_last)
    return nn.functional.cross_entropy(network(images)["out"], masks, ignore_index=255)


@torch.inference_mode()
def find(task: str, network: nn.Module, sample: Sample, size: int):
    """What is on a picture, as this package's tasks count it."""
    if task == "detect":
        found = network([pixels(sample)])[0]
        return Detections(
            boxes=found["boxes"].numpy(),
            scores=found["scores"].numpy(),
            labels=found["labels"].numpy() - 1,
        )
    image = ((pixels(sample) - _MEAN) / _STD)[None]
    image = nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True)
    scores = network(image)["out"]
    width, height = sample.size
    whole = nn.functional.interpolate(scores, (height, width), mode="bilinear")
    return whole[0].argmax(0).numpy().astype(np.uint8)


def measure(task: str, network: nn.Module, examples: tuple[Example, ...], size: int, labels):
    """A tally of what the network finds."""
    network.eval()
    kind = SCENE_TASKS[task]
    tally = kind.tally(SCENE_NETWORKS[NETWORKS[task]], None, labels)
    for example in examples:
        sample = example.read(mask=kind.mask)
        tally.add(example, sample, find(task, network, sample, size))
    network.train()
    return tally


def train(
    task: str, source: str, *, minutes: float, size: int, seed: int, threads: int
) -> dict[str, object]:
    """Train, and measure on the test split; the result as a JSON object."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    data = open_scenes(source, task=task)
    weights = load_pretrained(SCENE_NETWORKS[NETWORKS[task]].backbone, "imagenet", size=size).path
    labels = SCENE_TASKS[task].labels(data)
    classes = len(data.classes)
    network = detector(weights, classes, size) if task == "detect" else segmenter(weights, classes)
    network.to(memory_format=torch.channels_last).train()
    rate, decay = (0.15 * BATCH / 192, 4e-5) if task == "detect" else (0.01 * BATCH / 32, 1e-6)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay)
    budget, start, aside = 60 * minutes, time.perf_counter(), 0.0
    curve, step, due = [], 0, 0.2
    some = examples_of(data.splits["val"], windowed=False)[
        :: max(len(data.splits["val"]) // _CURVE, 1)
    ]
    for batch in batches(task, data, size, seed, threads):
        done = (time.perf_counter() - start) / budget
        if done >= 1:
            break
        along = max(done - _WARM, 0) / (1 - _WARM)
        falling = (1 - along) ** 0.9 if task == "segment" else 0.5 * (1 + np.cos(np.pi * along))
        for group in optimizer.param_groups:
            group["lr"] = rate * (max(done / _WARM, 1e-3) if done < _WARM else falling)
        loss = loss_of(task, network, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step += 1
        if step % 20 == 0:
            print(f"{done:.3f} step {step} loss {loss.item():.3f}", file=sys.stderr, flush=True)
        if done > due and aside < 0.1 * done * budget:
            due = done + 0.1
            began = time.perf_counter()
            value = measure(task, network, some, size, labels).scores().value
            curve.append([(time.perf_counter() - start) / 60, value])
            aside += time.perf_counter() - began
    tally = measure(task, network, examples_of(data.splits["test"], windowed=False), size, labels)
    scores = tally.scores()
    low, high = interval_of(tally, scores.n)
    return {
        "side": "torchvision",
        "task": task,
        "minutes": minutes,
        "seed": seed,
        "pictures": step * BATCH,
        "figures": dict(scores.figures),
        "interval": [low, high],
        "curve": curve,
        "n": scores.n,
    }


def main() -> None:
    task, source, minutes, size, seed, threads, out = sys.argv[1:]
    result = train(
        task, source, minutes=float(minutes), size=int(size), seed=int(seed), threads=int(threads)
    )
    Path(out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""The networks that are quantised, and the pictures that they are measured on.

    photographs      ImageNet's published networks on composited photographs, without labels
    trained          trained on Fashion-MNIST
    hostile          the same, with channels scaled: see int8_hostile.py

runs/int8.sh trains what is trained, but the head on ImageNet's network and what is hostile are made
here where they are not there yet.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from int8_hostile import hostile

from mobilenet.checkpoint import read_model_json, save_model
from mobilenet.checkpoint.tensors import encode_tensors
from mobilenet.data import Split, batches
from mobilenet.evaluate import match_classes, open_split
from mobilenet.evaluate.model import OpenModel, torch_forward
from mobilenet.export.onnx import to_onnx
from mobilenet.layers import folded
from mobilenet.models import parse_model_name
from mobilenet.preprocess import normalise
from mobilenet.progress import say, track
from mobilenet.quantize.pictures import calibration_batches, evenly
from mobilenet.quantize.source import Source, open_source
from mobilenet.runtime import Floats
from mobilenet.weights import load_pretrained

Part = Literal["photographs", "trained", "hostile"]

FASHION = "fashion-mnist"
TITLES = {  # of the runs that are trained, by folder
    "v2": "V2, fine-tuned",
    "v2head": "V2, ImageNet with a new head",
    "v1": "V1 0.5",
    "v3l": "V3-Large 0.35",
    "v3s": "V3-Small 0.75",
    "v3sm": "V3-Small minimalistic 0.75",
}
PUBLISHED = {  # ImageNet's weights as they were published, by model
    "imagenet": ("V2, ImageNet", "mobilenet_v2"),
    "lite0": ("EfficientNet-Lite0, ImageNet", "efficientnet_lite0"),
}
SUBJECTS = (*PUBLISHED, *TITLES, *(f"{name}-hostile" for name in TITLES))  # in their order
HEAD_PICTURES, HEAD_SIZE, HEAD_DECAY = 20_000, 96, 1e-4
HOSTILE_PICTURES, SEED = 256, 0


@dataclass(frozen=True, kw_only=True)
class Subject:
    """`model` is a run or a name; `base` the run that a hostile one is made of."""

    name: str
    title: str
    part: Part
    model: str
    data: str
    split: Literal["val", "test"]
    base: Path | None = None


def subjects(runs: Path, pictures: Path) -> list[Subject]:
    """All of them, given the folders of runs and of photographs."""
    published = [
        Subject(
            name=name,
            title=title,
            part="photographs",
            model=model,
            data=str(pictures),
            split="val",
        )
        for name, (title, model) in PUBLISHED.items()
    ]
    trained = [
        Subject(
            name=name,
            title=title,
            part="trained",
            model=str(runs / name),
            data=FASHION,
            split="test",
        )
        for name, title in TITLES.items()
    ]
    hostile = [
        replace(
            one,
            name=f"{one.name}-hostile",
            part="hostile",
            model=str(runs / f"{one.name}-hostile"),
            base=Path(one.model),
        )
        for one in trained
    ]
    return [*published, *trained, *hostile]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A subject with its network; what costs time is read or made when it is first asked for."""

    subject: Subject
    source: Source
    pictures: int
    limit: int | None

    @cached_property
    def weights(self) -> str:
        """The sha256 of the float weights."""
        return hashlib.sha256(encode_tensors(self.source.state)).hexdigest()

    @cached_property
    def model(self) -> OpenModel:
        """The float network in torch."""
        return OpenModel(
            name=self.subject.name,
            forward=torch_forward(folded(self.source.network), torch.device("cpu")),
            preprocess=self.source.preprocess,
            labels=self.source.labels,
            runtime="torch",
            provenance=dict(self.source.provenance),
        )

    @cached_property
    def calibration(self) -> Floats:
        """The very pictures that `mobilenet quantize` takes, float32 (N, 3, H, W)."""
        dataset, name = open_split(self.model, self.subject.data, "train", limit=None)
        split, contract = dataset.splits[name], self.source.preprocess
        return np.concatenate(list(calibration_batches(split, contract, count=self.pictures)))

    @cached_property
    def measured(self) -> tuple[Split, np.ndarray | None]:
        """The pictures that are measured on, and their labels where the network knows them."""
        subject = self.subject
        dataset, name = open_split(self.model, subject.data, subject.split, limit=self.limit)
        split = dataset.splits[name]
        if not set(dataset.classes) & set(self.source.labels):
            return split, None
        return split, match_classes(dataset, self.model)[split.labels]

    @cached_property
    def onnx(self) -> bytes:
        """The float network for the peers' quantisers."""
        return to_onnx(self.source.network, size=self.source.preprocess.size, metadata={}).data


def open_subject(subject: Subject, *, pictures: int, limit: int | None) -> Opened:
    """Make what is not there yet, and open it. Raises UsageError for a run that is not there."""
    if subject.base is not None:
        _make_hostile(subject.base, Path(subject.model))
    elif subject.name == "v2head" and not Path(subject.model).exists():
        make_head(Path(subject.model))
    return Opened(
        subject=subject, source=open_source(subject.model), pictures=pictures, limit=limit
    )


def make_head(out: Path) -> None:
    """A run of ImageNet's MobileNetV2 where only the classifier has learned Fashion-MNIST: logistic
    regression on the pooled features of its training pictures."""
    spec = replace(parse_model_name("mobilenet_v2").spec, classes=10)
    found = load_pretrained(spec, "imagenet", size=HEAD_SIZE)
    network = found.module()
    opened = OpenModel(
        name=str(out),
        forward=lambda images: images,  # is not asked
        preprocess=found.preprocess,
        labels=(),
        runtime="",
        provenance={},
    )
    dataset, name = open_split(opened, FASHION, "train", limit=None)
    split = dataset.splits[name]
    order = evenly(split.labels, HEAD_PICTURES)
    backbone = folded(network).backbone
    features = []
    say(f"{out}: features of {len(order)} pictures")
    reading = batches(split, found.preprocess, batch_size=32, order=order, workers=1)
    with torch.inference_mode():
        for batch in track(reading, total=-(-len(order) // 32), desc="features", unit="batch"):
            images = torch.from_numpy(normalise(batch.images, found.preprocess))
            images = images.contiguous(memory_format=torch.channels_last)
            features.append(backbone(images).mean((2, 3)))
    x, y = torch.cat(features).clone(), torch.from_numpy(split.labels[order])
    weight, bias = _logistic_regression(x, y, len(dataset.classes))
    state = network.state_dict()
    state["head.classifier.weight"] = weight[:, :, None, None]
    state["head.classifier.bias"] = bias
    save_model(
        out,
        found.spec,
        state,
        preprocess=found.preprocess.to_dict(),
        labels=dataset.classes,
        provenance={"pictures": len(order), "data": FASHION, "weights": found.sha256},
    )


def _logistic_regression(
    x: torch.Tensor, y: torch.Tensor, classes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (classes, C) and bias (classes,)."""
    layer = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimiser = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(layer(x), y)
        value = value + HEAD_DECAY * (layer.weight**2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return layer.weight.detach(), layer.bias.detach()


def _make_hostile(base: Path, out: Path) -> None:
    """The run `out`, unless it was made of this very `base`."""
    source = open_source(base)
    made_of = {"weights": read_model_json(base)["weights"]["sha256"], "seed": SEED}
    if (out / "model.json").exists():
        provenance = read_model_json(out)["provenance"]
        if provenance.get("hostile") == made_of:
            return
    say(f"{out}: scaling channels of {base}")
    opened = Opened(
        subject=Subject(
            name=base.name, title="", part="trained", model=str(base), data=FASHION, split="test"
        ),
        source=source,
        pictures=HOSTILE_PICTURES,
        limit=None,
    )
    network = hostile(source.network, opened.calibration, seed=SEED)
    save_model(
        out,
        source.spec,
        network.state_dict(),
        preprocess=source.preprocess.to_dict(),
        labels=source.labels,
        provenance={**source.provenance, "hostile": made_of},
    )

"""Detectors as PyTorch modules: a backbone's taps, more maps behind or between them, predictors."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..architectures import Block
from ..backbone import Backbone
from ..layers import ConvNormAct, DepthwiseSeparable, LayerOptions, initialise
from .decode import BOXES, CLASSES
from .spec import DetectorSpec

PRIOR = -4.6  # what a sigmoid's score starts from: a hundredth, as most boxes are of nothing (OD)
_FCOS_KERNEL = 5
_DEVIATION = 0.03  # of first weights (V3 paper's code; torchvision)


class Extra(nn.Module):
    """A map half as large: 1x1 to half the channels, 3x3 at stride 2; `lite`: that one depthwise
    and a 1x1 behind it."""

    def __init__(
        self, in_channels: int, out_channels: int, *, lite: bool, options: LayerOptions
    ) -> None:
        super().__init__()
        inner = out_channels // 2
        self.reduce = ConvNormAct(in_channels, inner, 1, activation="relu6", options=options)
        self.strided = ConvNormAct(
            inner,
            inner if lite else out_channels,
            3,
            stride=2,
            groups=inner if lite else 1,
            activation="relu6",
            options=options,
        )
        self.project = (
            ConvNormAct(inner, out_channels, 1, activation="relu6", options=options)
            if lite
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.strided(self.reduce(x)))


class Predictor(nn.Module):
    """Numbers for every pixel of a map: a 1x1 convolution; `lite`: behind a depthwise 3x3."""

    def __init__(
        self, in_channels: int, numbers: int, *, lite: bool, options: LayerOptions
    ) -> None:
        super().__init__()
        self.depthwise = (
            ConvNormAct(
                in_channels,
                in_channels,
                3,
                groups=in_channels,
                activation="relu6",
                options=options,
            )
            if lite
            else nn.Identity()
        )
        self.conv = nn.Conv2d(in_channels, numbers, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.depthwise(x))


class SSDHead(nn.Module):
    """SSD and SSDLite: extra maps behind the backbone's, predictors on all."""

    def __init__(self, spec: DetectorSpec, channels: list[int], options: LayerOptions) -> None:
        super().__init__()
        lite = spec.head == "ssdlite"
        widths = [channels[-1], *spec.extras]
        self.extras = nn.ModuleList(
            Extra(before, after, lite=lite, options=options) for before, after in pairwise(widths)
        )
        maps = list(zip([*channels, *spec.extras], spec.boxes, strict=True))
        self.classes = nn.ModuleList(
            Predictor(width, boxes * spec.scores, lite=lite, options=options)
            for width, boxes in maps
        )
        self.boxes = nn.ModuleList(
            Predictor(width, boxes * 4, lite=lite, options=options) for width, boxes in maps
        )
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.normal_(part.weight, 0.0, _DEVIATION)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps, the finest first, to the classes' and the boxes' maps."""
        maps = list(features)
        for extra in self.extras:
            maps.append(extra(maps[-1]))
        return (
            [predictor(x) for predictor, x in zip(self.classes, maps, strict=True)],
            [predictor(x) for predictor, x in zip(self.boxes, maps, strict=True)],
        )

    def last_of_classes(self) -> list[nn.Conv2d]:
        """The convolutions that give the classes' scores."""
        found = [part.conv for part in self.classes if isinstance(part, Predictor)]
        assert len(found) == len(self.classes)
        return found


def _separable(width: int, options: LayerOptions) -> DepthwiseSeparable:
    block = Block(
        kind="separable",
        kernel=_FCOS_KERNEL,
        in_channels=width,
        expanded=width,
        out_channels=width,
        activation="relu",
        stride=1,
        stage=0,
    )
    return DepthwiseSeparable(block, options)


class FCOSHead(nn.Module):
    """Maps joined top down, separable convolutions on each, then classes and distances."""

    def __init__(self, spec: DetectorSpec, channels: list[int], options: LayerOptions) -> None:
        super().__init__()
        width = spec.filters
        self.laterals = nn.ModuleList(
            ConvNormAct(before, width, 1, activation="relu", options=options) for before in channels
        )
        self.towers = nn.ModuleList(
            nn.Sequential(*(_separable(width, options) for _ in range(spec.depth)))
            for _ in channels
        )
        self.classes = nn.ModuleList(nn.Conv2d(width, spec.classes, 1) for _ in channels)
        self.boxes = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in channels)
        initialise(self)
        for part in (*self.classes, *self.boxes):
            assert isinstance(part, nn.Conv2d)
            nn.init.normal_(part.weight, 0.0, 0.01)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps, the finest first, to the classes' and the boxes' maps."""
        maps = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for index in reversed(range(len(maps) - 1)):
            like = maps[index]
            wider = F.interpolate(maps[index + 1], like.shape[2:], mode="bilinear")
            maps[index] = like + wider
        maps = [tower(x) for tower, x in zip(self.towers, maps, strict=True)]
        return (
            [layer(x) for layer, x in zip(self.classes, maps, strict=True)],
            [layer(x) for layer, x in zip(self.boxes, maps, strict=True)],
        )

    def last_of_classes(self) -> list[nn.Conv2d]:
        """The convolutions that give the classes' scores."""
        return [part for part in self.classes if isinstance(part, nn.Conv2d)]


class Detector(nn.Module):
    """Images (N, 3, H, W), preprocessed, to the raw maps that `mobilenet.detect.decode` reads:
    "classes.i" (N, A * C, h, w) and "boxes.i" (N, A * 4, h, w) of every level i."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        own = spec.backbone
        options = LayerOptions(padding=own.padding, bn_eps=own.bn_eps, bn_momentum=own.bn_momentum)
        self.spec = spec
        self.backbone = Backbone(spec.network(), options)
        initialise(self.backbone)
        channels = [self.backbone.taps[name].channels for name in spec.taps]
        head = FCOSHead if spec.head == "fcos" else SSDHead
        self.head = head(spec, channels, options)
        if spec.loss == "sigmoid":
            for conv in self.head.last_of_classes():
                assert conv.bias is not None
                nn.init.constant_(conv.bias, PRIOR)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone.features(x, self.spec.taps)
        classes, boxes = self.head(list(features.values()))
        return {
            **{f"{CLASSES}.{index}": level for index, level in enumerate(classes)},
            **{f"{BOXES}.{index}": level for index, level in enumerate(boxes)},
        }


def flatten(maps: Mapping[str, Tensor], name: str, numbers: int) -> Tensor:
    """As `decode.flatten`: (N, P, numbers)."""
    levels = [level for key, level in maps.items() if key.split(".")[0] == name]
    parts = []
    for level in levels:
        batch, channels, height, width = level.shape
        apart = level.view(batch, channels // numbers, numbers, height, width)
        parts.append(apart.permute(0, 3, 4, 1, 2).reshape(batch, -1, numbers))
    return torch.cat(parts, 1)

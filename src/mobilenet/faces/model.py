"""Detectors of faces as PyTorch modules.

What differs from the papers, so that the native engine runs them: a BlazeBlock that halves its map
adds the mean of 2x2 pixels where BlazeFace adds their maximum; RetinaFace's layers end in ReLU, not
in leaky ReLU, and its coarser maps are enlarged bilinearly, not by the nearest pixel. A face has
one score, whose sigmoid is its probability; in RetinaFace that is a softmax of two.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..detect import BOXES, CLASSES
from ..errors import UsageError
from ..layers import ConvNormAct, LayerOptions, initialise
from .blaze import KERNEL, ROWS, STEM, Row, tapped
from .decode import LANDMARKS
from .spec import TAPS, FaceSpec


class BlazeUnit(nn.Module):
    """Depthwise 5x5 and 1x1, each with a norm; the activation behind both, if any."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, last: bool, options: LayerOptions
    ) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels,
            in_channels,
            KERNEL,
            stride=stride,
            groups=in_channels,
            activation=None,
            options=options,
        )
        self.pointwise = ConvNormAct(
            in_channels, out_channels, 1, activation=None if last else "relu", options=options
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class BlazeBlock(nn.Module):
    """A row of the table: one unit or two, then the block's input, halved where the block halves
    and filled up with channels of zeros, and ReLU (BlazeFace paper, Fig. 1)."""

    def __init__(self, in_channels: int, row: Row, options: LayerOptions) -> None:
        super().__init__()
        widths = (in_channels, *row.widths)
        self.units = nn.ModuleList(
            BlazeUnit(
                widths[index],
                widths[index + 1],
                stride=row.s if index == 0 else 1,
                last=index == len(row.widths) - 1,
                options=options,
            )
            for index in range(len(row.widths))
        )
        self.stride = row.s
        self.more = widths[-1] - in_channels

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for unit in self.units:
            y = unit(y)
        short = F.avg_pool2d(x, 2) if self.stride == 2 else x
        return F.relu(y + F.pad(short, (0, 0, 0, 0, 0, self.more)))


class BlazeBackbone(nn.Module):
    """BlazeFace's table up to its last map."""

    def __init__(self, options: LayerOptions) -> None:
        super().__init__()
        widths = [STEM.c, *(row.c for row in ROWS)]
        self.stem = ConvNormAct(
            3, STEM.c, STEM.k, stride=STEM.s, activation="relu", options=options
        )
        self.blocks = nn.ModuleList(
            BlazeBlock(before, row, options) for before, row in zip(widths, ROWS, strict=False)
        )
        self.channels = [ROWS[index].c for index in tapped()]

    def features(self, x: Tensor) -> list[Tensor]:
        """The maps that the head reads, the finest first. Raises UsageError for a picture that
        cannot be halved four times."""
        deepest = max(tapped().values())
        if x.shape[2] % deepest or x.shape[3] % deepest:
            raise UsageError(
                f"a picture of {x.shape[2]} x {x.shape[3]} pixels: BlazeFace takes multiples of "
                f"{deepest}; pad it"
            )
        x = self.stem(x)
        found = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in tapped():
                found.append(x)
        return found


class Predictors(nn.Module):
    """1x1 convolutions to the scores, boxes and landmarks of every map."""

    def __init__(self, spec: FaceSpec, channels: list[int]) -> None:
        super().__init__()
        maps = list(zip(channels, spec.boxes, strict=True))
        self.classes = nn.ModuleList(nn.Conv2d(width, boxes, 1) for width, boxes in maps)
        self.boxes = nn.ModuleList(nn.Conv2d(width, boxes * 4, 1) for width, boxes in maps)
        self.landmarks = nn.ModuleList(
            nn.Conv2d(width, boxes * 2 * spec.landmarks, 1) for width, boxes in maps
        )

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        return {
            f"{name}.{index}": layer(x)
            for name, layers in self.named().items()
            for index, (layer, x) in enumerate(zip(layers, maps, strict=True))
        }

    def named(self) -> dict[str, list[nn.Conv2d]]:
        """The convolutions by the maps that they give."""
        groups = {CLASSES: self.classes, BOXES: self.boxes, LANDMARKS: self.landmarks}
        return {
            name: [layer for layer in layers if isinstance(layer, nn.Conv2d)]
            for name, layers in groups.items()
        }


class BlazeHead(nn.Module):
    """Predictors on the backbone's own maps."""

    def __init__(self, spec: FaceSpec, channels: list[int], options: LayerOptions) -> None:
        super().__init__()
        self.predict = Predictors(spec, channels)

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        return self.predict(features)


class Context(nn.Module):
    """What lies around a pixel: half the channels see 3x3, a quarter 5x5, a quarter 7x7, by 3x3
    convolutions one behind the other (SSH, Fig. 4)."""

    def __init__(self, width: int, options: LayerOptions) -> None:
        super().__init__()
        quarter = width // 4
        self.near = _smooth(width, width // 2, options)
        self.reduce = _smooth(width, quarter, options)
        self.middle = _smooth(quarter, quarter, options)
        self.deepen = _smooth(quarter, quarter, options)
        self.far = _smooth(quarter, quarter, options)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        parts = [self.near(x), self.middle(reduced), self.far(self.deepen(reduced))]
        return torch.cat(parts, 1)


def _smooth(in_channels: int, out_channels: int, options: LayerOptions) -> ConvNormAct:
    return ConvNormAct(in_channels, out_channels, 3, activation="relu", options=options)


class RetinaHead(nn.Module):
    """Maps joined top down, smoothed by 3x3 where they were joined, context, predictors."""

    def __init__(self, spec: FaceSpec, channels: list[int], options: LayerOptions) -> None:
        super().__init__()
        width = spec.filters
        self.laterals = nn.ModuleList(
            ConvNormAct(before, width, 1, activation="relu", options=options) for before in channels
        )
        self.merges = nn.ModuleList(_smooth(width, width, options) for _ in channels[:-1])
        self.contexts = nn.ModuleList(Context(width, options) for _ in channels)
        self.predict = Predictors(spec, [width] * len(channels))

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        maps = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        for index in reversed(range(len(maps) - 1)):
            like = maps[index]
            wider = F.interpolate(maps[index + 1], like.shape[2:], mode="bilinear")
            maps[index] = self.merges[index](like + wider)
        return self.predict([context(x) for context, x in zip(self.contexts, maps, strict=True)])


class FaceDetector(nn.Module):
    """Images (N, 3, H, W), preprocessed, to the raw maps that `decode_faces` reads: "classes.i"
    (N, A, h, w), "boxes.i" (N, A * 4, h, w) and "landmarks.i" (N, A * 2K, h, w) of every level."""

    def __init__(self, spec: FaceSpec) -> None:
        super().__init__()
        self.spec = spec
        own = spec.backbone
        if own is None:
            options = LayerOptions()
            self.backbone = BlazeBackbone(options)
            self.head = BlazeHead(spec, self.backbone.channels, options)
        else:
            options = LayerOptions(
                padding=own.padding, bn_eps=own.bn_eps, bn_momentum=own.bn_momentum
            )
            self.backbone = Backbone(spec.network(), options)
            channels = [self.backbone.taps[name].channels for name in TAPS]
            self.head = RetinaHead(spec, channels, options)
        initialise(self)
        for layers in self.head.predict.named().values():
            for layer in layers:
                nn.init.normal_(layer.weight, 0.0, 0.01)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        backbone = self.backbone
        if isinstance(backbone, BlazeBackbone):
            return self.head(backbone.features(x))
        return self.head(list(backbone.features(x, TAPS).values()))

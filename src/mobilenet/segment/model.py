"""The segmentation heads, and the module that a `SegmenterSpec` describes."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..layers import ConvNormAct, LayerOptions, initialise, separable
from .spec import SegmenterSpec

WINDOW, WINDOW_STRIDE = 49, (16, 20)  # V3 paper, Fig. 10
LOW_CHANNELS = 48  # of DeepLabV3+'s decoder
_OPTIONS = LayerOptions()


def resized(x: Tensor, like: Tensor) -> Tensor:
    """A map (N, C, h, w), bilinear with half-pixel centres, at the height and width of `like`."""
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)


class LRASPP(nn.Module):
    """Lite reduced ASPP: the last map and one at stride 8 to class scores (V3 paper, Fig. 10)."""

    def __init__(self, spec: SegmenterSpec, channels: int, low_channels: int) -> None:
        super().__init__()
        self.window = spec.pool == "window"
        self.wide = ConvNormAct(channels, spec.filters, 1, activation="relu", options=_OPTIONS)
        self.gate = nn.Conv2d(channels, spec.filters, 1, bias=False)
        self.curve = nn.Sigmoid() if spec.gate == "sigmoid" else nn.Hardsigmoid()
        self.low = nn.Conv2d(low_channels, spec.classes, 1)
        self.high = nn.Conv2d(spec.filters, spec.classes, 1)

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        gate = self.curve(self.gate(self._pool(x)))
        wide = self.wide(x)
        if self.window:
            gate = resized(gate, wide)
        return self.low(low) + self.high(resized(wide * gate, low))

    def _pool(self, x: Tensor) -> Tensor:
        if not self.window:
            return x.mean((2, 3), keepdim=True)
        height, width = x.shape[2:]
        return F.avg_pool2d(x, (min(WINDOW, height), min(WINDOW, width)), WINDOW_STRIDE)


class ImagePool(nn.Module):
    """The mean of the whole map through a 1x1 layer, at every pixel again."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(channels, filters, 1, activation="relu", options=_OPTIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[2:])


class ASPP(nn.Module):
    """Branches of one map, joined: a 1x1, a 3x3 at every rate, the image pool (arXiv 1706.05587,
    Fig. 5); without rates it is the R-ASPP."""

    def __init__(self, channels: int, filters: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.point = ConvNormAct(channels, filters, 1, activation="relu", options=_OPTIONS)
        self.dilated = nn.ModuleList(
            ConvNormAct(channels, filters, 3, dilation=rate, activation="relu", options=_OPTIONS)
            for rate in rates
        )
        self.pool = ImagePool(channels, filters)
        self.join = ConvNormAct(
            (2 + len(rates)) * filters, filters, 1, activation="relu", options=_OPTIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.point(x), *(layer(x) for layer in self.dilated), self.pool(x)]
        return self.join(torch.cat(branches, 1))


class DeepLabV3(nn.Module):
    """(R-)ASPP, dropout, with `refine` a 3x3 layer, then a 1x1 to class scores."""

    def __init__(self, spec: SegmenterSpec, channels: int) -> None:
        super().__init__()
        filters = spec.filters
        self.aspp = ASPP(channels, filters, () if spec.head == "raspp" else spec.rates)
        self.dropout = nn.Dropout(spec.dropout)
        self.refine = (
            ConvNormAct(filters, filters, 3, activation="relu", options=_OPTIONS)
            if spec.refine
            else nn.Identity()
        )
        self.classifier = nn.Conv2d(filters, spec.classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.refine(self.dropout(self.aspp(x))))


class DeepLabV3Plus(nn.Module):
    """ASPP at the size of a map at stride 4, beside it, refined (arXiv 1802.02611, Fig. 2)."""

    def __init__(self, spec: SegmenterSpec, channels: int, low_channels: int) -> None:
        super().__init__()
        filters = spec.filters
        self.aspp = ASPP(channels, filters, spec.rates)
        self.low = ConvNormAct(low_channels, LOW_CHANNELS, 1, activation="relu", options=_OPTIONS)
        self.refine = nn.Sequential(
            separable(filters + LOW_CHANNELS, filters, _OPTIONS),
            separable(filters, filters, _OPTIONS),
        )
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Conv2d(filters, spec.classes, 1)

    def forward(self, x: Tensor, low: Tensor) -> Tensor:
        beside = torch.cat([resized(self.aspp(x), low), self.low(low)], 1)
        return self.classifier(self.dropout(self.refine(beside)))


class Auxiliary(nn.Module):
    """torchvision's FCN head on an early map: 3x3 to a quarter, dropout, 1x1 to class scores."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv = ConvNormAct(channels, inner, 3, activation="relu", options=_OPTIONS)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.conv(x)))


class Segmenter(nn.Module):
    """Images (N, 3, H, W), preprocessed, to class scores (N, classes, H, W), background first."""

    def __init__(self, spec: SegmenterSpec) -> None:
        super().__init__()
        self.spec = spec
        network, options = spec.network(), spec.backbone
        self.backbone = Backbone(
            network,
            LayerOptions(
                padding=options.padding, bn_eps=options.bn_eps, bn_momentum=options.bn_momentum
            ),
        )
        taps = network.taps()
        channels, skip = taps["last"].channels, spec.skip
        match spec.head:
            case "lraspp":
                self.head = LRASPP(spec, channels, taps[skip or "last"].channels)
            case "deeplabv3plus":
                self.head = DeepLabV3Plus(spec, channels, taps[skip or "last"].channels)
            case _:
                self.head = DeepLabV3(spec, channels)
        self.auxiliary = (
            Auxiliary(taps["c3_first"].channels, spec.classes) if spec.auxiliary else None
        )
        initialise(self)
        for part in self.modules():  # the layers that give scores start near zero
            if isinstance(part, nn.Conv2d) and part.out_channels == spec.classes:
                nn.init.normal_(part.weight, 0.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        return resized(self.scores(x)["segments"], x)

    def scores(self, x: Tensor) -> dict[str, Tensor]:
        """Class scores at the head's own stride: "segments" and, in training, "auxiliary"."""
        second = self.auxiliary is not None and self.training
        names = ["last"]
        if self.spec.skip is not None:
            names.append(self.spec.skip)
        if second:
            names.append("c3_first")
        features = self.backbone.features(x, dict.fromkeys(names))
        maps = [features[name] for name in names[: 1 + (self.spec.skip is not None)]]
        found = {"segments": self.head(*maps)}
        if self.auxiliary is not None and second:
            found["auxiliary"] = self.auxiliary(features["c3_first"])
        return found

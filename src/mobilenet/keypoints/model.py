"""The pyramid and the heads of poses, and the module that a `KeypointSpec` describes."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..layers import ConvNormAct, LayerOptions, initialise, separable
from .spec import KeypointSpec

LATERALS = ("c4", "c3", "c2")
_OPTIONS = LayerOptions()
_RARE = -math.log(99)  # a logit's start where nearly every cell is empty: 1 %


class Pyramid(nn.Module):
    """The last map, three times enlarged beside an earlier one, to stride 4.

    Each step is bilinear and then depthwise: the simple baseline's deconvolution made of what
    every runtime has, and without its checkerboard. The earlier maps are added as in MoveNet.
    """

    def __init__(self, channels: int, laterals: list[int], filters: int) -> None:
        super().__init__()
        self.top = ConvNormAct(channels, filters, 1, activation="relu", options=_OPTIONS)
        self.laterals = nn.ModuleList(nn.Conv2d(width, filters, 1) for width in laterals)
        self.smooth = nn.ModuleList(separable(filters, filters, _OPTIONS) for _ in laterals)

    def forward(self, x: Tensor, maps: list[Tensor]) -> Tensor:
        x = self.top(x)
        for beside, lateral, smooth in zip(maps, self.laterals, self.smooth, strict=True):
            x = F.interpolate(x, beside.shape[2:], mode="bilinear", align_corners=False)
            x = smooth(x + lateral(beside))
        return x


class Predictor(nn.Module):
    """One output: a separable layer, then a 1x1."""

    def __init__(self, filters: int, channels: int, bias: float) -> None:
        super().__init__()
        self.layer = separable(filters, filters, _OPTIONS)
        self.output = nn.Conv2d(filters, channels, 1)
        initialise(self.layer)
        nn.init.normal_(self.output.weight, 0.0, 0.01)
        assert self.output.bias is not None
        nn.init.constant_(self.output.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layer(x))


class KeypointNetwork(nn.Module):
    """Images (N, 3, H, W), preprocessed, to the maps of `KeypointSpec.outputs`, (N, C, h, w) at
    stride 4."""

    def __init__(self, spec: KeypointSpec) -> None:
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
        self.pyramid = Pyramid(
            taps["last"].channels, [taps[name].channels for name in LATERALS], spec.filters
        )
        initialise(self)
        rare = {"centres", "heatmaps"} if spec.head == "centre" else set()
        self.heads = nn.ModuleDict(
            {
                name: Predictor(spec.filters, channels, _RARE if name in rare else 0.0)
                for name, channels in spec.outputs.items()
            }
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.backbone.features(x, ("last", *LATERALS))
        fine = self.pyramid(features["last"], [features[name] for name in LATERALS])
        return {name: head(fine) for name, head in self.heads.items()}

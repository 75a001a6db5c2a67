"""Classification: the head behind the pool, and the module that a `ModelSpec` describes."""

import copy
from typing import TypeVar

from torch import Tensor, nn

from .architectures import Network
from .backbone import Backbone
from .layers import ACTIVATIONS, ConvNormAct, LayerOptions, fold_batch_norm, initialise

M = TypeVar("M", bound=nn.Module)


class ClassifierHead(nn.Module):
    """Global average pool, V3's hidden layer, dropout, classifier; all 1x1 convolutions on 4-D
    tensors (MobileNetV3 paper, Fig. 5; converters keep such a head where they split a linear)."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        channels = network.features
        self.hidden = None
        if network.hidden is not None:
            self.hidden = nn.Conv2d(channels, network.hidden, 1)
            self.act = ACTIVATIONS[network.hidden_activation]()
            channels = network.hidden
        self.dropout = nn.Dropout(network.dropout)
        self.classifier = nn.Conv2d(channels, network.classes, 1)
        nn.init.normal_(self.classifier.weight, 0.0, 0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Feature map (N, C, H, W) to logits (N, classes)."""
        x = x.mean((2, 3), keepdim=True)
        if self.hidden is not None:
            x = self.act(self.hidden(x))
        return self.classifier(self.dropout(x)).flatten(1)


class Classifier(nn.Module):
    """Images (N, 3, H, W), preprocessed, to logits (N, classes)."""

    def __init__(self, network: Network, options: LayerOptions) -> None:
        super().__init__()
        self.backbone = Backbone(network, options)
        initialise(self.backbone)
        self.head = ClassifierHead(network)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def folded(module: M) -> M:
    """A copy in evaluation mode, on the CPU, without batch norms: the same function but for
    rounding, and two to three times as fast. Folding is done in float64, so that no converter
    does it in float32."""
    copied = copy.deepcopy(module).cpu()
    for layer in copied.modules():
        if isinstance(layer, ConvNormAct):
            weight, bias = fold_batch_norm(layer)
            layer.conv.weight = nn.Parameter(weight, requires_grad=False)
            layer.conv.bias = nn.Parameter(bias, requires_grad=False)
            # ConvNormAct declares a batch norm; the copy is only run and traced
            layer.register_module("norm", nn.Identity())
    return copied.eval()

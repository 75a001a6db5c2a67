"""The network as it is exported: a copy whose batch norms are folded into the convolutions."""

import copy

from torch import nn

from ..classify import Classifier
from ..layers import ConvNormAct, fold_batch_norm


def folded(classifier: Classifier) -> Classifier:
    """A copy in evaluation mode, on the CPU, without batch norms; the same function but for
    rounding. Folding is done in float64, so that no converter does it in float32."""
    copied = copy.deepcopy(classifier).cpu()
    for layer in copied.modules():
        if isinstance(layer, ConvNormAct):
            weight, bias = fold_batch_norm(layer)
            layer.conv.weight = nn.Parameter(weight, requires_grad=False)
            layer.conv.bias = nn.Parameter(bias, requires_grad=False)
            # ConvNormAct declares a batch norm; the copy is only run and traced
            layer.register_module("norm", nn.Identity())
        elif isinstance(layer, nn.ReLU | nn.ReLU6 | nn.Hardswish):
            # torch.export takes in-place operations apart, which doubles its time
            layer.inplace = False
    return copied.eval()

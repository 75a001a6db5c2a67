"""Classification: the head behind the pool, and the module that a `ModelSpec` describes."""

from torch import Tensor, nn

from .architectures import Network
from .backbone import Backbone
from .layers import ACTIVATIONS, LayerOptions, initialise


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

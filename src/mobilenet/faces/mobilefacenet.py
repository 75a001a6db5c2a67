"""MobileFaceNet as a PyTorch module (arXiv 1804.07573, Table 1)."""

from torch import Tensor, nn
from torch.nn import functional as F

from ..architectures import Block
from ..errors import UsageError
from ..layers import ConvNormAct, LayerOptions, initialise
from .embedding import EmbeddingActivation, EmbeddingSpec


class Layer(nn.Module):
    """Convolution, norm and the spec's activation; PReLU with a slope a channel."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: EmbeddingActivation,
    ) -> None:
        super().__init__()
        self.conv = ConvNormAct(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            groups=groups,
            activation=None,
            options=LayerOptions(),
        )
        self.act = nn.PReLU(out_channels) if activation == "prelu" else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Bottleneck(nn.Module):
    """V2's block with the spec's activation."""

    def __init__(self, block: Block, activation: EmbeddingActivation) -> None:
        super().__init__()
        width = block.expanded
        self.residual = block.residual
        self.expand = Layer(block.in_channels, width, 1, activation=activation)
        self.depthwise = Layer(
            width, width, 3, stride=block.stride, groups=width, activation=activation
        )
        self.project = ConvNormAct(
            width, block.out_channels, 1, activation=None, options=LayerOptions()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class MobileFaceNet(nn.Module):
    """Aligned faces (N, 3, size, size), preprocessed, to embeddings (N, dimension) of length 1."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        super().__init__()
        self.spec = spec
        stem, last, activation = spec.stem, spec.last, spec.activation
        blocks = spec.blocks()
        self.stem = Layer(3, stem, 3, stride=2, activation=activation)
        self.depthwise = Layer(stem, stem, 3, groups=stem, activation=activation)
        self.blocks = nn.ModuleList(Bottleneck(block, activation) for block in blocks)
        self.last = Layer(blocks[-1].out_channels, last, 1, activation=activation)
        # over the whole map, so its padding is taken away
        self.whole = ConvNormAct(
            last, last, spec.cells, groups=last, activation=None, options=LayerOptions()
        )
        self.whole.conv.padding = (0, 0)
        self.linear = ConvNormAct(last, spec.dimension, 1, activation=None, options=LayerOptions())
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.unscaled(x))

    def unscaled(self, x: Tensor) -> Tensor:
        """Embeddings (N, dimension) of any length. Raises UsageError for pictures of another size
        than the spec's."""
        size = self.spec.size
        if tuple(x.shape[2:]) != (size, size):
            raise UsageError(
                f"pictures of {x.shape[2]} x {x.shape[3]} pixels: expected {size} x {size}, as "
                "`align_face` gives"
            )
        x = self.depthwise(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.linear(self.whole(self.last(x))).flatten(1)

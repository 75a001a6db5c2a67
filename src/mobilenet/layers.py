"""The family's building layers as PyTorch modules.

All take and return float tensors (N, C, H, W). The order inside an inverted residual is expand,
depthwise, squeeze-excite, linear project (MobileNetV3 paper, 5.3).
"""

import copy
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .architectures import Activation, Block

M = TypeVar("M", bound=nn.Module)

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hard_swish": nn.Hardswish,
}


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """What every layer of one network shares. `padding`: "torch" pads both sides alike, "same"
    as TensorFlow's SAME does (at stride 2 on even sizes only below and right)."""

    padding: str = "torch"
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis of `size` pixels: (before, after)."""
    reach = dilation * (kernel - 1) + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


class ConvNormAct(nn.Module):
    """Convolution without bias, batch norm, activation (None: linear)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: Activation | None,
        options: LayerOptions,
    ) -> None:
        super().__init__()
        # at stride 1 SAME is symmetric, so only strided layers pad by their input's size
        self.pointwise = kernel == 1
        self.pads_same = options.padding == "same" and stride > 1
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=0 if self.pads_same else dilation * (kernel - 1) // 2,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=options.bn_eps, momentum=options.bn_momentum)
        self.act = ACTIVATIONS[activation](inplace=True) if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.pads_same:
            kernel, stride, dilation = (
                self.conv.kernel_size[0],
                self.conv.stride[0],
                self.conv.dilation[0],
            )
            top, bottom = same_padding(x.shape[2], kernel, stride, dilation)
            left, right = same_padding(x.shape[3], kernel, stride, dilation)
            x = F.pad(x, (left, right, top, bottom))
        return self.act(self.norm(self._convolve(x)))

    def _convolve(self, x: Tensor) -> Tensor:
        pixels_last = x.is_contiguous(memory_format=torch.channels_last)
        if self.training and self.pointwise and pixels_last and x.device.type == "cpu":
            # a matrix product, whose backward pass is about a quarter faster than a convolution's
            y = F.linear(x.permute(0, 2, 3, 1), self.conv.weight.flatten(1))
            return y.permute(0, 3, 1, 2)
        spare = self._taps_outside(x)
        if self.training and spare:
            weight = self.conv.weight[:, :, spare:-spare, spare:-spare]
            padding = (weight.shape[2] // 2) * self.conv.dilation[0]
            if weight.shape[2] == 1 == self.conv.stride[0] and self.conv.groups > 1:
                return x * weight.view(1, -1, 1, 1)
            return F.conv2d(
                x, weight, None, self.conv.stride, padding, self.conv.dilation, self.conv.groups
            )
        return self.conv(x)

    def _taps_outside(self, x: Tensor) -> int:
        """How many rows of the kernel at each of its sides meet nothing but padding. On maps of a
        pixel or two torch spends most of a training step on their gradients, which are zero."""
        reach = self.conv.kernel_size[0] // 2
        if self.pads_same or reach == 0:
            return 0
        return max(0, reach - (max(x.shape[2:]) - 1) // self.conv.dilation[0])


class SqueezeExcite(nn.Module):
    """Gate each channel by a hard sigmoid of the pooled channels (MobileNetV3 paper, 5.3)."""

    def __init__(self, channels: int, squeeze: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.expand = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(pooled))))


class ConvBlock(nn.Module):
    """The stem, and the 1x1 convolution behind the body."""

    def __init__(self, block: Block, options: LayerOptions) -> None:
        super().__init__()
        self.conv = ConvNormAct(
            block.in_channels,
            block.out_channels,
            block.kernel,
            stride=block.stride,
            dilation=block.dilation,
            activation=block.activation,
            options=options,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def _depthwise(block: Block, options: LayerOptions) -> ConvNormAct:
    return ConvNormAct(
        block.expanded,
        block.expanded,
        block.kernel,
        stride=block.stride,
        dilation=block.dilation,
        groups=block.expanded,
        activation=block.activation,
        options=options,
    )


class DepthwiseSeparable(nn.Module):
    """V1's block: depthwise then pointwise, each with norm and activation (V1 paper, Fig. 3)."""

    def __init__(self, block: Block, options: LayerOptions) -> None:
        super().__init__()
        self.depthwise = _depthwise(block, options)
        self.pointwise = ConvNormAct(
            block.expanded, block.out_channels, 1, activation=block.activation, options=options
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def separable(in_channels: int, out_channels: int, options: LayerOptions) -> DepthwiseSeparable:
    """A depthwise 3x3 and a 1x1 layer, both with ReLU: what heads are refined by."""
    return DepthwiseSeparable(
        Block(
            kind="separable",
            kernel=3,
            in_channels=in_channels,
            expanded=in_channels,
            out_channels=out_channels,
            activation="relu",
            stride=1,
            stage=2,
        ),
        options,
    )


class InvertedResidual(nn.Module):
    """V2's and V3's block; `expanded` is the tensor that lives only inside (V2 paper, Fig. 3)."""

    def __init__(self, block: Block, options: LayerOptions) -> None:
        super().__init__()
        self.residual = block.residual
        self.expand = (
            ConvNormAct(
                block.in_channels, block.expanded, 1, activation=block.activation, options=options
            )
            if block.expands
            else nn.Identity()
        )
        self.depthwise = _depthwise(block, options)
        self.squeeze = (
            SqueezeExcite(block.expanded, block.squeeze) if block.squeeze else nn.Identity()
        )
        self.project = ConvNormAct(
            block.expanded, block.out_channels, 1, activation=None, options=options
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.from_expanded(x, self.expand(x))

    def from_expanded(self, x: Tensor, expanded: Tensor) -> Tensor:
        """The rest of the block, given its input and its expanded tensor."""
        y = self.project(self.squeeze(self.depthwise(expanded)))
        return x + y if self.residual else y


BLOCKS: dict[str, type[nn.Module]] = {
    "conv": ConvBlock,
    "separable": DepthwiseSeparable,
    "inverted": InvertedResidual,
}


def initialise(module: nn.Module) -> None:
    """Initialise in place: convolutions N(0, sqrt(2 / fan_out)) with fan_out = k*k*out/groups,
    norms 1 and 0, biases 0 (the rule that, unlike torchvision's, divides by the groups)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels // part.groups
            nn.init.normal_(part.weight, 0.0, (2.0 / fan_out) ** 0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def fold_batch_norm(layer: ConvNormAct) -> tuple[Tensor, Tensor]:
    """The weight (O, I/groups, k, k) and bias (O,) of a ConvNormAct with its norm folded in.

    Computed in float64 from the running statistics, returned in the weight's type.
    """
    weight, norm = layer.conv.weight.detach(), layer.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.detach().double() - norm.running_mean.double() * scale
    folded = weight.double() * scale[:, None, None, None]
    return folded.to(weight.dtype), bias.to(weight.dtype)


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

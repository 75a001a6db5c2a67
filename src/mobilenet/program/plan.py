"""`program_of`: a classifier's rows and weights as a program, without a general graph."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..architectures import Block
from .builder import Builder
from .steps import IMAGE, Filter, Padding, Program

if TYPE_CHECKING:
    import torch

    from ..backbone import Backbone
    from ..classify import Classifier
    from ..layers import ConvNormAct

LOGITS = "logits"


def program_of(classifier: "Classifier", *, taps: Iterable[str] = ()) -> Program:
    """The program whose output is "logits" (N, classes, 1, 1); with `taps`, `backbone_program`.

    Batch norms are folded in float64. Raises ValueError for a tap that the network does not have.
    """
    if names := tuple(taps):
        return backbone_program(classifier.backbone, names)
    builder, network = Builder(), classifier.backbone.network
    value = IMAGE
    for block, module in zip(network.blocks, classifier.backbone.blocks, strict=True):
        value = _append(builder, value, block, module, expanded=False)
    head = classifier.head
    value = builder.pool(value)
    if head.hidden is not None:
        value = builder.conv(value, plain_filter(head.hidden), activation=network.hidden_activation)
    return builder.program({LOGITS: builder.conv(value, plain_filter(head.classifier))})


def backbone_program(backbone: "Backbone", taps: Iterable[str]) -> Program:
    """The program whose outputs are these named maps (see `Network.taps`), up to the last of them.

    Batch norms are folded in float64. Raises ValueError for a tap that the network does not have.
    """
    from ..layers import ConvNormAct, InvertedResidual

    names = tuple(taps)
    if unknown := [name for name in names if name not in backbone.taps]:
        raise ValueError(f"taps {unknown}: expected of {list(backbone.taps)}")
    wanted = {name: backbone.taps[name] for name in names}
    blocks = list(zip(backbone.network.blocks, backbone.blocks, strict=True))
    blocks = blocks[: max((tap.block for tap in wanted.values()), default=-1) + 1]

    builder = Builder()
    value, found = IMAGE, {}
    for index, (block, module) in enumerate(blocks):
        here = {name: tap.expanded for name, tap in wanted.items() if tap.block == index}
        expanded = any(here.values())
        if expanded:
            assert isinstance(module, InvertedResidual)
            assert isinstance(module.expand, ConvNormAct)
            value = builder.conv(value, folded_filter(module.expand), activation=block.activation)
            found |= {name: value for name, inside in here.items() if inside}
            if index == len(blocks) - 1 and all(here.values()):
                break
        value = _append(builder, value, block, module, expanded=expanded)
        found |= {name: value for name, inside in here.items() if not inside}
    return builder.program({name: found[name] for name in names})


def folded_filter(layer: "ConvNormAct") -> Filter:
    """A layer's convolution with its batch norm folded in."""
    from ..layers import fold_batch_norm

    weight, bias = fold_batch_norm(layer)
    return Filter(weight=weight.float().cpu().numpy(), bias=bias.float().cpu().numpy())


def append_layer(builder: Builder, source: int, layer: "torch.nn.Module") -> int:
    """Append a head's convolution of stride 1 with its norm, which ends in ReLU; its value."""
    from ..layers import ConvNormAct

    assert isinstance(layer, ConvNormAct)
    return builder.conv(
        source, folded_filter(layer), dilation=layer.conv.dilation[0], activation="relu"
    )


def append_separable(builder: Builder, source: int, layer: "torch.nn.Module") -> int:
    """Append a head's separable layer (`layers.separable`), which ends in ReLU; its value."""
    from ..layers import DepthwiseSeparable

    assert isinstance(layer, DepthwiseSeparable)
    return builder.block(
        source,
        depthwise=folded_filter(layer.depthwise),
        project=folded_filter(layer.pointwise),
        activation="relu",
        out_activation="relu",
    )


def plain_filter(conv: "torch.nn.Conv2d") -> Filter:
    """A convolution without a norm, with or without a bias."""
    weight = conv.weight.detach()
    bias = weight.new_zeros(len(weight)) if conv.bias is None else conv.bias.detach()
    return Filter(weight=weight.float().cpu().numpy(), bias=bias.float().cpu().numpy())


def _append(
    builder: Builder, value: int, block: Block, module: "torch.nn.Module", *, expanded: bool
) -> int:
    """One row of the network; `expanded`: `value` is the row's expanded tensor already."""
    from ..layers import (
        ConvBlock,
        ConvNormAct,
        DepthwiseSeparable,
        InvertedResidual,
        SqueezeExcite,
    )

    if isinstance(module, ConvBlock):
        return builder.conv(
            value,
            folded_filter(module.conv),
            stride=block.stride,
            dilation=block.dilation,
            padding=_padding(module.conv),
            activation=block.activation,
        )
    if isinstance(module, DepthwiseSeparable):
        return builder.block(
            value,
            depthwise=folded_filter(module.depthwise),
            project=folded_filter(module.pointwise),
            stride=block.stride,
            dilation=block.dilation,
            padding=_padding(module.depthwise),
            activation=block.activation,
            out_activation=block.activation,
        )
    assert isinstance(module, InvertedResidual)
    assert not (expanded and block.residual)  # a block behind a tap inside it is strided
    expand = module.expand if isinstance(module.expand, ConvNormAct) and not expanded else None
    squeeze = module.squeeze if isinstance(module.squeeze, SqueezeExcite) else None
    return builder.block(
        value,
        expand=expand and folded_filter(expand),
        depthwise=folded_filter(module.depthwise),
        reduce=squeeze and plain_filter(squeeze.reduce),
        excite=squeeze and plain_filter(squeeze.expand),
        project=folded_filter(module.project),
        stride=block.stride,
        dilation=block.dilation,
        padding=_padding(module.depthwise),
        activation=block.activation,
        residual=block.residual,
    )


def _padding(layer: "ConvNormAct") -> Padding:
    return "same" if layer.pads_same else "symmetric"

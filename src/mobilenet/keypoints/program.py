"""`keypoint_program`: a network for poses as a program, folded."""

from typing import TYPE_CHECKING

from ..program import (
    Builder,
    Program,
    append_separable,
    backbone_program,
    folded_filter,
    plain_filter,
)

if TYPE_CHECKING:
    from .model import KeypointNetwork


def keypoint_program(network: "KeypointNetwork") -> Program:
    """The program whose outputs are those of `KeypointSpec.outputs`, (N, C, h, w) at stride 4."""
    from torch import nn

    from ..layers import ConvNormAct
    from .model import LATERALS, Predictor

    backbone = backbone_program(network.backbone, ("last", *LATERALS))
    values = dict(backbone.outputs)
    builder = Builder(steps=list(backbone.steps))
    pyramid = network.pyramid
    assert isinstance(pyramid.top, ConvNormAct)
    value = builder.conv(values["last"], folded_filter(pyramid.top), activation="relu")
    for name, lateral, smooth in zip(LATERALS, pyramid.laterals, pyramid.smooth, strict=True):
        assert isinstance(lateral, nn.Conv2d)
        large = builder.resize(value, like=values[name])
        beside = builder.conv(values[name], plain_filter(lateral))
        value = append_separable(builder, builder.add(large, beside), smooth)
    outputs: dict[str, int] = {}
    for name, head in network.heads.items():
        assert isinstance(head, Predictor)
        inner = append_separable(builder, value, head.layer)
        outputs[name] = builder.conv(inner, plain_filter(head.output))
    return builder.program(outputs)

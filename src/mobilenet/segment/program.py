"""`segment_program`: a segmenter as a program, folded; its masks are made of what it answers."""

from typing import TYPE_CHECKING

from ..errors import UsageError
from ..program import (
    Builder,
    Program,
    append_layer,
    append_separable,
    backbone_program,
    plain_filter,
)

if TYPE_CHECKING:
    from .model import ASPP, Segmenter

SEGMENTS = "segments"
_MOST = 4  # maps that a step joins


def segment_program(segmenter: "Segmenter") -> Program:
    """The program whose output is "segments" (N, classes, h, w), at the head's own stride.

    The auxiliary head is left out. Raises UsageError for pool "window", whose gate may have
    several pixels, which no step multiplies.
    """
    from .model import LRASPP, DeepLabV3, DeepLabV3Plus

    spec, head = segmenter.spec, segmenter.head
    if spec.pool == "window":
        raise UsageError("pool 'window' has no program: train with pool 'global' to export")
    taps = ["last"] if spec.skip is None else ["last", spec.skip]
    backbone = backbone_program(segmenter.backbone, taps)
    values = dict(backbone.outputs)
    builder = Builder(steps=list(backbone.steps))
    last, skip = values["last"], values.get(spec.skip or "")
    match head:
        case LRASPP():
            assert skip is not None
            gate = builder.conv(builder.pool(last), plain_filter(head.gate), activation=spec.gate)
            wide = builder.multiply(append_layer(builder, last, head.wide), gate)
            high = builder.conv(builder.resize(wide, like=skip), plain_filter(head.high))
            value = builder.add(builder.conv(skip, plain_filter(head.low)), high)
        case DeepLabV3Plus():
            assert skip is not None
            wide = builder.resize(_aspp(builder, last, head.aspp), like=skip)
            value = builder.concat(wide, append_layer(builder, skip, head.low))
            for layer in head.refine:
                value = append_separable(builder, value, layer)
            value = builder.conv(value, plain_filter(head.classifier))
        case DeepLabV3():
            value = _aspp(builder, last, head.aspp)
            if spec.refine:
                value = append_layer(builder, value, head.refine)
            value = builder.conv(value, plain_filter(head.classifier))
        case _:
            raise AssertionError(head)
    return builder.program({SEGMENTS: value})


def _aspp(builder: Builder, source: int, aspp: "ASPP") -> int:
    pooled = append_layer(builder, builder.pool(source), aspp.pool.conv)
    branches = [
        append_layer(builder, source, aspp.point),
        *(append_layer(builder, source, layer) for layer in aspp.dilated),
        builder.resize(pooled, like=source),
    ]
    while len(branches) > 1:
        branches = [builder.concat(*branches[:_MOST]), *branches[_MOST:]]
    return append_layer(builder, branches[0], aspp.join)

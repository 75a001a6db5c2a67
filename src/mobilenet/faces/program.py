"""`face_program`: a detector of faces as a program, folded; `decode_faces` reads its answers."""

from typing import TYPE_CHECKING

import numpy as np

from ..program import (
    IMAGE,
    Activation,
    Builder,
    Filter,
    Program,
    append_layer,
    backbone_program,
    folded_filter,
    plain_filter,
)
from .blaze import STEM, tapped
from .spec import TAPS

if TYPE_CHECKING:
    from .model import BlazeBackbone, BlazeBlock, Context, FaceDetector, RetinaHead


def face_program(detector: "FaceDetector") -> Program:
    """The program whose outputs are the raw maps "classes.i", "boxes.i" and "landmarks.i"."""
    from .model import BlazeBackbone, RetinaHead

    head = detector.head
    if isinstance(detector.backbone, BlazeBackbone):
        builder = Builder()
        maps = _blaze(builder, detector.backbone)
    else:
        assert isinstance(head, RetinaHead)
        backbone = backbone_program(detector.backbone, TAPS)
        builder = Builder(steps=list(backbone.steps))
        maps = _retina(builder, [value for _, value in backbone.outputs], head)
    outputs = {
        f"{name}.{index}": builder.conv(value, plain_filter(layer))
        for name, layers in head.predict.named().items()
        for index, (layer, value) in enumerate(zip(layers, maps, strict=True))
    }
    return builder.program(outputs)


def _blaze(builder: Builder, backbone: "BlazeBackbone") -> list[int]:
    from .model import BlazeBlock

    value = builder.conv(IMAGE, folded_filter(backbone.stem), stride=STEM.s, activation="relu")
    found = []
    for index, block in enumerate(backbone.blocks):
        assert isinstance(block, BlazeBlock)
        value = _block(builder, value, block)
        if index in tapped():
            found.append(value)
    return found


def _block(builder: Builder, source: int, block: "BlazeBlock") -> int:
    from .model import BlazeUnit

    value, last = source, len(block.units) - 1
    for index, unit in enumerate(block.units):
        assert isinstance(unit, BlazeUnit)
        behind: Activation = "none" if index == last else "relu"
        value = builder.block(
            value,
            depthwise=folded_filter(unit.depthwise),
            project=folded_filter(unit.pointwise),
            stride=block.stride if index == 0 else 1,
            activation="none",
            out_activation=behind,
        )
    short = source
    if block.stride == 2:
        short = builder.average_pool(short, kernel=2, stride=2)
    if block.more:
        short = builder.conv(short, _filled(block))
    return builder.add(value, short, activation="relu")


def _filled(block: "BlazeBlock") -> Filter:
    """Channels of zeros behind those that there are: no step does that but a convolution."""
    from .model import BlazeUnit

    last = block.units[-1]
    assert isinstance(last, BlazeUnit)
    channels = last.pointwise.conv.out_channels
    weight = np.eye(channels, channels - block.more, dtype=np.float32)
    return Filter(weight=weight[:, :, None, None], bias=np.zeros(channels, np.float32))


def _retina(builder: Builder, values: list[int], head: "RetinaHead") -> list[int]:
    from .model import Context

    maps = [append_layer(builder, v, layer) for v, layer in zip(values, head.laterals, strict=True)]
    for index in reversed(range(len(maps) - 1)):
        wider = builder.resize(maps[index + 1], like=maps[index])
        maps[index] = append_layer(builder, builder.add(maps[index], wider), head.merges[index])
    found = []
    for value, context in zip(maps, head.contexts, strict=True):
        assert isinstance(context, Context)
        found.append(_context(builder, value, context))
    return found


def _context(builder: Builder, source: int, context: "Context") -> int:
    near = append_layer(builder, source, context.near)
    reduced = append_layer(builder, source, context.reduce)
    middle = append_layer(builder, reduced, context.middle)
    far = append_layer(builder, append_layer(builder, reduced, context.deepen), context.far)
    return builder.concat(near, middle, far)

"""`detector_program`: a detector as a program, folded; `decode` makes boxes of what it answers."""

from typing import TYPE_CHECKING

from ..program import Builder, Padding, Program, backbone_program, folded_filter, plain_filter
from .decode import BOXES, CLASSES

if TYPE_CHECKING:
    from torch import nn

    from .model import Detector, Extra, FCOSHead, SSDHead


def detector_program(detector: "Detector") -> Program:
    """The program whose outputs are the detector's raw maps, "classes.i" and "boxes.i"."""
    from .model import FCOSHead

    backbone = backbone_program(detector.backbone, detector.spec.taps)
    values = [value for _, value in backbone.outputs]
    builder = Builder(steps=list(backbone.steps))
    head = detector.head
    if isinstance(head, FCOSHead):
        classes, boxes = _fcos(builder, values, head)
    else:
        classes, boxes = _ssd(builder, values, head)
    return builder.program(
        {
            **{f"{CLASSES}.{index}": value for index, value in enumerate(classes)},
            **{f"{BOXES}.{index}": value for index, value in enumerate(boxes)},
        }
    )


def _ssd(builder: Builder, values: list[int], head: "SSDHead") -> tuple[list[int], list[int]]:
    from .model import Extra

    for extra in head.extras:
        assert isinstance(extra, Extra)
        values = [*values, _extra(builder, values[-1], extra)]
    classes = [_predict(builder, v, part) for v, part in zip(values, head.classes, strict=True)]
    boxes = [_predict(builder, v, part) for v, part in zip(values, head.boxes, strict=True)]
    return classes, boxes


def _extra(builder: Builder, source: int, extra: "Extra") -> int:
    from ..layers import ConvNormAct

    padding: Padding = "same" if extra.strided.pads_same else "symmetric"
    reduce, strided = folded_filter(extra.reduce), folded_filter(extra.strided)
    if isinstance(extra.project, ConvNormAct):
        return builder.block(
            source,
            expand=reduce,
            depthwise=strided,
            project=folded_filter(extra.project),
            stride=2,
            padding=padding,
            activation="relu6",
            out_activation="relu6",
        )
    inner = builder.conv(source, reduce, activation="relu6")
    return builder.conv(inner, strided, stride=2, padding=padding, activation="relu6")


def _predict(builder: Builder, source: int, part: "nn.Module") -> int:
    from ..layers import ConvNormAct
    from .model import Predictor

    assert isinstance(part, Predictor)
    if not isinstance(part.depthwise, ConvNormAct):
        return builder.conv(source, plain_filter(part.conv))
    return builder.block(
        source,
        depthwise=folded_filter(part.depthwise),
        project=plain_filter(part.conv),
        activation="relu6",
    )


def _fcos(builder: Builder, values: list[int], head: "FCOSHead") -> tuple[list[int], list[int]]:
    from torch import nn

    from ..layers import ConvNormAct, DepthwiseSeparable

    maps = []
    for value, lateral in zip(values, head.laterals, strict=True):
        assert isinstance(lateral, ConvNormAct)
        maps.append(builder.conv(value, folded_filter(lateral), activation="relu"))
    for index in reversed(range(len(maps) - 1)):
        wider = builder.resize(maps[index + 1], like=maps[index])
        maps[index] = builder.add(maps[index], wider)
    classes, boxes = [], []
    for value, tower, scores, sides in zip(
        maps, head.towers, head.classes, head.boxes, strict=True
    ):
        assert isinstance(tower, nn.Sequential)
        assert isinstance(scores, nn.Conv2d)
        assert isinstance(sides, nn.Conv2d)
        for layer in tower:
            assert isinstance(layer, DepthwiseSeparable)
            value = builder.block(
                value,
                depthwise=folded_filter(layer.depthwise),
                project=folded_filter(layer.pointwise),
                activation="relu",
                out_activation="relu",
            )
        classes.append(builder.conv(value, plain_filter(scores)))
        boxes.append(builder.conv(value, plain_filter(sides)))
    return classes, boxes

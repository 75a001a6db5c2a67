"""What a .tflite file carries for readers of TFLite Metadata (tflite-support, Android's task
library, LiteRT.js): what the input is, how it is normalised, and labels.txt.

A flatbuffer of metadata_schema.fbs, version 1.0.0, whose tables are written field by field below;
the labels are a ZIP behind the end of the file, where readers of the model itself do not look.
"""

import io
import zipfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..preprocess import Preprocess

if TYPE_CHECKING:
    from flatbuffers import Builder

LABELS = "labels.txt"
ENTRY = "TFLITE_METADATA"  # of the model's metadata

_IDENTIFIER, _PARSER = b"M001", "1.0.0"
_IMAGE_PROPERTIES, _NORMALISATION, _RGB, _VALUE_LABELS = 2, 1, 1, 3  # of the schema's unions, enums
_DATE = (1980, 1, 1, 0, 0, 0)

Field = tuple[int, str, Any]  # its number, its kind, its value


def card_bytes(name: str, rules: Preprocess, *, pixels: bool) -> bytes:
    """The flatbuffer. `pixels`: the input is uint8 from 0 to 255, normalised inside the file."""
    from flatbuffers import Builder

    builder = Builder(1024)
    size = _table(builder, (0, "Uint32", rules.size), (1, "Uint32", rules.size))
    picture = _table(builder, (0, "Int8", _RGB), (1, "UOffsetTRelative", size))
    content = _table(builder, (0, "Uint8", _IMAGE_PROPERTIES), (1, "UOffsetTRelative", picture))
    units = []
    if not pixels:
        mean, std = (
            _floats(builder, [255 * v for v in values]) for values in (rules.mean, rules.std)
        )
        options = _table(builder, (0, "UOffsetTRelative", mean), (1, "UOffsetTRelative", std))
        unit = _table(builder, (0, "Uint8", _NORMALISATION), (1, "UOffsetTRelative", options))
        units = [(4, "UOffsetTRelative", _offsets(builder, [unit]))]
    image = _table(
        builder,
        (0, "UOffsetTRelative", builder.CreateString("image")),
        (3, "UOffsetTRelative", content),
        *units,
    )
    labels = _table(
        builder,
        (0, "UOffsetTRelative", builder.CreateString(LABELS)),
        (2, "Int8", _VALUE_LABELS),
    )
    logits = _table(
        builder,
        (0, "UOffsetTRelative", builder.CreateString("logits")),
        (1, "UOffsetTRelative", builder.CreateString("before the softmax")),
        (6, "UOffsetTRelative", _offsets(builder, [labels])),
    )
    graph = _table(
        builder,
        (2, "UOffsetTRelative", _offsets(builder, [image])),
        (3, "UOffsetTRelative", _offsets(builder, [logits])),
    )
    model = _table(
        builder,
        (0, "UOffsetTRelative", builder.CreateString(name)),
        (3, "UOffsetTRelative", _offsets(builder, [graph])),
        (7, "UOffsetTRelative", builder.CreateString(_PARSER)),
    )
    builder.Finish(model, _IDENTIFIER)
    return bytes(builder.Output())


def with_labels(data: bytes, labels: Sequence[str]) -> bytes:
    """A .tflite file with labels.txt, a line each, behind its end."""
    buffer = io.BytesIO()
    buffer.write(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        text = "".join(f"{label}\n" for label in labels)
        archive.writestr(zipfile.ZipInfo(LABELS, _DATE), text.encode())
    return buffer.getvalue()


def _table(builder: "Builder", *fields: Field) -> int:
    """A table of fields that are written already, as far as they are no numbers."""
    builder.StartObject(max(number for number, _, _ in fields) + 1)
    for number, kind, value in fields:
        if kind == "UOffsetTRelative":
            builder.PrependUOffsetTRelativeSlot(number, value, 0)
        else:
            getattr(builder, f"Prepend{kind}Slot")(number, value, 0)
    return builder.EndObject()


def _offsets(builder: "Builder", tables: Sequence[int]) -> int:
    builder.StartVector(4, len(tables), 4)
    for table in reversed(tables):
        builder.PrependUOffsetTRelative(table)
    return builder.EndVector()


def _floats(builder: "Builder", numbers: Sequence[float]) -> int:
    builder.StartVector(4, len(numbers), 4)
    for number in reversed(numbers):
        builder.PrependFloat32(number)
    return builder.EndVector()

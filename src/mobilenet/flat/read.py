"""`read_engine`: the engine's model file back to a network, to inspect it and to check the writer.

What runs such files on a device is the native engine, whose own reader trusts nothing; this one
checks enough to say of a damaged file that it is damaged.
"""

from dataclasses import replace

import numpy as np

from ..errors import CheckpointError
from ..integer import (
    Affine,
    IntegerFilter,
    Place,
    QuantisedProgram,
    Stage,
    Wide,
    largest_at,
    largest_weight,
    places,
    result_scale,
    stages,
    weight_type,
)
from ..program import (
    IMAGE,
    AddStep,
    AveragePoolStep,
    BlockStep,
    ConvStep,
    Filter,
    Program,
    Step,
)
from ..runtime import Precision
from .checksum import file_checksum
from .layouts import (
    K_MULTIPLE,
    PANEL,
    TOGETHER,
    from_bfloat16,
    from_matrix,
    from_panels,
    inputs_of,
    round_up,
)
from .records import (
    ACTIVATIONS,
    ALIGN,
    HEADER,
    KINDS,
    MAGIC,
    NONE,
    OUTPUT,
    PADDINGS,
    PRECISIONS,
    STEP,
    VERSION,
    Card,
    EngineFile,
)

_KINDS = {number: kind for kind, number in KINDS.items()}
_TYPES = {"float32": "<f4", "bfloat16": "<u2", "int8": "i1"}


def read_engine(data: bytes) -> EngineFile:
    """The content of a file's bytes. Raises CheckpointError for what `write_engine` did not write.

    An int8 file's program has the weights that its whole numbers stand for.
    """
    try:
        return _read(data)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(f"engine file: damaged: {error}") from error


def _read(data: bytes) -> EngineFile:
    if len(data) < HEADER.itemsize or data[: len(MAGIC)] != MAGIC:
        raise CheckpointError("engine file: not one, or cut off within its header")
    header = np.frombuffer(data, HEADER, 1)[0]
    if header["version"] != VERSION:
        raise CheckpointError(
            f"engine file: version {header['version']}, this mobilenet reads {VERSION}"
        )
    if header["file_bytes"] != len(data):
        raise CheckpointError(f"engine file: {len(data)} bytes of {header['file_bytes']}")
    if header["checksum"] != file_checksum(data):
        raise CheckpointError("engine file: its checksum is not that of its content: damaged")
    records = np.frombuffer(data, STEP, header["step_count"], HEADER.itemsize)
    start = HEADER.itemsize + records.nbytes
    outputs = np.frombuffer(data, OUTPUT, header["output_count"], start)
    reader = _Reader(data, PRECISIONS[header["precision"]], wide=Wide(int(header["wide"])))
    text = reader.text(header["text"], header["text_bytes"])

    program = Program(
        steps=tuple(_step(record, reader.filters(record)) for record in records),
        outputs=tuple((_text_at(text, o["name"]), int(o["value"])) for o in outputs),
    )
    labels = text[header["labels"] :].split(b"\0")[: header["label_count"]]
    network = program
    if reader.precision == "int8":
        network = _quantised(program, reader, header["in_range"], records)
    return EngineFile(
        network=network,
        precision=reader.precision,
        height=int(header["height"]),
        width=int(header["width"]),
        card=Card(
            contract=_text_at(reader.text(header["contract"], header["contract_bytes"]), 0),
            labels=tuple(label.decode() for label in labels),
            mean=tuple(header["mean"].tolist()),
            std=tuple(header["std"].tolist()),
            resize=int(header["resize"]),
            filter=int(header["filter"]),
        ),
    )


def _text_at(text: bytes, start: int) -> str:
    return text[start : text.index(b"\0", start)].decode()


class _Reader:
    """The arrays of a file, which lie where the records say."""

    def __init__(self, data: bytes, precision: Precision, *, wide: Wide) -> None:
        self.data = data
        self.wide = wide
        self.precision: Precision = precision

    def text(self, offset: int, size: int) -> bytes:
        return self.array(offset, "u1", size).tobytes()

    def array(self, offset: int, kind: str, count: int) -> np.ndarray:
        if offset % ALIGN or offset < HEADER.itemsize:
            raise ValueError(f"an array at byte {offset}")
        return np.frombuffer(self.data, kind, int(count), int(offset))

    def vector(self, offset: int, kind: str, count: int) -> np.ndarray:
        """Of `count` numbers that are padded to panels; a copy, which may be kept."""
        return self.array(offset, kind, round_up(count, PANEL))[:count].copy()

    def filters(self, record: np.void) -> dict[str, Filter]:
        """A record's filters by name; of int8 the whole numbers, as float32."""
        inner, outer = int(record["in_channels"]), int(record["out_channels"])
        wide, narrow = int(record["expanded"]), int(record["squeeze"])
        block = record["kind"] == KINDS[BlockStep]
        shapes = {
            "expand": (wide, inner, 1),
            "depthwise": (wide, 1, int(record["kernel"])),
            "reduce": (narrow, wide, 1),
            "excite": (wide, narrow, 1),
            "project": (outer, wide, 1) if block else (outer, inner, int(record["kernel"])),
        }
        image = IMAGE in record["inputs"]
        found = {}
        for name, (outputs, inputs, kernel) in shapes.items():
            conv = record[name]
            if not conv["weights"]:
                continue
            kind = "<i4" if self.precision == "int8" else "<f4"
            bias = self.vector(conv["bias"], kind, outputs).astype(np.float32)
            if name == "depthwise":
                weight = self.depthwise(conv["weights"], outputs, kernel)
            else:
                weight = self.matrix(conv["weights"], outputs, inputs, kernel, image=image)
            found[name] = Filter(weight=np.ascontiguousarray(weight), bias=bias)
        return found

    def depthwise(self, offset: int, channels: int, kernel: int) -> np.ndarray:
        kind = "<f4" if self.precision != "int8" else "<i2" if self.wide else "i1"
        taps = kernel * kernel
        flat = self.array(offset, kind, round_up(channels, PANEL) * taps)
        weight = from_panels(flat, taps, 1)[:channels].astype(np.float32)
        return weight.reshape(channels, 1, kernel, kernel)

    def matrix(
        self, offset: int, outputs: int, channels: int, kernel: int, *, image: bool
    ) -> np.ndarray:
        stored: Precision = "float32" if image else self.precision
        inputs = inputs_of(kernel, channels, image=image)
        whole = round_up(inputs, K_MULTIPLE[stored])
        flat = self.array(offset, _TYPES[stored], round_up(outputs, PANEL) * whole)
        panels = from_panels(flat, whole, TOGETHER[stored])[:outputs, :inputs]
        if stored == "bfloat16":
            panels = from_bfloat16(np.ascontiguousarray(panels))
        weight = panels.astype(np.float32)
        return from_matrix(weight, kernel, channels, image=image)


def _step(record: np.void, filters: dict[str, Filter]) -> Step:
    sources = tuple(int(value) for value in record["inputs"] if value != NONE)
    activation = ACTIVATIONS[record["activation"]]
    stride, dilation = int(record["stride"]), int(record["dilation"])
    padding = PADDINGS[record["padding"]]
    kind = _KINDS[int(record["kind"])]
    if kind is ConvStep:
        return ConvStep(
            sources=sources,
            project=filters["project"],
            stride=stride,
            dilation=dilation,
            padding=padding,
            activation=activation,
        )
    if kind is BlockStep:
        return BlockStep(
            sources=sources,
            expand=filters.get("expand"),
            depthwise=filters["depthwise"],
            reduce=filters.get("reduce"),
            excite=filters.get("excite"),
            project=filters["project"],
            stride=stride,
            dilation=dilation,
            padding=padding,
            activation=activation,
            out_activation=ACTIVATIONS[record["out_activation"]],
            residual=bool(record["residual"]),
        )
    if kind is AddStep:
        return AddStep(sources=sources, activation=activation)
    if kind is AveragePoolStep:
        return AveragePoolStep(sources=sources, kernel=int(record["kernel"]), stride=stride)
    return kind(sources=sources)


def _quantised(
    whole: Program, reader: _Reader, in_range: np.void, records: np.ndarray
) -> QuantisedProgram:
    """The network of an int8 file, given its program with whole numbers for weights."""
    ranges = {
        place: _affine(
            records[place.step][f"{place.name}_range"] if place.step >= 0 else in_range,
            largest_at(place, wide=reader.wide),
        )
        for place in places(whole)
    }
    filters, steps = [], []
    for index, step in enumerate(whole.steps):
        own = {
            stage.name: _integers(reader, records[index][stage.name], step, stage, ranges)
            for stage in stages(whole, index)
        }
        floats = {
            stage.name: own[stage.name].real(ranges[stage.source].scale)
            for stage in stages(whole, index)
        }
        filters.append(own)
        steps.append(replace(step, **floats))
    program = Program(steps=tuple(steps), outputs=whole.outputs)
    return QuantisedProgram(program=program, filters=tuple(filters), ranges=ranges)


def _affine(pair: np.void, largest: int) -> Affine:
    return Affine(scale=float(pair["scale"]), zero=int(pair["zero"]), largest=largest)


def _integers(
    reader: _Reader, conv: np.void, step: Step, stage: Stage, ranges: dict[Place, Affine]
) -> IntegerFilter:
    weight = step.filters[stage.name].weight
    most = largest_weight(stage.name, stage.source, wide=reader.wide)
    factor = reader.vector(conv["multiplier"], "<f4", len(weight)).astype(np.float64)
    return IntegerFilter(
        weight=weight.astype(weight_type(most)),
        scale=factor * result_scale(ranges, stage) / ranges[stage.source].scale,
        bias=reader.vector(conv["bias"], "<i4", len(weight)),
    )

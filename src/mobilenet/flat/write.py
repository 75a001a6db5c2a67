"""`write_engine`: a network to the bytes of the engine's model file."""

from collections.abc import Sequence

import numpy as np

from ..errors import ExportError
from ..integer import Affine, Place, QuantisedProgram, multiplier, stages
from ..program import IMAGE, AddStep, AveragePoolStep, BlockStep, ConvStep, Step
from ..runtime import Precision
from .checksum import file_checksum
from .layouts import K_MULTIPLE, PANEL, TOGETHER, padded, to_bfloat16, to_matrix, to_panels
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
    RANGES,
    STEP,
    VERSION,
    EngineFile,
)

_UNUSED = Affine(scale=1.0, zero=0)


def write_engine(file: EngineFile) -> bytes:
    """The bytes of a file. Raises ExportError for a text that it cannot hold."""
    network, program, card = file.network, file.program, file.card
    assert isinstance(network, QuantisedProgram) == (file.precision == "int8")
    header = np.zeros((), HEADER)
    records = np.zeros(len(program.steps), STEP)
    outputs = np.zeros(len(program.outputs), OUTPUT)
    body = _Body(header.nbytes + records.nbytes + outputs.nbytes)

    texts = [_encode(text) for text in (*(name for name, _ in program.outputs), *card.labels)]
    starts = np.cumsum([0, *map(len, texts)])
    header["text"], header["text_bytes"] = body.add(b"".join(texts)), starts[-1]
    outputs["name"], outputs["value"] = starts[: len(outputs)], [v for _, v in program.outputs]
    header["labels"] = starts[len(outputs)] if card.labels else 0
    header["label_count"] = len(card.labels)
    contract = _encode(card.contract)
    header["contract"], header["contract_bytes"] = body.add(contract), len(contract)

    channels = program.channels()
    for index, step in enumerate(program.steps):
        _describe(records[index], step, channels, index)
        if isinstance(network, QuantisedProgram):
            _add_integers(body, records[index], network, index)
        else:
            _add_floats(body, records[index], step, file.precision)

    header["magic"], header["version"] = np.void(MAGIC), VERSION
    header["precision"] = PRECISIONS.index(file.precision)
    header["step_count"], header["output_count"] = len(records), len(outputs)
    header["height"], header["width"] = file.height, file.width
    if isinstance(network, QuantisedProgram):
        header["in_range"] = _pair(network.ranges[Place.of(IMAGE)])
        header["wide"] = network.wide
    for name in ("mean", "std", "resize", "filter"):
        header[name] = getattr(card, name)
    behind = records.tobytes() + outputs.tobytes() + body.finish()
    header["file_bytes"] = header.nbytes + len(behind)
    header["checksum"] = file_checksum(header.tobytes() + behind)
    return header.tobytes() + behind


class _Body:
    """The bytes behind the records; where each array starts is known as it is added."""

    def __init__(self, start: int) -> None:
        self.parts: list[bytes] = []
        self.end = start

    def add(self, data: bytes) -> int:
        self._append(bytes(-self.end % ALIGN))
        offset = self.end
        self._append(data)
        return offset

    def finish(self) -> bytes:
        self._append(bytes(-self.end % ALIGN))
        return b"".join(self.parts)

    def _append(self, data: bytes) -> None:
        self.parts.append(data)
        self.end += len(data)


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise ExportError(f"{text[:40]!r}: a text with a NUL cannot be written for the engine")
    return text.encode() + b"\0"


def _pair(affine: Affine) -> tuple[float, int]:
    return affine.scale, affine.zero


def _describe(record: np.void, step: Step, channels: Sequence[int], index: int) -> None:
    """Everything of a step but its weights and ranges."""
    record["kind"] = KINDS[type(step)]
    record["inputs"] = [*step.sources, *[NONE] * (4 - len(step.sources))]
    record["in_channels"] = channels[step.sources[0]]
    record["out_channels"] = channels[index + 1]
    record["kernel"] = record["stride"] = record["dilation"] = 1
    if isinstance(step, ConvStep | BlockStep):
        record["stride"], record["dilation"] = step.stride, step.dilation
        record["padding"] = PADDINGS.index(step.padding)
        record["kernel"] = (step.depthwise if isinstance(step, BlockStep) else step.project).kernel
    if isinstance(step, ConvStep | BlockStep | AddStep):
        record["activation"] = ACTIVATIONS.index(step.activation)
    if isinstance(step, BlockStep):
        record["out_activation"] = ACTIVATIONS.index(step.out_activation)
        record["expanded"] = step.depthwise.outputs
        record["squeeze"] = step.reduce.outputs if step.reduce is not None else 0
        record["residual"] = step.residual
    if isinstance(step, AveragePoolStep):
        record["kernel"], record["stride"] = step.kernel, step.stride


def _add_floats(body: _Body, record: np.void, step: Step, precision: Precision) -> None:
    image = IMAGE in step.sources
    for name, filter in step.filters.items():
        if name == "depthwise" or image or precision == "float32":
            data = _weights(name, filter.weight, "float32", image=image)
        else:
            data = _weights(name, to_bfloat16(filter.weight), "bfloat16", image=image)
        record[name]["weights"] = body.add(data)
        record[name]["bias"] = body.add(_vector(filter.bias))


def _add_integers(body: _Body, record: np.void, network: QuantisedProgram, index: int) -> None:
    image = IMAGE in network.program.steps[index].sources
    for stage in stages(network.program, index):
        filter, conv = network.filters[index][stage.name], record[stage.name]
        if image:
            whole = filter.weight.astype(np.float32)
            conv["weights"] = body.add(_weights(stage.name, whole, "float32", image=True))
        else:
            conv["weights"] = body.add(_weights(stage.name, filter.weight, "int8", image=False))
        conv["bias"] = body.add(_vector(filter.bias))
        conv["multiplier"] = body.add(_vector(multiplier(network, stage)))
        if not image and stage.name != "depthwise":
            sums = filter.weight.sum((1, 2, 3), dtype=np.int32)
            conv["weight_sum"] = body.add(_vector(sums))
    for name in RANGES:
        record[f"{name}_range"] = _pair(network.ranges.get(Place(index, name), _UNUSED))


def _weights(name: str, weight: np.ndarray, precision: Precision, *, image: bool) -> bytes:
    if name == "depthwise":
        return to_panels(weight.reshape(len(weight), -1), 1).tobytes()
    matrix = padded(to_matrix(weight, image=image), 1, K_MULTIPLE[precision])
    return to_panels(matrix, TOGETHER[precision]).tobytes()


def _vector(numbers: np.ndarray) -> bytes:
    return padded(numbers, 0, PANEL).tobytes()

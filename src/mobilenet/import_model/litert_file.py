"""LiteRT (.tflite) files: the convolutions of their graph, and LiteRT to run them.

Read by the schema of tensorflow/lite/schema/schema.fbs (version 3): the field numbers below are
its. Operators are stored in the order of the computation.
"""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, WeightsError
from ..program import IMAGE_CHANNELS, Floats
from .built_in import as_fed, preprocessing
from .flatbuffer import FlatbufferError, Table, root
from .graph import FoundConv, FoundGraph, match
from .source import Original, Source

_MAGIC = b"TFL3"
_LIMIT = 2**31 - 1  # bytes; what a flatbuffer can hold
_LABELS_LIMIT = 4 << 20
_TYPES: Mapping[int, Any] = {0: np.float32, 1: np.float16, 2: np.int32}
_INTEGERS: Mapping[int, str] = {3: "uint8", 7: "int16", 9: "int8", 17: "int4"}
_SAME = 0

# fmt: off
_OPERATORS: Mapping[int, str] = {
    0: "ADD", 3: "CONV_2D", 4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 9: "FULLY_CONNECTED",
    18: "MUL", 22: "RESHAPE", 25: "SOFTMAX", 34: "PAD", 41: "SUB", 42: "DIV", 43: "SQUEEZE",
    60: "PADV2", 114: "QUANTIZE",
}
# fmt: on


def is_litert(head: bytes) -> bool:
    """Whether a file that starts so is a .tflite one."""
    return head[4:8] == _MAGIC


def read_litert(path: Path) -> Source:
    """Read a float network, whose weights may be float16. Raises WeightsError for what is damaged,
    quantised or none of these networks."""
    if path.stat().st_size > _LIMIT:
        raise WeightsError(f"{path}: larger than any MobileNet; not read")
    data = path.read_bytes()
    try:
        walked = _Walk(path, root(data))
        graph = walked.graph()
    except (FlatbufferError, IndexError, ValueError) as error:
        raise WeightsError(f"{path}: damaged .tflite file: {error}") from None
    found = match(path, graph)
    rules, facts, assumed = preprocessing(graph, keras=True, producer=walked.description)
    assumed.append(
        "the file has no batch norms, they are folded into the convolutions: those of the run "
        "change nothing, and have no statistics to train on with"
    )
    labels = _labels(path, found.spec.classes)
    if labels is not None:
        facts.append("labels, from the file's metadata")
    original, unchecked = None, "ai-edge-litert is not installed (mobilenet[litert])"
    if find_spec("ai_edge_litert") is not None:
        name, unchecked = f"litert {version('ai-edge-litert')}", None
        run = _Run(path=path, data=data, output=walked.logits, graph=graph)
        original = Original(name=name, size=graph.size or rules.size, answer=run)
    return Source(
        kind="litert",
        publisher=walked.description,
        spec=found.spec,
        state=found.state,
        preprocess=rules,
        labels=labels,
        facts=(*found.facts, *facts),
        assumed=tuple(assumed),
        original=original,
        unchecked=unchecked,
    )


def _labels(path: Path, classes: int) -> tuple[str, ...] | None:
    """Those of a file with metadata, which is an archive at its end with a list of labels."""
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.filename.endswith(".txt") or entry.file_size > _LABELS_LIMIT:
                    continue
                names = archive.read(entry).decode("utf-8").splitlines()
                if len(names) == classes:
                    return tuple(names)
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError, NotImplementedError) as error:
        raise WeightsError(f"{path}: damaged metadata: {error}") from None
    return None


@dataclass(frozen=True, kw_only=True)
class _Run:
    """LiteRT on preprocessed images, which are turned back into what the file takes.

    Its own kernels, which keep every tensor: the logits may not be the file's output."""

    path: Path
    data: bytes
    output: int
    graph: FoundGraph

    def __call__(self, images: Floats) -> Floats:
        from ai_edge_litert import interpreter  # pyright: ignore[reportMissingImports]

        try:
            opened = interpreter.Interpreter(
                model_content=self.data,
                num_threads=1,
                experimental_op_resolver_type=(
                    interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                ),
                experimental_preserve_all_tensors=True,
            )
            source = opened.get_input_details()[0]["index"]
            fed = np.ascontiguousarray(as_fed(images, self.graph).transpose(0, 2, 3, 1))
            opened.resize_tensor_input(source, (1, *fed.shape[1:]))
            opened.allocate_tensors()
            answers = []
            for image in fed:
                opened.set_tensor(source, image[None])
                opened.invoke()
                answers.append(np.array(opened.get_tensor(self.output), np.float32).reshape(1, -1))
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{self.path}: LiteRT cannot run it: {error}") from error
        return np.concatenate(answers)


@dataclass
class _Walk:
    """One pass over the operators: weights are decoded, what happens to the image before the first
    convolution is kept as scale and offset, and convolutions are collected."""

    path: Path
    model: Table
    convs: list[FoundConv] = field(default_factory=list)
    of_conv: dict[int, int] = field(default_factory=dict)  # tensor -> the convolution it is of
    padded: dict[int, tuple[int, int]] = field(default_factory=dict)
    halves: dict[int, int] = field(default_factory=dict)  # float32 tensor -> its float16 constant
    image: set[int] = field(default_factory=set)
    softmax: dict[int, int] = field(default_factory=dict)
    scale: Floats = field(default_factory=lambda: np.ones(IMAGE_CHANNELS, np.float32))
    offset: Floats = field(default_factory=lambda: np.zeros(IMAGE_CHANNELS, np.float32))

    def __post_init__(self) -> None:
        self.description = self.model.text(3) or "an unknown producer"
        self.buffers = self.model.tables(4)
        self.codes = [
            max(code.number(0, "b"), code.number(3, "i")) for code in self.model.tables(1)
        ]
        subgraphs = self.model.tables(2)
        if not subgraphs:
            raise FlatbufferError("there is no graph in it")
        self.tensors = subgraphs[0].tables(0)
        inputs, outputs = subgraphs[0].numbers(1, np.int32), subgraphs[0].numbers(2, np.int32)
        if len(inputs) != 1 or not len(outputs):
            raise WeightsError(f"{self.path}: {len(inputs)} inputs, expected one image")
        self._refuse_integers()
        self.size = self._read_input(int(inputs[0]))
        for operator in subgraphs[0].tables(3):
            self._visit(operator)
        self.logits = self.softmax.get(int(outputs[0]), int(outputs[0]))

    def graph(self) -> FoundGraph:
        """What was found."""
        return FoundGraph(
            convs=tuple(self.convs), size=self.size, scale=self.scale, offset=self.offset
        )

    def _refuse_integers(self) -> None:
        for tensor in self.tensors:
            kind, scales = tensor.number(1, "b"), tensor.table(4)
            if kind in _INTEGERS and scales is not None and len(scales.numbers(2, np.float32)):
                raise WeightsError(
                    f"{self.path}: quantised ({tensor.text(3)!r} is {_INTEGERS[kind]}); import the "
                    "float file it was made of, then mobilenet quantize"
                )

    def _read_input(self, index: int) -> int:
        shape = self.tensors[index].numbers(0, np.int32).tolist()
        if len(shape) != 4 or shape[3] != IMAGE_CHANNELS or shape[1] != shape[2]:
            raise WeightsError(
                f"{self.path}: its input has shape {shape}, expected square images (N, H, W, 3)"
            )
        self.image.add(index)
        return shape[1]

    def _visit(self, operator: Table) -> None:
        name = _OPERATORS.get(self.codes[operator.number(0, "I")])
        inputs = operator.numbers(1, np.int32).tolist()
        outputs = operator.numbers(2, np.int32).tolist()
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            self._convolve(name, operator.table(4), inputs, outputs[0])
        elif name in ("ADD", "SUB", "MUL", "DIV"):
            self._arithmetic(name, inputs, outputs[0])
        elif name in ("PAD", "PADV2"):
            pads = self._constant(inputs[1]).reshape(-1, 2)
            self._pass(inputs[0], outputs[0])
            self.padded[outputs[0]] = (int(pads[1, 0]), int(pads[1, 1]))
        elif name == "SOFTMAX":
            self.softmax[outputs[0]] = inputs[0]
        elif name == "DEQUANTIZE":
            self.halves[outputs[0]] = inputs[0]
        elif name in ("RESHAPE", "SQUEEZE"):
            self._pass(inputs[0], outputs[0])

    def _pass(self, source: int, target: int) -> None:
        """A tensor that is another one in other words."""
        if source in self.of_conv:
            self.of_conv[target] = self.of_conv[source]
        if source in self.padded:
            self.padded[target] = self.padded[source]
        if source in self.softmax:
            self.softmax[target] = self.softmax[source]
        if source in self.image:
            self.image.add(target)

    def _is_constant(self, index: int) -> bool:
        index = self.halves.get(index, index)
        return len(self._buffer(index)) > 0

    def _buffer(self, index: int) -> np.ndarray:
        return self.buffers[self.tensors[index].number(2, "I")].numbers(0, np.uint8)

    def _constant(self, index: int) -> np.ndarray:
        index = self.halves.get(index, index)
        tensor = self.tensors[index]
        kind, data = tensor.number(1, "b"), self._buffer(index)
        if kind not in _TYPES or not len(data):
            raise WeightsError(f"{self.path}: {tensor.text(3)!r} is no constant of floats")
        shape = tensor.numbers(0, np.int32)
        return np.frombuffer(data.tobytes(), _TYPES[kind]).reshape(shape)

    def _convolve(self, name: str, options: Table | None, inputs: list[int], output: int) -> None:
        weight = self._constant(inputs[1]).astype(np.float32)
        bias = None
        if len(inputs) > 2 and inputs[2] >= 0:
            bias = self._constant(inputs[2]).astype(np.float32).reshape(-1)
        stride, pads, groups = 1, (0, 0), 1
        match name:
            case "FULLY_CONNECTED":
                weight = weight[:, :, None, None]
            case "CONV_2D":
                weight = weight.transpose(0, 3, 1, 2)
            case _:
                weight = weight.transpose(3, 0, 1, 2)
                groups = len(weight)
        if name != "FULLY_CONNECTED" and options is not None:
            across, down = options.number(1, "i"), options.number(2, "i")
            stride = across if across == down else 0
            above, below = self.padded.get(inputs[0], (0, 0))
            pads = None if options.number(0, "b") == _SAME else (above, below)
        self.of_conv[output] = len(self.convs)
        self.convs.append(
            FoundConv(
                name=self.tensors[output].text(3),
                weight=np.ascontiguousarray(weight),
                bias=bias,
                groups=groups,
                stride=stride,
                pads=pads,
            )
        )

    def _arithmetic(self, name: str, inputs: list[int], output: int) -> None:
        given = [index for index in inputs if not self._is_constant(index)]
        if len(given) != 1 or (name in ("SUB", "DIV") and inputs[0] != given[0]):
            return
        (constant,) = (self._constant(index) for index in inputs if index != given[0])
        constant = constant.reshape(-1).astype(np.float32)
        scale = {"MUL": constant, "DIV": 1 / constant}.get(name, np.ones_like(constant))
        offset = {"ADD": constant, "SUB": -constant}.get(name, np.zeros_like(constant))
        if given[0] in self.image and len(constant) in (1, IMAGE_CHANNELS):
            self.scale = self.scale * scale
            self.offset = self.offset * scale + offset
            self.image.add(output)
        index = self.of_conv.get(given[0])
        # a single number is part of an activation; one for each channel is a bias or a folded norm
        if index is not None and 1 < len(constant) == len(self.convs[index].weight):
            conv = self.convs[index]
            bias = np.zeros_like(constant) if conv.bias is None else conv.bias
            self.convs[index] = replace(
                conv, weight=conv.weight * scale[:, None, None, None], bias=bias * scale + offset
            )
            self.of_conv[output] = index

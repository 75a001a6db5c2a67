"""The engine's file: its bytes, its way back, and `export --to engine`."""

import hashlib
import importlib
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilenet.checkpoint import read_model_json, save_model
from mobilenet.errors import CheckpointError, ExportError, MissingEngine, UsageError
from mobilenet.export import export, proof, read_golden
from mobilenet.export.engine import engine_bytes, rounded, run_file
from mobilenet.flat import (
    UNSUPPORTED_RESIZE,
    Card,
    EngineFile,
    checksum,
    from_bfloat16,
    read_engine,
    to_bfloat16,
    write_engine,
    xxh64,
)
from mobilenet.integer import QuantisedProgram, multiplier, run_integer, stages
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.preprocess import Preprocess, keras, slim, timm
from mobilenet.program import (
    BlockStep,
    Builder,
    ConvStep,
    Filter,
    Program,
    evaluate_float,
    program_of,
)
from mobilenet.quantize import quantise_program
from mobilenet.quantize.trace import run_float
from mobilenet.runtime import Precision, read_artifact
from test_quantize import random_program

export_module = importlib.import_module("mobilenet.export")  # mobilenet.export is the verb


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without the native engine."""

    def missing(*_: object, **__: object) -> None:
        raise MissingEngine("this is a test")

    monkeypatch.setattr(proof, "RUNTIMES", {**proof.RUNTIMES, "engine": missing})


@pytest.fixture
def no_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without the extra "onnx", whose conversion takes most of an export's time."""
    monkeypatch.setattr(
        importlib.import_module("mobilenet.export.onnx"), "find_spec", lambda name: None
    )


PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
CARD = Card(
    contract='{"name": "tülip"}',
    labels=("daisy", "tülip", ""),
    mean=(0.25, 0.5, 0.75),
    std=(0.5, 0.25, 2.0),
    resize=256,
    filter=1,
)


def file_of(program: Program, precision: Precision, *, size: int = 9) -> EngineFile:
    network: Program | QuantisedProgram = program
    if precision == "int8":
        images = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
        network = quantise_program(program, [images])
    return EngineFile(network=network, precision=precision, height=size, width=size + 1, card=CARD)


# ------------------------------------------------------------------------------- the checksum


def sanity_bytes(count: int) -> bytes:
    """What xxHash's own sanity check hashes."""
    state, found = 2654435761, bytearray()
    for _ in range(count):
        found.append(state >> 56 & 255)
        state = state * 11400714785074694797 % 2**64
    return bytes(found)


@pytest.mark.parametrize("function", [xxh64, checksum])
def test_the_checksum_is_xxh64(function: object) -> None:
    assert callable(function)
    # from the specification and the sanity check of xxHash
    assert function(b"") == 0xEF46DB3751D8E999
    assert function(b"a") == 0xD24EC4F1A98C6E5B
    assert function(b"abc") == 0x44BC2CF5AD770999
    assert function(sanity_bytes(1)) == 0xE934A84ADB052768
    assert function(sanity_bytes(4)) == 0x9136A0DCA57457EE
    assert function(sanity_bytes(14)) == 0x8282DCC4994E35C8
    assert function(sanity_bytes(222)) == 0xB641AE8CB691C174


def test_the_native_checksum_is_ours_at_every_length() -> None:
    native = pytest.importorskip("mobilenet._engine")
    data = sanity_bytes(150)
    for size in range(150):
        assert native.checksum(data[:size]) == xxh64(data[:size])


# ------------------------------------------------------------------------------- the file


def test_bfloat16_is_rounded_as_pytorch_does() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 4096, dtype=np.uint32)
    bits[:6] = [0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x80000000, 0x00000001]
    x = bits.view(np.float32)
    x = x[np.isfinite(x) & (abs(x) < 3e38)]
    expected = torch.from_numpy(x).bfloat16().float().numpy()
    np.testing.assert_array_equal(from_bfloat16(to_bfloat16(x)), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_written_is_read_back(precision: Precision, seed: int) -> None:
    program = random_program(seed)
    file = file_of(program, precision)
    data = write_engine(file)
    back = read_engine(data)
    assert write_engine(back) == data
    assert (back.precision, back.height, back.width, back.card) == (precision, 9, 10, CARD)
    assert back.program.outputs == program.outputs
    for found, step in zip(back.program.steps, program.steps, strict=True):
        assert type(found) is type(step)
        weights = {"filters", *step.filters}
        assert {k: v for k, v in vars(found).items() if k not in weights} == {
            k: v for k, v in vars(step).items() if k not in weights
        }

    images = np.random.default_rng(5).normal(size=(2, 3, 9, 10)).astype(np.float32)
    if isinstance(file.network, QuantisedProgram):
        assert isinstance(back.network, QuantisedProgram)
        expected, found = run_integer(file.network, images), run_integer(back.network, images)
        # and the weights that its whole numbers stand for are nearly those that were rounded
        near = evaluate_float(back.program, images)["logits"]
        assert abs(near - evaluate_float(program, images)["logits"]).max() < 0.1 * abs(near).max()
    else:
        exact = rounded(program) if precision == "bfloat16" else program
        expected, found = evaluate_float(exact, images), evaluate_float(back.program, images)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)


def chain() -> Program:
    """A convolution of the image, an ordinary one, and a block, of widths that fill no panel."""
    rng = np.random.default_rng(4)

    def filter(outputs: int, inputs: int, kernel: int) -> Filter:
        shape = (outputs, inputs, kernel, kernel)
        return Filter(
            weight=rng.normal(size=shape).astype(np.float32),
            bias=rng.normal(size=outputs).astype(np.float32),
        )

    builder = Builder()
    stem = builder.conv(0, filter(20, 3, 3), stride=2, activation="hard_swish")
    dense = builder.conv(stem, filter(24, 20, 3), padding="same", activation="relu")
    block = builder.block(
        dense,
        expand=filter(70, 24, 1),
        depthwise=filter(70, 1, 5),
        reduce=filter(8, 70, 1),
        excite=filter(70, 8, 1),
        project=filter(24, 70, 1),
        activation="relu6",
        residual=True,
    )
    return builder.program({"c1": dense, "out": block})


HEADER, STEP = 144, 272


def sealed(data: bytes) -> int:
    """The checksum that belongs into a file's header."""
    return xxh64(data[:24] + bytes(8) + data[32:HEADER]) ^ xxh64(data[HEADER:])


def step_record(data: bytes, index: int) -> tuple[int, ...]:
    """The sixteen numbers at the start of a record."""
    return struct.unpack_from("<16I", data, HEADER + STEP * index)


def offsets(data: bytes, index: int, filter: int) -> tuple[int, ...]:
    """Where weights, bias, multiplier and weight sum of a filter lie, in the record's order."""
    return struct.unpack_from("<4Q", data, HEADER + STEP * index + 64 + 32 * filter)


EXPAND, DEPTHWISE, REDUCE, EXCITE, PROJECT = range(5)


def test_the_records_are_where_the_engine_looks_for_them() -> None:
    program = chain()
    data = write_engine(file_of(program, "int8"))
    network = read_engine(data).network
    assert isinstance(network, QuantisedProgram)
    assert data[:8] == b"MBNET\r\n\0"
    version, precision, size, hashed, steps, outputs, height, width = struct.unpack_from(
        "<2I2Q4I", data, 8
    )
    assert (version, precision, size, steps, outputs) == (1, 2, len(data), 3, 2)
    assert (height, width) == (9, 10)
    assert hashed == sealed(data)
    scale, zero = struct.unpack_from("<fi", data, 48)
    in_range = next(iter(network.ranges.values()))
    assert (scale, zero) == (in_range.scale, in_range.zero)

    none = 2**32 - 1
    # kind, activations, padding, inputs, in, expanded, out, squeeze, kernel, stride, dilation, add
    assert step_record(data, 0) == (1, 3, 0, 0, 0, none, none, none, 3, 0, 20, 0, 3, 2, 1, 0)
    assert step_record(data, 1) == (1, 1, 0, 1, 1, none, none, none, 20, 0, 24, 0, 3, 1, 1, 0)
    assert step_record(data, 2) == (2, 2, 0, 0, 2, none, none, none, 24, 70, 24, 8, 5, 1, 1, 1)
    ranges = struct.unpack_from("<fifififififi", data, HEADER + 2 * STEP + 224)
    gated = network.ranges[stage_place(network, 2, "gated")]
    assert ranges[8:10] == (gated.scale, gated.zero)
    assert ranges[10:] == (1.0, 0)  # of the output, which stays float32

    at = HEADER + 3 * STEP
    text, text_bytes, contract, contract_bytes = struct.unpack_from("<4Q", data, 56)
    for value, name, expected in ((2, 0, b"c1"), (3, 3, b"out")):
        assert struct.unpack_from("<2I", data, at) == (value, name)
        assert data[text + name : text + name + len(expected) + 1] == expected + b"\0"
        at += 8
    labels, count = struct.unpack_from("<2I", data, 88)
    assert (labels, count) == (7, 3)
    assert data[text + 7 : text + text_bytes] == "daisy\0tülip\0\0".encode()
    assert data[contract : contract + contract_bytes] == CARD.contract.encode() + b"\0"
    numbers = struct.unpack_from("<6f2I4I", data, 96)
    assert numbers == (0.25, 0.5, 0.75, 0.5, 0.25, 2.0, 256, 1, 0, 0, 0, 0)


def stage_place(network: QuantisedProgram, step: int, name: str) -> object:
    return next(place for place in network.ranges if place == (step, name))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_lie_as_the_kernels_read_them(precision: Precision) -> None:
    program = chain()
    file = file_of(program, precision)
    data = write_engine(file)
    stem, dense, block = program.steps
    assert isinstance(stem, ConvStep)
    assert isinstance(dense, ConvStep)
    assert isinstance(block, BlockStep)

    def at(offset: int, kind: str, place: int) -> float:
        assert offset % 64 == 0
        if kind == "bfloat16":
            (half,) = struct.unpack_from("<H", data, offset + 2 * place)
            return struct.unpack("<f", struct.pack("<I", half << 16))[0]
        return struct.unpack_from(kind, data, offset + struct.calcsize(kind) * place)[0]

    def weight(step: int, name: str, *index: int) -> float:
        if isinstance(file.network, QuantisedProgram):
            return int(file.network.filters[step][name].weight[index])
        exact = rounded(program) if precision == "bfloat16" else program
        return float(exact.steps[step].filters[name].weight[index])

    # the image's: [2][27][16], channels, rows, columns; float32 in every precision
    offset = offsets(data, 0, PROJECT)[0]
    for n in range(32):
        for c in range(3):
            for y in range(3):
                for x in range(3):
                    k = c * 9 + y * 3 + x
                    found = at(offset, "<f", n // 16 * 27 * 16 + k * 16 + n % 16)
                    assert found == (weight(0, "project", n, c, y, x) if n < 20 else 0)

    together = {"float32": 1, "bfloat16": 2, "int8": 4}[precision]
    kind = {"float32": "<f", "bfloat16": "bfloat16", "int8": "<b"}[precision]

    def element(offset: int, inputs: int, n: int, k: int) -> float:
        """[N/16][K/together][16][together]."""
        panel, group = n // 16 * 16 * inputs, k // together * 16 * together
        return at(offset, kind, panel + group + n % 16 * together + k % together)

    # an ordinary one: rows, columns, channels padded to 32
    inputs = {"float32": 288, "bfloat16": 288, "int8": 320}[precision]
    offset = offsets(data, 1, PROJECT)[0]
    for n in (0, 15, 16, 23, 24, 31):
        for y in range(3):
            for x in range(3):
                for c in range(32):
                    found = element(offset, inputs, n, (y * 3 + x) * 32 + c)
                    assert found == (weight(1, "project", n, c, y, x) if n < 24 and c < 20 else 0)
    # 1x1: as many as there are, padded only to what is read at once
    inputs = {"float32": 70, "bfloat16": 96, "int8": 128}[precision]
    offset = offsets(data, 2, PROJECT)[0]
    for n in range(32):
        for k in range(inputs):
            expected = weight(2, "project", n, k, 0, 0) if n < 24 and k < 70 else 0
            assert element(offset, inputs, n, k) == expected
    # depthwise: [5][25][16]
    offset = offsets(data, 2, DEPTHWISE)[0]
    for c in range(80):
        for tap in range(25):
            found = at(
                offset, "<b" if precision == "int8" else "<f", (c // 16 * 25 + tap) * 16 + c % 16
            )
            expected = weight(2, "depthwise", c, 0, tap // 5, tap % 5) if c < 70 else 0
            assert found == expected

    if isinstance(file.network, QuantisedProgram):
        check_integer_vectors(data, file.network)
    else:
        bias = np.frombuffer(data, "<f4", 80, offsets(data, 2, EXCITE)[1])
        np.testing.assert_array_equal(bias[:70], block.excite.bias)  # pyright: ignore
        assert not bias[70:].any()
        assert offsets(data, 2, EXCITE)[2:] == (0, 0)


def check_integer_vectors(data: bytes, network: QuantisedProgram) -> None:
    """Biases, multipliers and weight sums, padded to panels."""
    names = {"expand": EXPAND, "depthwise": DEPTHWISE, "reduce": REDUCE, "excite": EXCITE}
    for index in range(3):
        for stage in stages(network.program, index):
            filter = network.filters[index][stage.name]
            _, bias, factor, sums = offsets(data, index, names.get(stage.name, PROJECT))
            count = len(filter.bias)
            padded = -(-count // 16) * 16
            stored = np.frombuffer(data, "<i4", padded, bias)
            np.testing.assert_array_equal(stored[:count], filter.bias)
            assert not stored[count:].any()
            stored = np.frombuffer(data, "<f4", padded, factor)
            np.testing.assert_array_equal(stored[:count], multiplier(network, stage))
            if stage.name == "depthwise" or index == 0:
                assert sums == 0
            else:
                stored = np.frombuffer(data, "<i4", padded, sums)
                whole = filter.weight.astype(int).sum((1, 2, 3))
                np.testing.assert_array_equal(stored[:count], whole)


def test_a_damaged_file_is_refused() -> None:
    data = write_engine(file_of(chain(), "float32"))

    def refused(changed: bytes, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            read_engine(changed)

    refused(b"", "cut off")
    refused(b"PK" + data[2:], "not one")
    refused(data[:-64], "bytes of")
    refused(data[:8] + b"\2" + data[9:], "version 2")
    for place in (40, 100, HEADER + 4, len(data) // 2, len(data) - 1):
        refused(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], "checksum")

    def resealed(place: int, value: bytes) -> bytes:
        changed = data[:place] + value + data[place + len(value) :]
        return changed[:24] + struct.pack("<Q", sealed(changed)) + changed[32:]

    refused(resealed(HEADER, struct.pack("<I", 9)), "damaged")  # no such kind
    refused(resealed(HEADER + 64 + 32 * PROJECT, struct.pack("<Q", 2**40)), "damaged")
    refused(resealed(HEADER + 64 + 32 * PROJECT, struct.pack("<Q", 65)), "damaged")
    refused(resealed(HEADER + STEP + 16, struct.pack("<I", 7)), "damaged")  # reads a later value
    refused(resealed(HEADER + 40, struct.pack("<I", 60000)), "damaged")  # more channels
    with pytest.raises(ExportError, match="NUL"):
        write_engine(replace(file_of(chain(), "float32"), card=replace(CARD, labels=("a\0b",))))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_to_be_timed_hold_the_network(precision: Precision) -> None:
    network = random_network(replace(MODELS["mobilenet_v3_small"], width=0.5, classes=7), 64)
    images = np.random.default_rng(0).standard_normal((12, 3, 64, 64), np.float32)
    data = engine_bytes(network, size=64, precision=precision, calibration=images)
    assert data == engine_bytes(network, size=64, precision=precision, calibration=images)
    found = run_file(data, images[:2])
    with torch.inference_mode():
        expected = network(torch.from_numpy(images[:2])).numpy()
    assert (
        abs(found - expected).max()
        < {"float32": 1e-5, "bfloat16": 0.05, "int8": 0.3}[precision] * abs(expected).max()
    )
    with pytest.raises(UsageError, match="no pictures"):
        engine_bytes(network, size=64, precision="int8")


# ------------------------------------------------------------------------------- the verb


@pytest.fixture(scope="module")
def flowers(pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures."""
    folder = tmp_path_factory.mktemp("flowers")
    for index, path in enumerate(pictures):
        target = folder / ("daisy", "rose")[index % 2]
        target.mkdir(exist_ok=True)
        (target / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.usefixtures("no_engine", "no_onnx")
def test_a_run_is_exported_and_proved(
    small_run: Path,
    flowers: Path,
    tmp_path: Path,
    precision: Precision,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calibrate = str(flowers) if precision == "int8" else None
    made = export(
        small_run, to="engine", out=tmp_path / "out", precision=precision, calibrate=calibrate
    )
    assert made.runtime.startswith("numpy")
    assert "checked by NumPy" in capsys.readouterr().err
    assert made.max_error <= (0 if precision == "int8" else 1e-4)
    assert made.float_cosine > {"float32": 0.999999, "bfloat16": 0.999, "int8": 0.9}[precision]
    assert made.precision in str(made)
    file = read_artifact(made.path)
    assert (file.format, file.description["precision"]) == ("engine", precision)
    assert file.data[:] == (tmp_path / "out" / "model.mbn").read_bytes()
    assert made.to_json()["sha256"] == file.sha256

    # the golden logits are those that the file must give
    golden = read_golden(file)
    tolerance = file.description["golden"]["tolerance"]
    found = run_file(file.data[:], golden.inputs)
    assert abs(found - golden.logits).max() <= min(tolerance, 1e-4)
    assert (tolerance == 0) == (precision == "int8")

    carried = read_engine(file.data[:]).card
    contract = read_model_json(small_run)
    assert json.loads(carried.contract) == contract
    assert list(carried.labels) == contract["labels"]
    rules = Preprocess.from_dict(contract["preprocess"])
    assert carried.resize == rules.resize
    np.testing.assert_array_equal(np.float32(carried.mean), np.float32(rules.mean))
    assert carried.filter == 0

    again = export(
        small_run, to="engine", out=tmp_path / "again", precision=precision, calibrate=calibrate
    )
    assert again.sha256 == made.sha256


def test_the_file_says_how_pictures_are_prepared(small_run: Path) -> None:
    from mobilenet.export.engine import card_of

    contract = read_model_json(small_run)
    stretched = card_of(contract, keras(96))
    assert (stretched.resize, stretched.filter, stretched.mean) == (0, 0, (0.5, 0.5, 0.5))
    assert (card_of(contract, timm(96)).resize, card_of(contract, timm(96)).filter) == (109, 1)
    assert card_of(contract, slim(96)).resize == UNSUPPORTED_RESIZE


@pytest.mark.usefixtures("no_engine")
def test_a_file_that_answers_otherwise_is_not_exported(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(data: bytes, images: np.ndarray) -> np.ndarray:
        return run_file(data, images) + np.float32(0.01)

    monkeypatch.setattr(proof, "run_file", changed)
    with pytest.raises(ExportError, match=r"model\.mbn: numpy .* logits differ by up to 0\.01"):
        export(small_run, to="engine", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_engine")
def test_the_folder_has_a_fallback_for_machines_without_the_engine(
    small_run: Path, small_export: Path, tmp_path: Path
) -> None:
    made = export(small_run, to="engine", out=tmp_path / "out")
    assert made.fallback == tmp_path / "out" / "model.onnx"
    data = made.fallback.read_bytes()
    assert data == (small_export / "model.onnx").read_bytes()
    assert read_model_json(made.path)["artifact"]["fallback"] == {
        "format": "onnx",
        "file": "model.onnx",
        "sha256": hashlib.sha256(data).hexdigest(),
        "precision": "float32",
        "tolerance": 1e-3,
    }
    assert made.to_json()["fallback"] == str(made.fallback)


@pytest.mark.usefixtures("no_engine", "no_onnx")
def test_without_the_onnx_extra_there_is_no_fallback(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = export(small_run, to="engine", out=tmp_path / "out")
    assert made.fallback is None
    assert "pip install 'mobilenet[onnx]'" in capsys.readouterr().err
    assert "fallback" not in read_model_json(made.path)["artifact"]
    assert not (made.path / "model.onnx").exists()


def test_wrong_usage_is_refused(small_run: Path, flowers: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="precision 'bfloat16': --to onnx has float32, int8"):
        export(small_run, to="onnx", out=tmp_path, precision="bfloat16")
    for precision, calibrate in (("int8", None), ("float32", str(flowers))):
        with pytest.raises(UsageError, match="go together"):
            export(small_run, to="engine", out=tmp_path, precision=precision, calibrate=calibrate)


def test_only_training_pictures_are_seen(
    small_run: Path, flowers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were held out when the run was trained measure it, and must not calibrate it."""
    from mobilenet.checkpoint import load_model
    from mobilenet.data import open_dataset

    loaded = load_model(small_run)
    run = tmp_path / "run"
    save_model(
        run,
        loaded.spec,
        loaded.state,
        preprocess=loaded.preprocess,
        labels=loaded.labels,
        provenance={"options": {"seed": 5}, "data": {"val_fraction": 0.3}},
    )
    seen: list[str] = []
    pictures = importlib.import_module("mobilenet.quantize.pictures")
    original = pictures.batches

    def watched(split, *args, order, **options):  # type: ignore[no-untyped-def]
        seen.extend(split.name(index) for index in order)
        return original(split, *args, order=order, **options)

    monkeypatch.setattr(pictures, "batches", watched)
    assert sum(map(len, export_module._pictures(run, str(flowers)))) == len(seen)
    expected = open_dataset(flowers, seed=5, val_fraction=0.3).splits
    assert len(seen) == 28
    assert sorted(seen) == sorted(expected["train"].name(index) for index in range(28))


# ------------------------------------------------------------------ with the native engine


NETWORKS = [
    (replace(MODELS["mobilenet_v1"], classes=11, width=0.25), 96),
    (replace(MODELS["mobilenet_v2"], classes=11, width=0.5, padding="same", output_stride=16), 97),
    (replace(MODELS["mobilenet_v3_large"], classes=11, width=0.35), 97),
    (replace(MODELS["mobilenet_v3_small"], classes=11, width=0.5, padding="same"), 96),
    (replace(MODELS["mobilenet_v3_small_minimalistic"], classes=11, width=0.5), 64),
]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("spec", "size"), NETWORKS, ids=[f"{s.name}-{size}" for s, size in NETWORKS]
)
def test_the_native_engine_computes_what_is_defined(spec, size, precision: Precision) -> None:
    native = pytest.importorskip("mobilenet._engine")
    network = random_network(spec, size)
    images = np.random.default_rng(1).standard_normal((3, 3, size, size), np.float32)
    file = file_of(program_of(network), precision, size=size)
    file = replace(file, width=size)
    data = write_engine(file)
    found = native.Engine(native.Model(data)).run(images)["logits"]
    if isinstance(file.network, QuantisedProgram):
        np.testing.assert_array_equal(found, run_integer(file.network, images)["logits"])
    else:
        exact = rounded(file.program) if precision == "bfloat16" else file.program
        expected = run_float(exact, images)["logits"]
        error = {"float32": 1e-4, "bfloat16": proof.BFLOAT16_TOLERANCE}[precision]
        np.testing.assert_allclose(found, expected, rtol=0, atol=error * abs(expected).max())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("seed", range(6))
def test_the_native_engine_computes_every_kind_of_step(seed: int, precision: Precision) -> None:
    native = pytest.importorskip("mobilenet._engine")
    file = file_of(random_program(seed), precision, size=21)
    images = np.random.default_rng(seed).normal(size=(2, 3, 21, 22)).astype(np.float32)
    found = native.Engine(native.Model(write_engine(file))).run(images)
    if isinstance(file.network, QuantisedProgram):
        for name, value in run_integer(file.network, images).items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)
    else:
        exact = rounded(file.program) if precision == "bfloat16" else file.program
        error = {"float32": 1e-5, "bfloat16": proof.BFLOAT16_TOLERANCE}[precision]
        for name, value in evaluate_float(exact, images).items():
            largest = abs(value).max()
            np.testing.assert_allclose(
                found[name], value, rtol=0, atol=error * largest, err_msg=name
            )


@pytest.mark.usefixtures("no_onnx")
def test_the_sample_of_an_engine_folder_answers(
    small_run: Path, pictures: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("mobilenet._engine")
    made = export(small_run, to="engine", out=tmp_path / "out")
    assert made.runtime.startswith("engine")
    code = (
        "import runpy, sys; sys.modules['torch'] = sys.modules['onnxruntime'] = None; "
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, made.path / "predict.py", *pictures[:2]],
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["path"] for answer in answers] == [str(path) for path in pictures[:2]]
    assert all(len(answer["predictions"]) == 5 for answer in answers)

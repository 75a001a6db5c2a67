"""A model file is anybody's: damaged or hostile, it is refused with a message or runs rightly.

Every group of files is tried in a process of its own, so that a crash is seen and has a name.
"""

import json
import resource
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mobilenet.flat import Card, EngineFile, file_checksum, read_engine, write_engine
from mobilenet.flat.records import CONV, HEADER, OUTPUT, STEP
from mobilenet.integer import places
from mobilenet.program import FILTERS, evaluate_float
from mobilenet.quantize import quantise

engine = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")

CORPUS = Path(__file__).parents[1] / "engine" / "fuzz" / "make_corpus.py"
SIZE = (16, 14)
MEMORY = 8 << 30  # what a process may ask for: a file cannot make it ask for more
NONE = 0xFFFFFFFF
WHOLE = (0, 1, 2, 3, 4, 6, 15, 16, 17, 33, 65, 513, 4097, 65536, 65537, 2**31 - 1, 2**31, NONE)
OFFSETS = (0, 1, 64, 2**31, 2**32, 2**63, 2**64 - 64, 2**64 - 1)
REALS = (0.0, -0.0, -1.0, 1e-45, 1e-30, 1e-6, 1.0, 1e9, 1e30, np.inf, -np.inf, np.nan)
ERROR = 1e-4  # of the largest number; sums are taken in another order


class Case(NamedTuple):
    name: str
    data: bytes
    expected: str = ""  # within the message; "": also a run is right


class File:
    """The tables of a file, to be changed."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.header = np.frombuffer(self.data, HEADER, 1)
        steps, outputs = int(self.header["step_count"][0]), int(self.header["output_count"][0])
        self.steps = np.frombuffer(self.data, STEP, steps, HEADER.itemsize)
        self.tables = HEADER.itemsize + steps * STEP.itemsize
        self.outputs = np.frombuffer(self.data, OUTPUT, outputs, self.tables)
        self.tables += outputs * OUTPUT.itemsize


def sealed(data: bytearray) -> bytes:
    """With the checksum that belongs to it."""
    np.frombuffer(data, HEADER, 1)["checksum"] = file_checksum(bytes(data))
    return bytes(data)


def small_file(network: str, precision: str) -> bytes:
    """One of the networks that the fuzzer begins with."""
    program = runpy.run_path(str(CORPUS))[network]()
    if precision == "int8":
        program = quantise(program, dict.fromkeys(places(program), (-3.0, 5.0)))
    card = Card(labels=("cat", "dog"))
    return write_engine(
        EngineFile(network=program, precision=precision, height=SIZE[0], width=SIZE[1], card=card)
    )


def truncated() -> Iterator[Case]:
    for precision in ("float32", "int8"):
        data = small_file("inverted", precision)
        file = File(data)
        arrays = {int(file.header["text"][0]), int(file.header["contract"][0])}
        for name in FILTERS:
            arrays |= {int(offset) for part in CONV.names for offset in file.steps[name][part]}
        random = np.random.default_rng(0).integers(0, len(data), 300).tolist()
        tables = [*range(HEADER.itemsize), *range(HEADER.itemsize, file.tables, 8)]
        for size in sorted({*tables, *arrays, *(at + 1 for at in arrays), *random}):
            yield Case(f"{precision}: the first {size} bytes", data[:size], "too few|truncated")
            if size > HEADER.itemsize:  # with the size and checksum of what is left
                cut = bytearray(data[:size])
                np.frombuffer(cut, HEADER, 1)["file_bytes"] = size
                name = f"{precision}: the first {size} bytes, sealed"
                yield Case(name, sealed(cut), "past the end|lies before")
        yield Case("more than there should be", data + bytes(64), "truncated or damaged")


def flipped() -> Iterator[Case]:
    random = np.random.default_rng(1)
    for precision in ("float32", "bfloat16", "int8"):
        data = small_file("inverted", precision)
        for at in (*range(HEADER.itemsize), *random.integers(0, len(data), 400).tolist()):
            changed = bytearray(data)
            changed[at] ^= 1 << int(random.integers(8))
            yield Case(
                f"{precision}: byte {at} flipped",
                bytes(changed),
                "checksum|not a model file|version|truncated",
            )


def every_field(table: str) -> Callable[[], Iterator[Case]]:
    """Every field of a table in turn with every hostile value; some happen to be right."""

    def cases() -> Iterator[Case]:
        for network in ("inverted", "heads"):
            for precision in ("float32", "int8"):
                data = small_file(network, precision)
                for row in range(len(getattr(File(data), table))):
                    for path, values in fields(getattr(File(data), table).dtype):
                        for value in values:
                            file = File(data)
                            field = getattr(file, table)[row : row + 1]
                            for key in path[:-1]:
                                field = field[key]
                            field[path[-1]] = value
                            where = ".".join(map(str, path))
                            yield Case(
                                f"{network} {precision} {table}[{row}].{where} = {value}",
                                sealed(file.data) if path != ("checksum",) else bytes(file.data),
                            )

    return cases


def fields(dtype: np.dtype) -> Iterator[tuple[tuple[str, ...], tuple]]:
    """Paths to the numbers of a record, and values for them."""
    for name in dtype.names or ():
        inner = dtype[name]
        if inner.names:
            yield from (((name, *path), values) for path, values in fields(inner))
        elif inner.base.kind == "f":
            yield (name,), REALS
        elif inner.base.kind == "i":
            yield (name,), (-(2**31), -1, 0, 7, 255, 256, 2**31 - 1)
        elif inner.base.kind == "u":
            yield (name,), OFFSETS if inner.base.itemsize == 8 else WHOLE


def hostile() -> Iterator[Case]:
    """Some whose message matters."""

    def case(network: str, precision: str, expected: str, spoil: Callable[[File], None]) -> Case:
        file = File(small_file(network, precision))
        spoil(file)
        return Case(f"{network} {precision}: {expected}", sealed(file.data), expected)

    def put(file: File, offset: int, value: np.generic) -> None:
        file.data[offset : offset + value.nbytes] = value.tobytes()

    def swap(file: File) -> None:
        conv = file.steps[2]["expand"]
        conv["weights"], conv["bias"] = int(conv["bias"]), int(conv["weights"])

    def wide(file: File) -> None:
        file.steps["out_channels"][0] = 65536

    def cycle(file: File) -> None:
        file.steps["inputs"][1, 0] = 2

    def past(file: File) -> None:
        file.steps["project"]["weights"][1] = 1 << 20

    def same(file: File) -> None:
        file.steps["project"]["bias"][1] = file.steps["project"]["bias"][0]

    def residual(file: File) -> None:
        file.steps["residual"][2] = 1

    def bias(file: File) -> None:
        put(file, int(file.steps["project"]["bias"][1]), np.float32(np.nan))

    def large(file: File) -> None:
        put(file, int(file.steps["project"]["bias"][1]), np.int32(2**31 - 1))

    def half(file: File) -> None:
        put(file, int(file.steps["project"]["weights"][0]), np.float32(0.5))

    def factor(file: File) -> None:
        put(file, int(file.steps["depthwise"]["multiplier"][1]), np.float32(np.inf))

    def scale(file: File) -> None:
        file.steps["out_range"]["scale"][0] = 0

    def name(file: File) -> None:
        file.outputs["name"][1] = file.outputs["name"][0]

    yield case("inverted", "float32", "overlaps step 2: expand weights", swap)
    yield case("inverted", "float32", "step 0 (conv): project weights: offset", wide)
    yield case("inverted", "float32", "step 1 (block): input 0: value 2: only values 0 to 1", cycle)
    yield case("inverted", "float32", "step 1 (block): project weights: offset 1048576 + ", past)
    yield case("inverted", "float32", "overlaps step", same)
    yield case("inverted", "float32", "step 2 (block): residual 1: expected 0 here", residual)
    yield case("inverted", "float32", "step 1 (block): project bias of output 0: nan", bias)
    yield case("inverted", "int8", "step 1 (block): project bias of output 0: 2147483647", large)
    yield case("inverted", "int8", "step 0 (conv): project weights: 0.5: expected whole", half)
    yield case("inverted", "int8", "step 1 (block): depthwise multiplier of output 0: inf", factor)
    yield case("inverted", "int8", "step 0 (conv): out_range: scale 0: expected", scale)
    yield case("inverted", "float32", "two outputs are named logits", name)


GROUPS = {
    "truncated": truncated,
    "flipped": flipped,
    "header": every_field("header"),
    "steps": every_field("steps"),
    "outputs": every_field("outputs"),
    "hostile": hostile,
}


@pytest.mark.parametrize("group", GROUPS)
def test_files_are_refused_or_run(group: str) -> None:
    command = [sys.executable, "-W", "error", __file__, group]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    last = lines[-1] if lines else "nothing"
    assert done.returncode == 0, f"{done.returncode} at {last}\n{done.stderr}"
    results = [json.loads(line) for line in lines]
    assert len(results) >= 24
    wrong = []
    for (name, expected), (kind, text) in zip(results[::2], results[1::2], strict=True):
        known = not expected or any(part in text for part in expected.split("|"))
        if kind == "wrong" or not known or (expected and kind != "refused"):
            wrong.append(f"{name}: {kind}: {text}")
    assert not wrong, "\n".join(wrong[:20])


def test_the_files_are_good() -> None:
    for network in ("separable", "inverted", "heads"):
        for precision in ("float32", "bfloat16", "int8"):
            assert attempt(small_file(network, precision)) == ("ran", "")


def attempt(data: bytes) -> tuple[str, str]:
    """Load, plan and run: what became of it, and why."""
    try:
        model = engine.Model(data)
        planned = engine.Engine(model, *SIZE, threads=2)
    except engine.EngineError as error:
        status, text = error.args
        known = status in (engine.BAD_FILE, engine.BAD_ARGUMENT, engine.NO_MEMORY)
        return ("refused" if known and len(text) > 10 else "wrong"), text
    model.labels, model.contract  # noqa: B018 read, wherever they are said to be
    images = np.random.default_rng(0).uniform(-2, 2, (1, 3, *SIZE)).astype(np.float32)
    found = planned.run(images)
    if model.precision != "float32":
        finite = all(np.isfinite(result).all() for result in found.values())
        return ("ran", "") if finite or model.precision == "bfloat16" else ("wrong", "not finite")
    program = read_engine(data).program
    for name, expected in evaluate_float(program, images).items():
        result, most = found[name], max(1, np.abs(expected[np.isfinite(expected)]).max(initial=0))
        if result.shape != expected.shape:
            return "wrong", f"{name}: shape {result.shape}, expected {expected.shape}"
        if not np.allclose(result, expected, rtol=0, atol=ERROR * most, equal_nan=True):
            return "wrong", f"{name}: {np.abs(result - expected).max()} off"
    return "ran", ""


def main(group: str) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for case in GROUPS[group]():
        print(json.dumps((case.name, case.expected)), flush=True)
        print(json.dumps(attempt(case.data)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

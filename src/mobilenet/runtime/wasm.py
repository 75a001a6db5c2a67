"""The engine for browsers, compiled to WebAssembly, run by node: to check and to time it."""

import json
import shutil
import struct
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import CheckpointError, MissingEngine, UsageError
from ..web import ENGINE, asset, web_engine
from .sessions import Data, Floats, Precision, Session

MODEL = "model.mbn"


class MissingNode(MissingEngine):
    """There is no node, which runs WebAssembly here."""

    def __init__(self) -> None:
        ImportError.__init__(
            self, "running what was exported for the web needs node (apt install nodejs)"
        )
        self.reason = "there is no node"


def open_wasm(
    data: Data,
    *,
    threads: int,
    precision: Precision,
    batch: int | None,
    engine: bytes | None = None,
) -> Session:
    """Open an engine file with the engine for browsers in node, on one thread.

    `engine` is the compiled engine; without it the one of this package. Raises MissingWebEngine or
    MissingNode, UsageError for another precision than the file's, CheckpointError for a file that
    is none.
    """
    node = shutil.which("node")
    if node is None:
        raise MissingNode
    engine = web_engine() if engine is None else engine
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, content in (
            (ENGINE, engine),
            (MODEL, bytes(data)),
            ("mobilenet.js", asset("mobilenet.js")),
            ("session.mjs", asset("session.mjs")),
            ("package.json", b'{"type": "module"}'),
        ):
            (place / name).write_bytes(content)
        process = subprocess.Popen(
            [node, *(str(place / name) for name in ("session.mjs", ENGINE, MODEL))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        hello = process.stdout.readline()  # by then it has read its files
        if not hello:
            reason = process.stderr.read().decode(errors="replace").strip().splitlines()
            process.wait()
            raise CheckpointError(f"node cannot run the model: {_error(reason)}")
    said = json.loads(hello)
    pipes = (process.stdin, process.stdout, process.stderr)
    if said["precision"] != precision:
        _end(process, pipes)
        raise UsageError(f"wasm: the file is {said['precision']}, not {precision}")
    classes = int(said["classes"])
    session = Session(
        runtime="wasm",
        version=f"{said['isa']} in node {said['node'].removeprefix('v')}",
        precision=precision,
        layout="NCHW",
        threads=1,
        run=lambda images: _run(process.stdin, process.stdout, images, classes),
    )
    weakref.finalize(session, _end, process, pipes)
    return session


def _run(to: IO[bytes] | None, back: IO[bytes] | None, images: Floats, classes: int) -> Floats:
    assert to is not None
    assert back is not None
    logits = np.empty((len(images), classes), np.float32)
    for image, found in zip(images, logits, strict=True):  # one at a time: no pipe fills up
        try:
            to.write(struct.pack("<I", 1) + image.astype("<f4").tobytes())
            to.flush()
        except BrokenPipeError:
            raise CheckpointError("node has stopped while it ran the model") from None
        answer = back.read(found.nbytes)
        if len(answer) != found.nbytes:
            raise CheckpointError("node has stopped while it ran the model")
        found[...] = np.frombuffer(answer, "<f4")
    return logits


def _end(process: subprocess.Popen[bytes], pipes: tuple[IO[bytes], ...]) -> None:
    """It stops when its input ends."""
    for pipe in pipes:
        pipe.close()
    process.wait()


def _error(lines: list[str]) -> str:
    """The line of node's report that names the error."""
    named = [line for line in lines if "Error: " in line]
    return (named or lines or ["no reason given"])[0]

"""Folders exported for the native engine: opened, refused, and run without the engine."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mobilenet.checkpoint import read_model_json
from mobilenet.errors import CheckpointError, MissingEngine, UsageError
from mobilenet.export import read_golden
from mobilenet.runtime import RUNTIMES, load, read_artifact, sessions
from mobilenet.runtime import engine as engine_module
from test_runtime import copy_of, edit

needs_engine = pytest.mark.skipif(
    find_spec("mobilenet._engine") is None, reason="the native engine was not built"
)


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(engine_module, "import_module", fail)


@needs_engine
def test_the_engine_answers_as_pytorch_did(small_engine: Path) -> None:
    model = load(small_engine, threads=2)
    assert (model.session.runtime, model.session.precision) == ("engine", "float32")
    golden = read_golden(model.file)
    first = model(golden.inputs[:1])
    kept = first.copy()
    for start, batch in ((0, 1), (1, 3), (4, 6)):
        part = slice(start, start + batch)
        found = model(golden.inputs[part])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, golden.logits[part], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(first, kept)
    assert model(golden.inputs[:0]).shape == (0, len(model.labels))


@needs_engine
def test_it_is_mapped_and_needs_neither_torch_nor_pillow(small_engine: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from mobilenet.runtime import load\n"
        "model = load(sys.argv[1])\n"
        "model(np.zeros((1, 3, 48, 48), np.float32))\n"
        "few = {'torch', 'onnxruntime', 'PIL', 'asyncio', 'importlib.metadata', 'secrets'}\n"
        "assert not few & set(sys.modules), few & set(sys.modules)\n"
        "assert 'mobilenet.architectures' not in sys.modules\n"
        "print(open('/proc/self/maps').read() if sys.platform == 'linux' else 'model.mbn')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, small_engine], capture_output=True, text=True, check=True
    )
    assert "model.mbn" in done.stdout


@needs_engine
def test_every_damaged_byte_is_found(small_engine: Path, tmp_path: Path) -> None:
    folder = copy_of(small_engine, tmp_path)
    file = folder / "model.mbn"
    data = file.read_bytes()
    offsets = [*range(0, 144, 5), 143, 144, len(data) // 2, len(data) - 1]
    for offset in offsets:
        changed = bytearray(data)
        changed[offset] ^= 1
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"model\.mbn: "):
            load(folder)
    for size in (0, 100, 144, len(data) - 64):
        file.write_bytes(data[:size])
        with pytest.raises(CheckpointError, match=r"model\.mbn: "):
            load(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.mbn: cannot be read"):
        load(folder)
    file.symlink_to(small_engine / "model.mbn")
    with pytest.raises(CheckpointError, match="a link"):
        load(folder)


@needs_engine
def test_the_sha256_is_held_to_the_file_where_it_is_stated(
    small_engine: Path, tmp_path: Path
) -> None:
    folder = copy_of(small_engine, tmp_path)
    assert read_artifact(folder).sha256 == read_model_json(folder)["artifact"]["sha256"]
    edit(folder, lambda described: described["artifact"].update(sha256="0" * 64))
    file = load(folder).file
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        _ = file.sha256


def test_the_contract_is_checked(small_engine: Path, tmp_path: Path) -> None:
    for section, field, value in (
        ("artifact", "precision", "float13"),
        ("artifact", "header_sha256", "none"),
        ("fallback", "file", "../model.onnx"),
        ("fallback", "sha256", "none"),
        ("fallback", "format", 1),
    ):
        folder = copy_of(small_engine, tmp_path / f"{section}-{field}")
        described = read_model_json(folder)
        chosen = described["artifact"]
        (chosen if section == "artifact" else chosen["fallback"])[field] = value
        (folder / "model.json").write_text(json.dumps(described))
        with pytest.raises(CheckpointError, match=rf"'artifact\..*{field}'"):
            load(folder)


@needs_engine
def test_what_cannot_be_is_refused(small_engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read_artifact(small_engine)
    with pytest.raises(UsageError, match="the file is float32, not int8"):
        RUNTIMES["engine"](file.data, threads=1, precision="int8", batch=None)
    with pytest.raises(UsageError, match="runtime 'onnxruntime': expected one of"):
        load(small_engine, runtime="onnxruntime")
    monkeypatch.setenv("MOBILENET_ENGINE_ISA", "abacus")
    with pytest.raises(UsageError, match="abacus"):
        load(small_engine)
    monkeypatch.setenv("MOBILENET_ENGINE_ISA", "scalar")
    assert load(small_engine).session.version.endswith(" scalar")
    monkeypatch.setattr(sessions, "LOGITS", "nothing")
    with pytest.raises(CheckpointError, match="no 'nothing' among the outputs"):
        load(small_engine)


@pytest.mark.usefixtures("no_engine")
def test_without_the_engine_its_onnx_file_runs(
    small_engine: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(small_engine, threads=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("the native engine is missing: it was not built")
    assert line.endswith("model.onnx is run in its place")
    assert (model.session.runtime, model.session.precision) == ("onnxruntime", "float32")
    assert (model.file.format, model.file.path.name) == ("onnx", "model.onnx")
    golden = read_golden(model.file)
    np.testing.assert_allclose(model(golden.inputs), golden.logits, rtol=0, atol=1e-4)
    assert len(model.predict(pictures[:2])) == 2


@pytest.mark.usefixtures("no_engine")
def test_without_the_engine_and_what_takes_its_place(small_engine: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingEngine, match="it was not built"):
        load(small_engine, runtime="engine")
    folder = copy_of(small_engine, tmp_path)
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(CheckpointError, match=r"model\.onnx: its sha256"):
        load(folder)
    edit(folder, lambda described: described["artifact"].pop("fallback"))
    with pytest.raises(MissingEngine, match="install a C"):
        load(folder)

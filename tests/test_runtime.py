"""Exported folders opened without torch: answers, damage, and what is said of the machine."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import scipy.special

from mobilenet.checkpoint import read_model_json
from mobilenet.errors import CheckpointError, UsageError
from mobilenet.export import read_golden
from mobilenet.preprocess import ImageError, preprocess
from mobilenet.runtime import (
    FORMATS,
    RUNTIMES,
    Session,
    inspect_machine,
    is_artifact,
    load,
    read_artifact,
)

ONNX_RUNTIMES = FORMATS["onnx"]


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change `model.json` as someone does who means it."""
    described = read_model_json(folder)
    change(described)
    (folder / "model.json").write_text(json.dumps(described))


def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_every_runtime_answers_as_pytorch_did(small_export: Path, runtime: str) -> None:
    model = load(small_export, runtime=runtime, threads=1)
    golden = read_golden(model.file)
    for start, batch in ((0, 1), (1, 3), (4, 6)):
        part = slice(start, start + batch)
        found = model(golden.inputs[part])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, golden.logits[part], rtol=0, atol=1e-4)
    assert model.session.runtime == runtime
    assert model.session.precision == "float32"
    assert model.session.threads == 1


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_a_fixed_batch_answers_the_same(small_export: Path, runtime: str) -> None:
    file = read_artifact(small_export)
    golden = read_golden(file)
    session = RUNTIMES[runtime](file.data, threads=2, precision="float32", batch=2)
    found = session.run(golden.inputs[3:5])
    np.testing.assert_allclose(found, golden.logits[3:5], rtol=0, atol=1e-4)


def test_answers_stay_valid_after_the_next_call(small_export: Path) -> None:
    for runtime in ONNX_RUNTIMES:
        model = load(small_export, runtime=runtime)
        golden = read_golden(model.file)
        first = model(golden.inputs[:1])
        kept = first.copy()
        model(golden.inputs[6:7])
        np.testing.assert_array_equal(first, kept)


def test_predictions_are_the_softmax_of_the_logits(
    small_export: Path, pictures: list[Path]
) -> None:
    model = load(small_export, threads=1)
    sources = [pictures[0], str(pictures[1]), pictures[2].read_bytes()]
    found = model.predict(sources, top=3)
    for source, predictions in zip(sources, found, strict=True):
        scores = scipy.special.softmax(model(preprocess(source, model.preprocess)[None])[0])
        best = np.argsort(scores)[::-1][:3]
        assert [p.label for p in predictions] == [model.labels[i] for i in best]
        assert [p.score for p in predictions] == pytest.approx(scores[best].tolist(), abs=1e-6)
    everything = model.predict([pictures[0]], top=99)[0]
    assert len(everything) == len(model.labels)
    assert sum(p.score for p in everything) == pytest.approx(1)
    assert len({first.label for first, *_ in model.predict(pictures, top=1)}) > 3


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_predicting_needs_no_torch(small_export: Path, pictures: list[Path], runtime: str) -> None:
    code = (
        "import sys, json\n"
        "from mobilenet.runtime import load\n"
        "found = load(sys.argv[1], runtime=sys.argv[2]).predict(sys.argv[3:], top=2)\n"
        "assert not {'torch', 'onnx', 'safetensors'} & set(sys.modules), 'too much imported'\n"
        "print(json.dumps([[[p.label, p.score] for p in ps] for ps in found]))\n"
    )
    arguments = [small_export, runtime, *pictures[:2]]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    here = load(small_export, runtime=runtime).predict(pictures[:2], top=2)
    for found, expected in zip(json.loads(done.stdout), here, strict=True):
        assert [label for label, _ in found] == [p.label for p in expected]
        assert [s for _, s in found] == pytest.approx([p.score for p in expected], abs=1e-6)


def test_wrong_arrays_and_options_are_refused(small_export: Path, tmp_path: Path) -> None:
    model = load(small_export)
    for images in (
        np.zeros((1, 3, 48, 48)),
        np.zeros((3, 48, 48), np.float32),
        np.zeros((1, 48, 48, 3), np.float32),
        np.zeros((1, 3, 49, 48), np.float32),
    ):
        with pytest.raises(UsageError, match=r"expected float32 \(N, 3, 48, 48\)"):
            model(images)
    with pytest.raises(UsageError, match="runtime 'litert': expected one of"):
        load(small_export, runtime="litert")
    with pytest.raises(UsageError, match="threads 0"):
        load(small_export, threads=0)
    with pytest.raises(ImageError, match="no such file"):
        model.predict([tmp_path / "absent.png"])


def test_a_damaged_folder_is_refused(small_run: Path, small_export: Path, tmp_path: Path) -> None:
    assert is_artifact(small_export)
    assert not is_artifact(small_run)
    assert not is_artifact(tmp_path)
    with pytest.raises(CheckpointError, match="a run, not an exported model"):
        load(small_run)

    folder = copy_of(small_export, tmp_path)
    file = folder / "model.onnx"
    data = file.read_bytes()
    for offset in (0, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[offset] ^= 1
        file.write_bytes(changed)
        with pytest.raises(CheckpointError, match="damaged or replaced"):
            load(folder)
    file.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        load(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match=r"model\.onnx: cannot be read"):
        load(folder)
    file.symlink_to(small_export / "model.onnx")
    with pytest.raises(CheckpointError, match="a link"):
        load(folder)

    file.unlink()
    file.write_bytes(data)
    for section, field, value, message in (
        ("artifact", "format", "tea leaves", "unknown to this version"),
        ("artifact", "file", "../model.onnx", "file in this folder"),
        ("preprocess", "channels", "BGR", "channels 'BGR'"),
    ):
        other = copy_of(small_export, tmp_path / field)
        edit(other, lambda described: described[section].update({field: value}))  # noqa: B023
        with pytest.raises(CheckpointError, match=message):
            load(other)
    # a file that is no model at all, under its right hash
    file.write_bytes(b"\x08\x07\x12\x00nothing of use" * 20)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    edit(folder, lambda described: described["artifact"].update(sha256=sha256))
    for runtime in ONNX_RUNTIMES:
        with pytest.raises(CheckpointError, match=f"{runtime} cannot open the model"):
            load(folder, runtime=runtime)


def test_golden_images_are_held_to_their_hash(small_export: Path, tmp_path: Path) -> None:
    folder = copy_of(small_export, tmp_path)
    (folder / "golden.npz").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="damaged or replaced"):
        read_golden(read_artifact(folder))
    sha256 = hashlib.sha256(b"PK").hexdigest()
    edit(folder, lambda described: described["artifact"]["golden"].update(sha256=sha256))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_golden(read_artifact(folder))
    edit(folder, lambda described: described["artifact"].pop("golden"))
    with pytest.raises(CheckpointError, match="no golden images"):
        read_golden(read_artifact(folder))


def test_the_source_run_is_found_where_it_was_and_only_with_the_same_weights(
    small_run: Path, small_export: Path, tmp_path: Path
) -> None:
    found = read_artifact(small_export).source_run()
    assert found is not None
    assert found.resolve() == small_run.resolve()
    shutil.copytree(small_export, tmp_path / "moved" / "exported")
    assert read_artifact(tmp_path / "moved" / "exported").source_run() is None
    shutil.copytree(small_run, tmp_path / "moved" / "run")
    assert read_artifact(tmp_path / "moved" / "exported").source_run() is not None
    run = tmp_path / "moved" / "run"
    edit(run, lambda described: described["weights"].update(sha256="0" * 64))
    assert read_artifact(tmp_path / "moved" / "exported").source_run() is None


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_a_precision_that_cannot_be_had_is_refused(small_export: Path, runtime: str) -> None:
    file = read_artifact(small_export)
    if runtime == "openvino" and "bf16" in " ".join(inspect_machine().instruction_sets):
        session = RUNTIMES[runtime](file.data, threads=1, precision="bfloat16", batch=1)
        assert session.precision == "bfloat16"
        return
    with pytest.raises(UsageError, match=f"{runtime}: .*bfloat16"):
        RUNTIMES[runtime](file.data, threads=1, precision="bfloat16", batch=None)


def test_images_are_laid_out_as_the_session_takes_them() -> None:
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    for layout, expected in (("NCHW", images), ("NHWC", np.moveaxis(images, 1, -1))):
        session = Session(
            runtime="none",
            version="0",
            precision="float32",
            layout=layout,
            threads=1,
            run=lambda x: x,
        )
        found = session.laid_out(images)
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected)


def test_litert_answers_as_pytorch_does() -> None:
    pytest.importorskip("litert_torch")
    import torch

    from mobilenet.export.litert import litert_bytes
    from mobilenet.models import MODELS
    from mobilenet.networks import random_network

    network = random_network(MODELS["mobilenet_v3_small_minimalistic"], 32)
    data = litert_bytes(network, size=32, batch=2)
    session = RUNTIMES["litert"](data, threads=1, precision="float32", batch=None)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    found = session.run(session.laid_out(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    with pytest.raises(CheckpointError, match="litert cannot open the model"):
        RUNTIMES["litert"](b"no model", threads=1, precision="float32", batch=None)


def test_the_machine_is_described_as_others_see_it() -> None:
    machine = inspect_machine()
    assert machine.cores == psutil.cpu_count()
    assert machine.load is not None
    assert 0 <= machine.load < 1000
    if sys.platform == "linux":
        assert list(machine.affinity) == psutil.Process().cpu_affinity()
        flags = Path("/proc/cpuinfo").read_text().split()
        assert all(name in flags for name in machine.instruction_sets)
        assert machine.system.endswith(os.uname().release)

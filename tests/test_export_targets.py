"""Files for other runtimes: each exported, run by its own runtime, verified, used by its sample.

What CI does not install is skipped there.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mobilenet import benchmark, evaluate, predict
from mobilenet.checkpoint import read_model_json
from mobilenet.errors import CheckpointError
from mobilenet.evaluate.model import open_model
from mobilenet.export import export, read_golden
from mobilenet.runtime import list_sha256, load, pack, read_artifact, unpack
from mobilenet.verify import verify


@dataclass(frozen=True, kw_only=True)
class Target:
    """A format, the packages that make and run it, and what it can be."""

    format: str
    packages: tuple[str, ...]
    runtime: str
    options: Mapping[str, Any] = field(default_factory=dict)
    int8: bool = False

    def __str__(self) -> str:
        return "-".join([self.format, *map(str, self.options.values()), *["int8"] * self.int8])


TARGETS = [
    Target(format="openvino", packages=("openvino",), runtime="openvino"),
    Target(
        format="openvino",
        packages=("openvino",),
        runtime="openvino",
        options={"weights": "float16"},
    ),
    Target(format="openvino", packages=("openvino",), runtime="openvino", int8=True),
]
PLAIN = [target for target in TARGETS if not (target.options or target.int8)]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


Exported = Callable[[Target], Path]


@pytest.fixture(scope="module")
def exported(small_run: Path, small_int8: Path) -> Exported:
    """Every target exported once, in a folder beside the run. Copy it before changing it."""
    made: dict[str, Path] = {}

    def folder(target: Target) -> Path:
        for package in target.packages:
            pytest.importorskip(package)
        if str(target) not in made:
            out = small_run.parent / str(target)
            run = small_int8 if target.int8 else small_run
            made[str(target)] = export(run, to=target.format, out=out, **target.options).path
        return made[str(target)]

    return folder


@pytest.fixture(scope="module")
def dataset(
    small_run: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Pictures under the class that the float network gives them."""
    folder = tmp_path_factory.mktemp("dataset")
    answers = predict(str(small_run), pictures, top=1, threads=1).answers
    for picture, answer in zip(pictures, answers, strict=True):
        target = folder / "test" / answer.predictions[0].label / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, target)
    return folder


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_file_answers_in_its_own_runtime_whatever_the_batch(
    exported: Exported, target: Target
) -> None:
    model = load(exported(target), threads=1)
    golden = read_golden(model.file)
    tolerance = model.file.description["golden"]["tolerance"]
    for start, batch in ((0, 1), (1, 3), (4, 6), (2, 1)):
        part = slice(start, start + batch)
        found = model(golden.inputs[part])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, golden.logits[part], rtol=0, atol=tolerance)
    assert model.session.runtime == target.runtime
    if not target.int8:
        assert tolerance == 1e-3
        assert model.session.precision == "float32"


@pytest.mark.parametrize("target", PLAIN, ids=str)
def test_the_float_file_answers_as_the_run_does(
    exported: Exported, small_run: Path, target: Target
) -> None:
    images = np.random.default_rng(0).normal(size=(4, 3, 48, 48)).astype(np.float32)
    expected = open_model(small_run, threads=1, device="cpu").forward(images)
    assert expected.std() > 1
    found = load(exported(target), threads=1)(images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_every_verb_takes_the_folder(
    exported: Exported, small_run: Path, dataset: Path, pictures: list[Path], target: Target
) -> None:
    folder = exported(target)
    certificate = verify(folder, str(dataset), max_drop=50, threads=1)
    assert certificate.ok, certificate.problems
    assert certificate.format == target.format
    assert certificate.artifact_sha256 == read_artifact(folder).sha256
    measured = evaluate(str(folder), str(dataset), threads=1)
    assert measured.metrics.top1.value == certificate.top1.value
    if not (target.int8 or target.options):
        assert certificate.top1.value == 1
    (answer,) = predict(str(folder), pictures[:1], top=2, threads=1).answers
    assert len(answer.predictions) == 2
    timed = benchmark(str(folder), runtime=(target.runtime,), rounds=1, runs=1)
    assert [(t.runtime, t.configuration) for t in timed.results] == [
        (target.runtime, "as exported")
    ]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_the_sample_runs_without_us(
    exported: Exported, pictures: list[Path], target: Target
) -> None:
    folder = exported(target)
    code = (
        "import runpy, sys; sys.modules['mobilenet'] = None; sys.argv = sys.argv[1:]; "
        "sys.path.insert(0, sys.argv.pop(0)); runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder, folder / "predict.py", *pictures[:3]],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = load(folder, threads=1).predict(pictures[:3])
    for line, expected in zip(done.stdout.splitlines(), ours, strict=True):
        found = json.loads(line)["predictions"]
        assert [p["label"] for p in found[:2]] == [p.label for p in expected[:2]]
        assert [p["score"] for p in found] == pytest.approx([p.score for p in expected], abs=1e-3)


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_what_the_folder_holds_is_held_to_its_hashes(
    exported: Exported, tmp_path: Path, target: Target
) -> None:
    folder = Path(shutil.copytree(exported(target), tmp_path / "copy"))
    described = read_model_json(folder)["artifact"]
    files = described.get("files", {described["file"]: described["sha256"]})
    for name, sha256 in files.items():
        data = (folder / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(CheckpointError, match="damaged or replaced"):
            load(folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match="cannot be read"):
            load(folder)
        (folder / name).write_bytes(data)
    assert described["bytes"] == sum((folder / name).stat().st_size for name in files)
    assert not any(str(Path.cwd()).encode() in (folder / name).read_bytes() for name in files)


def test_several_files_are_listed_as_sha256sum_does(tmp_path: Path) -> None:
    files = {"a.xml": b"one", "b/c.bin": b"two" * 1000}
    assert unpack(pack(files)) == files
    assert pack(files) == pack(dict(files))
    (tmp_path / "b").mkdir()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    printed = subprocess.run(
        ["sha256sum", *files], cwd=tmp_path, capture_output=True, check=True
    ).stdout
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    assert list_sha256(hashes) == hashlib.sha256(printed).hexdigest()


@pytest.mark.parametrize("name", ["../model.bin", "/etc/passwd", "a//b", "a/../b", ""])
def test_files_outside_the_folder_are_refused(
    exported: Exported, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(exported(TARGETS[0]), tmp_path / "copy"))
    described = read_model_json(folder)
    files = described["artifact"]["files"]
    described["artifact"]["files"] = {"model.xml": files["model.xml"], name: files["model.bin"]}
    (folder / "model.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="below this folder"):
        load(folder)


# --------------------------------------------------------------------------- OpenVINO


def test_an_openvino_file_carries_its_contract(exported: Exported, small_run: Path) -> None:
    folder = exported(TARGETS[0])
    import openvino

    model = openvino.Core().read_model(folder / "model.xml")
    contract = read_model_json(small_run)

    def carried(name: str) -> str:
        return model.get_rt_info(["mobilenet", name]).astype(str)

    assert json.loads(carried("model.json")) == contract
    assert json.loads(carried("labels")) == contract["labels"]
    assert carried("source.sha256") == contract["weights"]["sha256"]
    assert carried("inference_precision") == "f32"
    assert not model.has_rt_info(["framework"])
    assert [port.get_any_name() for port in (*model.inputs, *model.outputs)] == ["image", "logits"]


def test_weights_of_an_openvino_file_take_half_the_bytes(exported: Exported) -> None:
    plain, half, whole = (exported(target) / "model.bin" for target in TARGETS[:3])
    assert half.stat().st_size < 0.55 * plain.stat().st_size
    assert whole.stat().st_size < 0.4 * plain.stat().st_size


def test_openvino_says_how_many_convolutions_run_in_integers(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported(TARGETS[2])
    sessions = sys.modules["mobilenet.runtime.sessions"]
    convolutions = sum(load(exported(TARGETS[0])).session.convolutions.values())
    monkeypatch.setattr(sessions, "_adds_exactly", lambda: False)
    careful = load(folder, threads=1).session
    assert set(careful.convolutions) == {"float32"}
    assert "saturate" in str(careful.note)
    monkeypatch.setattr(sessions, "_adds_exactly", lambda: True)
    fast = load(folder, threads=1).session
    assert fast.convolutions["int8"] >= convolutions - 2  # it splits some off for itself
    assert fast.note is None

"""What doctor says of a dataset and of this machine."""

import json
import os
import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.doctor import PACKAGES, control_groups, core_limit, doctor, memory_limit
from mobilenet.errors import DataError

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def write(path: Path, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize(size).save(path)


@pytest.fixture
def troubled(tmp_path: Path) -> Path:
    """A dataset with one of each trouble."""
    for index in range(44):
        write(tmp_path / "train" / "cat" / f"{index}.png", index)
    for index in range(3):
        write(tmp_path / "train" / "dog" / f"{index}.png", 100 + index)
        write(tmp_path / "test" / "cat" / f"{index}.png", 200 + index)
    write(tmp_path / "test" / "cat" / "leak.png", 5)
    write(tmp_path / "train" / "dog" / "also a cat.png", 6)
    write(tmp_path / "train" / "cat" / "tiny.png", 300, (9, 9))
    write(tmp_path / "train" / "cat" / "long.png", 301, (400, 40))
    (tmp_path / "train" / "dog" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "train" / "dog" / "words.jpg").write_text("words")
    (tmp_path / "train" / "cow").mkdir()
    (tmp_path / "train" / "cat" / "readme.md").write_text("# cats")
    return tmp_path


def test_a_troubled_dataset(troubled: Path) -> None:
    report = doctor(str(troubled), val_fraction=0)
    assert not report.ok
    assert report.machine is None
    assert report.data is not None
    assert {Path(bad.path).name for bad in report.data.unreadable} == {"broken.jpg", "words.jpg"}
    text = str(report)
    for expected in (
        "56 pictures, 2 classes",
        "train 52, test 4",
        "words.jpg: not an image but a text",
        "readme.md: not a picture (.md)",
        "leak.png (test, cat)",
        "also a cat.png (train, dog)",
        "unreadable pictures: 2",
        "pictures filed under several classes: 1",
        "pictures in several splits: 1",
        "split test has no picture of dog",
        "left out, as their folders hold no picture: cow",
        "fewer than 20 training pictures: dog (6)",
        "pictures smaller than 32 pixels: 1",
        "pictures over 4 times as long as wide: 1",
    ):
        assert expected in text, text
    whole = json.loads(json.dumps(report.to_json()))
    assert "machine" not in whole
    assert whole["data"]["unreadable"][0]["split"] == "train"
    assert whole["advice"] == list(report.advice)


def test_imbalance_and_a_single_class(tmp_path: Path) -> None:
    for index in range(44):
        write(tmp_path / "cat" / f"{index}.png", index)
    assert any("one class only" in line for line in doctor(str(tmp_path)).advice)
    for index in range(4):
        write(tmp_path / "dog" / f"{index}.png", 50 + index)
    report = doctor(str(tmp_path), val_fraction=0)
    assert report.ok
    assert any("11 times" in line and "balanced" in line for line in report.advice)


def test_a_healthy_dataset(tmp_path: Path, capsys) -> None:
    for label in ("cat", "dog"):
        for index in range(25):
            write(tmp_path / label / f"{index}.png", hash((label, index)) % 2**32)
    report = doctor(str(tmp_path))
    assert report.ok
    assert report.advice == ()
    assert str(report).endswith("nothing to mend")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"{tmp_path}: folder, 2 classes\n"


def test_no_dataset_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        doctor(str(tmp_path / "nowhere"))


def test_this_machine() -> None:
    report = doctor()
    assert report.ok
    assert report.data is None
    machine = report.machine
    assert machine is not None
    assert 0 < machine.usable_cores <= (os.cpu_count() or 1)
    assert machine.machine.cores == os.cpu_count()
    versions = {package.name: package.version for package in machine.packages}
    assert versions["numpy"] == version("numpy")
    assert versions["pillow"] == version("pillow")
    for package in machine.packages:
        assert (package.version is None) == (package.install is not None)
    text = str(report)
    assert machine.machine.cpu in text
    assert f"numpy           {version('numpy')}" in text
    assert "data" not in json.loads(json.dumps(report.to_json()))


def test_the_native_engine(monkeypatch) -> None:
    native = pytest.importorskip("mobilenet._engine", reason="the native engine was not built")
    monkeypatch.delenv("MOBILENET_ENGINE_ISA", raising=False)
    isas = native.isas()
    assert isas[-1] == "scalar"
    assert f"engine    native, with {isas[0]}, of {' '.join(isas)}" in str(doctor())
    monkeypatch.setenv("MOBILENET_ENGINE_ISA", "scalar")
    assert "native, with scalar (MOBILENET_ENGINE_ISA=scalar), of" in str(doctor())
    monkeypatch.setenv("MOBILENET_ENGINE_ISA", "abacus")
    machine = doctor().machine
    assert machine is not None
    assert machine.engine.isa is None
    assert "abacus" in (machine.engine.problem or "")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(None, "it was not built"), ("another system's", "it cannot be loaded")],
)
def test_without_the_native_engine(broken: str | None, reason: str, monkeypatch) -> None:
    import mobilenet.runtime.engine as module

    def fail(name: str) -> None:
        raise ModuleNotFoundError(name) if broken is None else ImportError(broken)

    monkeypatch.setattr(module, "import_module", fail)
    machine = doctor().machine
    assert machine is not None
    assert machine.engine.isas == ()
    assert f"engine    missing, ONNX Runtime takes its place: {reason}" in str(doctor())


def test_a_missing_package_says_what_brings_it(monkeypatch) -> None:
    import importlib

    module = importlib.import_module("mobilenet.doctor")
    monkeypatch.setattr(module, "PACKAGES", (("no-such-package", "onnx", "nothing"),))
    text = str(doctor())
    assert "no-such-package missing: pip install 'mobilenet[onnx]'" in text


def test_places_follow_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOBILENET_CACHE", str(tmp_path))
    (tmp_path / "data").mkdir()
    machine = doctor().machine
    assert machine is not None
    places = {place.purpose: place for place in machine.places}
    assert (places["data cache"].path, places["data cache"].exists) == (
        str(tmp_path / "data"),
        True,
    )
    assert not places["weights cache"].exists
    assert places["$MOBILENET_CACHE"].path == str(tmp_path)


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    brought = {"": project["dependencies"], **project["optional-dependencies"]}
    for name, extra, _ in PACKAGES:
        assert any(line.lower().startswith(name) for line in brought[extra]), (name, extra)


def test_limits_of_control_groups(tmp_path: Path) -> None:
    root, inner = tmp_path / "cgroup", tmp_path / "cgroup" / "a" / "b"
    inner.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/a/b\n")
    groups = control_groups(root, membership)
    assert groups == [inner, root / "a", root]
    assert (core_limit(groups), memory_limit(groups)) == (None, None)
    (inner / "cpu.max").write_text("max 100000\n")
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (inner / "memory.max").write_text("2147483648\n")
    (root / "a" / "memory.max").write_text("max\n")
    assert (core_limit(groups), memory_limit(groups)) == (1.5, 2**31)
    assert control_groups(root, tmp_path / "none") == []

"""The native engine as a C library: built by CMake, linked by a C compiler alone."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet.runtime import load

fcntl = pytest.importorskip("fcntl")  # not on Windows
pytest.importorskip("mobilenet._engine", reason="the native engine was not built")

PROJECT = Path(__file__).parent.parent
SAMPLE = PROJECT / "src" / "mobilenet" / "export" / "samples" / "classify.c"
PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg")
needs_compilers = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("cc") and shutil.which("c++")),
    reason="needs CMake, a C and a C++ compiler",
)


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The header and the library, installed as for a C program, with no warning of the compiler.

    Workers of one test session share it: building takes about a minute.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "engine-c"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "include").exists():
            run("cmake", "-S", PROJECT, "-B", root / "build", "-DMOBILENET_WERROR=ON")
            run("cmake", "--build", root / "build", "-j", str(os.cpu_count()))
            run("cmake", "--install", root / "build", "--prefix", root, "--component", "c")
    return root


@pytest.fixture(scope="module")
def classify(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled and linked by `cc` as its header says."""
    (library,) = installed.glob("lib*/**/libmobilenet.a")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", f"-I{installed / 'include'}"]
    libraries = [library, "-lstdc++", "-lm", "-lpthread"]
    program = tmp_path_factory.mktemp("c") / "classify"
    run("cc", *flags, SAMPLE, *libraries, "-o", program)
    return program


@needs_compilers
@pytest.mark.slow
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_example_names_what_python_names(
    classify: Path, small_engine: Path, name: str, tmp_path: Path
) -> None:
    skimage = pytest.importorskip("skimage")
    photograph = Path(skimage.__file__).parent / "data" / name
    Image.open(photograph).convert("RGB").save(tmp_path / "picture.ppm")
    (expected,) = load(small_engine).predict([photograph])
    printed = run(classify, small_engine / "model.mbn", tmp_path / "picture.ppm")
    found = [re.fullmatch(r" *([\d.]+) %  (.*)", line) for line in printed.splitlines()]
    assert [match and match[2] for match in found] == [answer.label for answer in expected]
    scores = [float(match[1]) / 100 for match in found if match]
    np.testing.assert_allclose(scores, [answer.score for answer in expected], atol=1e-4)


@needs_compilers
@pytest.mark.slow
def test_the_example_says_what_is_wrong(classify: Path, small_engine: Path, tmp_path: Path) -> None:
    picture, model = tmp_path / "picture.ppm", small_engine / "model.mbn"
    Image.new("RGB", (5, 4)).save(picture)
    cut, empty = tmp_path / "cut.mbn", tmp_path / "empty.mbn"
    cut.write_bytes(model.read_bytes()[:-64])
    empty.touch()
    for arguments, message in (
        ((model, model), "not a binary PPM"),
        ((tmp_path / "none.mbn", picture), "No such file"),
        ((tmp_path, picture), "directory"),
        ((picture, picture), "picture.ppm: "),
        ((cut, picture), "cut.mbn: "),
        ((empty, picture), "empty.mbn: "),
    ):
        done = subprocess.run([classify, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert message in done.stderr


@needs_compilers
@pytest.mark.slow
def test_no_inline_function_leaves_its_instruction_set(installed: Path) -> None:
    """A function that several files define is linked from any one of them: were that one compiled
    for AVX-512, a machine without it would stop there. So kernels may share none."""
    shared = {}
    for file in sorted((installed / "build" / "engine").rglob("kernels/*/*.o")):
        folder = file.parent.name
        if folder not in ("generic", "scalar"):
            lines = run("nm", "-C", "--defined-only", "--extern-only", file).splitlines()
            names = [line.split(maxsplit=2)[1:] for line in lines]
            weak = [name for kind, name in names if kind in "WVu"]
            shared[f"{folder}/{file.name}"] = [n for n in weak if f"{folder}::" not in n]
    assert shared
    assert not any(shared.values()), shared

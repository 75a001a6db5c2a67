"""The native engine for 64-bit ARM: cross-compiled, and run by qemu on two processors."""

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobilenet.export.engine import rounded
from mobilenet.flat import Card, EngineFile, write_engine
from mobilenet.integer import Wide, run_integer
from mobilenet.models import MODELS
from mobilenet.networks import random_network
from mobilenet.program import LOGITS, evaluate_float, program_of
from mobilenet.quantize import observe_ranges, quantise

PROJECT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
MISSING = [
    tool
    for tool in ("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64")
    if not shutil.which(tool, path=PATH)
]
# the best instruction set of a processor with the dot product extension, and of one without
PROCESSORS = {"max": "neon_dot", "cortex-a53": "neon"}
SIZE = 96

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": PATH, **variables},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the build; workers that run at the same time share it."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    folder = root / "aarch64"
    with (root / "aarch64.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "runner-aarch64").exists():
            script = PROJECT / "runs" / "engine_aarch64.sh"
            flags = ("-DMOBILENET_WERROR=ON", "-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG")
            folder.mkdir(exist_ok=True)
            run("bash", script, folder, *flags, MOBILENET_RUNNERS=str(folder))
    return folder


@pytest.mark.parametrize(("processor", "isa"), PROCESSORS.items())
def test_kernels_agree_with_their_plain_twins(built: Path, processor: str, isa: str) -> None:
    program = built / "engine" / "tests" / "kernels_test"
    printed = run("qemu-aarch64", "-cpu", processor, program, "25", "1", isa)
    assert f"{isa} int8: 25 cases" in printed
    assert isa != "neon" or f"{isa} int8 with wide maps: 25 cases" in printed


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small"])
def test_networks_agree_with_their_references(built: Path, name: str, tmp_path: Path) -> None:
    network = random_network(replace(MODELS[name], width=0.35, classes=37), SIZE)
    images = np.random.default_rng(0).standard_normal((6, 3, SIZE, SIZE), np.float32)
    x = images[:2]
    program = program_of(network)
    ranges = observe_ranges(program, [images[2:]])
    quantised = quantise(program, ranges)
    wide = quantise(program, ranges, wide=Wide.EVERYWHERE)
    with torch.inference_mode():
        logits = network(torch.from_numpy(x)).numpy()
    cases = {
        "float32": (program, logits, 1e-5),
        "bfloat16": (program, evaluate_float(rounded(program), x)[LOGITS][:, :, 0, 0], 2e-5),
        "int8": (quantised, run_integer(quantised, x)[LOGITS][:, :, 0, 0], 0),
        "int8 wide": (wide, run_integer(wide, x)[LOGITS][:, :, 0, 0], 0),
    }
    x.tofile(tmp_path / "images")
    for case, (file, expected, bound) in cases.items():
        precision = case.split()[0]
        made = EngineFile(network=file, precision=precision, height=SIZE, width=SIZE, card=Card())
        (tmp_path / "model.mbn").write_bytes(write_engine(made))
        for processor, isa in PROCESSORS.items():
            emulator = ("qemu-aarch64", "-cpu", processor, built / "run_file")
            files = (tmp_path / file for file in ("model.mbn", "images", "logits"))
            # the best that there may be; threads: the other way through a network
            threads = "1" if isa == "neon_dot" else "2"
            assert run(*emulator, *files, "neon_dot", threads) == f"{isa}\n"
            found = np.fromfile(tmp_path / "logits", np.float32).reshape(expected.shape)
            assert np.abs(found - expected).max() <= bound * np.abs(expected).max(), case


def test_the_baseline_has_no_instructions_of_an_extension(built: Path) -> None:
    """A function that both files of kernels define is linked from either of them."""
    objects = (built / "engine").rglob("kernels/neon/*.o")
    defined = {}
    for file in objects:
        lines = run("aarch64-linux-gnu-nm", "-C", "--defined-only", "--extern-only", file)
        defined[file.name] = {line.split(maxsplit=2)[2] for line in lines.splitlines()}
    assert sorted(defined) == ["kernels.cpp.o", "kernels_dot.cpp.o"]
    assert not defined["kernels.cpp.o"] & defined["kernels_dot.cpp.o"]

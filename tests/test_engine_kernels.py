"""The engine's kernels of instruction sets that this machine may lack: AVX-512, VNNI and AMX.

Their instructions are emulated, so that every kernel meets its plain twin and whole networks run on
them; and the real ones are compiled by each compiler here, to see that the instructions are there.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

fcntl = pytest.importorskip("fcntl")  # not on Windows

PROJECT = Path(__file__).parent.parent
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
COMPILERS = [name for name in ("g++", "clang++") if shutil.which(name)]
EMULATED = ("amx", "vnni", "avx512")
PROGRAMS = ("kernels_test", "unwritten_test", "threads_test")
MISSING = [
    name
    for name, there in {
        "an x86-64 processor": platform.machine() in ("x86_64", "AMD64"),
        "Linux": sys.platform == "linux",
        "cmake": shutil.which("cmake", path=PATH),
        "ninja": shutil.which("ninja", path=PATH),
        "a C++ compiler": COMPILERS,
    }.items()
    if not there
]
# what the kernels of a folder are made of, by instruction and register
INSTRUCTIONS = {
    "avx512": [r"vfmadd231ps .*zmm", r"vrndscaleps|vmaxps .*zmm"],
    "vnni": [r"vpdpbusd .*zmm", r"vfmadd231ps .*zmm", r"vrndscaleps .*zmm"],
    "amx": [
        r"tdpbusd .*tmm",
        r"tdpbf16ps .*tmm",
        r"tileloadd .*tmm",
        r"tilestored .*tmm",
        r"ldtilecfg",
        r"tilerelease",
        r"vcvtneps2bf16 .*zmm",
        r"vpdpbusd .*zmm",
    ],
}
MULTIPLY = re.compile(r"vfmadd\w+ps .*zmm|vpdpbusd")
FRAME = re.compile(r"mov\s+%rsp,%rbp")  # else %rbp is a register like any other

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]
needs_simde = pytest.mark.skipif(
    not Path("/usr/include/simde").exists(), reason="needs libsimde-dev"
)


def run(*command: str | Path, **variables: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env={**os.environ, "PATH": PATH, **variables},
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the build; workers that run at the same time share it."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "emulated"
    root.mkdir(exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "done").exists():
            nanobind = run(sys.executable, "-c", "import nanobind; print(nanobind.cmake_dir())")
            options = {
                "MOBILENET_EMULATE": "ON",
                "MOBILENET_TESTS": "ON",
                "MOBILENET_PYTHON": "ON",
                "MOBILENET_WERROR": "ON",
                "CMAKE_CXX_FLAGS_RELEASE": "-O1",
                "Python_EXECUTABLE": sys.executable,
                "nanobind_DIR": nanobind.strip(),
            }
            flags = [f"-D{name}={value}" for name, value in options.items()]
            run("cmake", "-S", PROJECT, "-B", root, "-G", "Ninja", *flags)
            run("cmake", "--build", root, "--target", "_engine", *PROGRAMS)
            (root / "done").touch()
    return root


@needs_simde
def test_kernels_agree_with_their_plain_twins(emulated: Path) -> None:
    printed = run(emulated / "engine" / "tests" / "kernels_test", "100")
    assert {line.split()[0] for line in printed.splitlines()} >= {*EMULATED, "avx2"}


@needs_simde
def test_engines_hold_on_every_instruction_set(emulated: Path) -> None:
    run(emulated / "engine" / "tests" / "unwritten_test")
    assert "all hold" in run(emulated / "engine" / "tests" / "threads_test", "brief")


@needs_simde
@pytest.mark.parametrize("isa", ["amx", "vnni"])
def test_networks_agree_with_their_references(emulated: Path, isa: str) -> None:
    """The engine's own tests, with `isa` the best that there is."""
    (module,) = (emulated / "engine").glob("_engine.*")
    plugins = ("-p", "emulated_engine", "-p", "no:cacheprovider", "-p", "no:xdist")
    chosen = "TestInstructionSets or heads or threads" if isa == "amx" else "to_the_bit or heads"
    printed = run(
        *(sys.executable, "-m", "pytest", "-q", *plugins, "tests/test_engine.py", "-k", chosen),
        EMULATED_ENGINE=str(module),
        MOBILENET_ENGINE_ISA=isa,
        PYTHONPATH=str(PROJECT / "tests"),
        PYTEST_ADDOPTS="",
    )
    assert " passed" in printed
    assert "skipped" not in printed


def innermost_loops(code: str) -> list[list[str]]:
    """The instructions of every loop of a function that holds no other."""
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*)$", code, re.MULTILINE)
    at = [int(address, 16) for address, _ in lines]
    loops = []
    for address, (_, instruction) in zip(at, lines, strict=True):
        target = re.match(r"j\w+\s+([0-9a-f]+)", instruction)
        if target and at[0] <= int(target[1], 16) <= address:
            loops.append((int(target[1], 16), address))
    inner = [
        (first, last)
        for first, last in loops
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops)
    ]
    return [
        [text for address, (_, text) in zip(at, lines, strict=True) if first <= address <= last]
        for first, last in inner
    ]


@pytest.mark.parametrize("folder", INSTRUCTIONS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_compilers_make_the_instructions(compiler: str, folder: str, tmp_path: Path) -> None:
    flags = (f"-DCMAKE_CXX_COMPILER={compiler}", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    run("cmake", "-S", PROJECT, "-B", tmp_path, "-G", "Ninja", *flags, "-DMOBILENET_WERROR=ON")
    commands = json.loads((tmp_path / "compile_commands.json").read_text())
    (command,) = (c for c in commands if c["file"].endswith(f"kernels/{folder}/kernels.cpp"))
    made = Path(command["output"])
    run("cmake", "--build", tmp_path, "--target", made.relative_to(tmp_path))
    listing = run("objdump", "-d", "-C", "--no-show-raw-insn", made)
    for pattern in INSTRUCTIONS[folder]:
        assert re.search(rf"\s{pattern}", listing), pattern

    # sums that leave the registers cost more than they save: all but a few stay there
    checked = 0
    for function in listing.split("\n\n"):
        stack = r"\(%r[sb]p" if FRAME.search(function) else r"\(%rsp"
        for loop in innermost_loops(function):
            products = sum(bool(MULTIPLY.search(line)) for line in loop)
            spilled = sum(bool(re.search(stack, line)) for line in loop if "zmm" in line)
            if products >= 16:
                checked += 1
                assert spilled <= products / 16, function.splitlines()[0]
    assert checked

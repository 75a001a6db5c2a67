"""How long a whole process takes to its first answer, and how much memory, with several runtimes.

    python benchmarks/cold_start.py [MODEL] [--precision int8] [--runs 15]

A process starts, imports NumPy and the runtime, opens the model, answers for one image and writes
the answer to a pipe; the time ends when the answer is there. One process at a time, in turns; each
is run once before to warm the disk cache. Memory is the process's own peak (VmHWM). All have one
thread, and all read the same image from a file.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mobilenet.benchmark.subject import Subject
    from mobilenet.runtime import Precision

RUNS = 15
LONGEST = 900.0  # seconds that preparing may take

HEAD = """
import sys
import numpy as np
images = np.load(sys.argv[1] + "/{layout}.npy")
"""
TAIL = """
sys.stdout.buffer.write(np.ascontiguousarray(answer, np.float32).tobytes())
sys.stdout.buffer.flush()
memory = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
sys.stdout.write(memory[0].split()[1])
"""
OPENVINO = """
import openvino
core = openvino.Core()
settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
"""
ONNXRUNTIME = """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
"""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A minimal script of one runtime: `body` makes `answer` of `images`, which lie in `layout`;
    `needs` is the file of the folder without which there is nothing to run."""

    body: str
    needs: str
    layout: str = "NCHW"

    def script(self) -> str:
        """All of it."""
        return HEAD.format(layout=self.layout) + self.body + TAIL


STARTS: Mapping[str, Start] = {
    "NumPy alone": Start(body="answer = images.mean((2, 3))\n", needs="NCHW.npy"),
    "engine, mobilenet.runtime.load": Start(
        body="from mobilenet.runtime import load\n"
        'answer = load(sys.argv[1] + "/engine", threads=1)(images)\n',
        needs="engine/model.mbn",
    ),
    "engine, its compiled module": Start(
        body="from mobilenet._engine import Engine, Model\n"
        'answer = Engine(Model(sys.argv[1] + "/engine/model.mbn")).run(images)["logits"]\n',
        needs="engine/model.mbn",
    ),
    "LiteRT": Start(
        body="from ai_edge_litert.interpreter import Interpreter\n"
        'model = Interpreter(sys.argv[1] + "/model.tflite", num_threads=1)\n'
        "model.allocate_tensors()\n"
        'model.set_tensor(model.get_input_details()[0]["index"], images)\n'
        "model.invoke()\n"
        'answer = model.get_tensor(model.get_output_details()[0]["index"])\n',
        needs="model.tflite",
        layout="NHWC",
    ),
    "ONNX Runtime": Start(
        body=ONNXRUNTIME
        + 'session = onnxruntime.InferenceSession(sys.argv[1] + "/model.onnx", options)\n'
        'answer = session.run(None, {"image": images})[0]\n',
        needs="model.onnx",
    ),
    "ONNX Runtime, graph optimised beforehand": Start(
        body=ONNXRUNTIME
        + "level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL\n"
        + "options.graph_optimization_level = level\n"
        + 'session = onnxruntime.InferenceSession(sys.argv[1] + "/optimised.onnx", options)\n'
        'answer = session.run(None, {"image": images})[0]\n',
        needs="optimised.onnx",
    ),
    "OpenVINO": Start(
        body=OPENVINO
        + 'model = core.read_model(sys.argv[1] + "/model.xml")\n'
        + 'answer = core.compile_model(model, "CPU", settings)(images)[0]\n',
        needs="model.xml",
    ),
    "OpenVINO, compiled beforehand": Start(
        body=OPENVINO
        + 'data = open(sys.argv[1] + "/compiled.blob", "rb").read()\n'
        + 'answer = core.import_model(data, "CPU", settings)(images)[0]\n',
        needs="compiled.blob",
    ),
}
LOGITS = {"NumPy alone": 3}  # numbers of an answer, where it is not that of the network
CLOSE = 0.7  # cosine of an answer with float32 PyTorch's: see docs/benchmark.md for int8


@dataclass(frozen=True, kw_only=True)
class Cold:
    """Milliseconds to the first answer over `runs` processes, and the peak memory in MB (10**6
    bytes). `cosine` of the answer with float32 PyTorch's is None where it is no network's."""

    name: str
    precision: str
    median_ms: float
    p10_ms: float
    p90_ms: float
    memory_mb: float
    runs: int
    cosine: float | None


def prepare(model: str, precision: "Precision", size: int, folder: Path) -> dict[str, str]:
    """Write every runtime's file of a network with random weights; why some could not be."""
    from mobilenet.benchmark.subject import find_subject
    from mobilenet.errors import MobilenetError

    subject = find_subject(model, size=size, width=None, batch=1)
    np.save(folder / "NCHW.npy", subject.inputs)
    np.save(folder / "NHWC.npy", np.ascontiguousarray(subject.inputs.transpose(0, 2, 3, 1)))
    np.save(folder / "expected.npy", subject.expected)
    skipped: dict[str, str] = {}
    files = {
        "float32": {"onnx": subject.onnx_file, "litert": subject.litert_file},
        "int8": {
            "onnx": lambda: subject.qdq_file(convolutions_only=False),
            "litert": lambda: subject.litert_int8_file(convolutions_only=False),
        },
    }[precision]
    for name, make, write in (
        ("engine", None, lambda data: _write_engine(subject, precision, folder)),
        ("litert", files["litert"], lambda data: (folder / "model.tflite").write_bytes(data)),
        ("onnxruntime", files["onnx"], lambda data: _write_onnx(data, folder)),
        ("openvino", files["onnx"], lambda data: _write_openvino(data, folder)),
    ):
        try:
            write(make() if make else b"")
        except (MobilenetError, ImportError) as error:
            skipped[name] = str(error)
    return skipped


def _write_engine(subject: "Subject", precision: "Precision", folder: Path) -> None:
    """What `mobilenet export --to engine` writes."""
    from mobilenet.checkpoint import save_model
    from mobilenet.export import export
    from mobilenet.preprocess import torchvision

    assert subject.network is not None
    save_model(
        folder / "run",
        subject.spec,
        subject.network.state_dict(),
        preprocess=torchvision(subject.size).to_dict(),
        labels=tuple(f"class {index}" for index in range(subject.spec.classes)),
        provenance={},
    )
    pictures = None if precision == "float32" else str(_write_pictures(folder / "pictures"))
    export(
        folder / "run",
        to="engine",
        out=folder / "engine",
        precision=precision,
        calibrate=pictures,
    )


def _write_pictures(folder: Path) -> Path:
    """A dataset of noise to calibrate with."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(40):
        path = folder / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (256, 256, 3), np.uint8)).save(path)
    return folder


def _write_onnx(data: bytes, folder: Path) -> None:
    import onnxruntime

    (folder / "model.onnx").write_bytes(data)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3  # it advises against optimising for another machine
    onnxruntime.InferenceSession(data, options)


def _write_openvino(data: bytes, folder: Path) -> None:
    import openvino

    core = openvino.Core()
    model = core.read_model(data)
    _, *fixed = model.input(0).partial_shape
    model.reshape([1, *(size.get_length() for size in fixed)])
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", settings)
    (folder / "compiled.blob").write_bytes(compiled.export_model().getvalue())


def start(name: str, folder: Path) -> tuple[float, float, np.ndarray]:
    """Milliseconds to the first answer of one new process, its peak memory in MB, the answer."""
    numbers = LOGITS.get(name) or np.load(folder / "expected.npy", mmap_mode="r").size
    command = [sys.executable, "-c", STARTS[name].script(), str(folder)]
    with tempfile.TemporaryFile() as said:
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as process:
            assert process.stdout is not None
            data = process.stdout.read(4 * numbers)
            taken = 1e3 * (time.perf_counter() - begin)
            rest = process.stdout.read()
        if process.returncode or len(data) != 4 * numbers:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"exit code {process.returncode}")
    return taken, int(rest) * 1024 / 1e6, np.frombuffer(data, np.float32)


def measure(folder: Path, precision: str, *, runs: int) -> tuple[list[Cold], dict[str, str]]:
    """Every runtime whose file lies in `folder`, `runs` times in turn; and why others are not."""
    expected = np.load(folder / "expected.npy").ravel()
    failed: dict[str, str] = {}
    cosines: dict[str, float | None] = {}
    for name, one in STARTS.items():
        if not (folder / one.needs).exists():
            continue
        try:
            answer = start(name, folder)[2]
        except RuntimeError as error:
            failed[name] = str(error)
            continue
        cosines[name] = None if name in LOGITS else _cosine(answer, expected)
        if (cosine := cosines[name]) is not None and cosine < CLOSE:
            failed[name] = f"answers otherwise than the network: cosine {cosine:.3f}"
            del cosines[name]
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in cosines}
    for _ in range(runs):
        for name in cosines:
            taken[name].append(start(name, folder)[:2])
    found = [_summary(name, precision, taken[name], cosines[name]) for name in cosines]
    return found, failed


def _summary(
    name: str, precision: str, taken: list[tuple[float, float]], cosine: float | None
) -> Cold:
    times = [time for time, _ in taken]
    return Cold(
        name=name,
        precision=precision,
        median_ms=round(statistics.median(times), 2),
        p10_ms=round(float(np.percentile(times, 10)), 2),
        p90_ms=round(float(np.percentile(times, 90)), 2),
        memory_mb=round(statistics.median(memory for _, memory in taken), 1),
        runs=len(taken),
        cosine=None if cosine is None else round(cosine, 4),
    )


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def table(rows: Iterable[Cold]) -> str:
    """For people."""
    lines = [f"{'':<42} {'precision':<9} {'median ms':>9} {'p10':>8} {'p90':>8} {'peak MB':>8}"]
    lines += [
        f"{row.name:<42} {row.precision:<9} {row.median_ms:>9.1f} {row.p10_ms:>8.1f} "
        f"{row.p90_ms:>8.1f} {row.memory_mb:>8.1f}"
        for row in rows
    ]
    return "\n".join(lines)


def run(model: str, precision: str, *, size: int, runs: int) -> tuple[list[Cold], dict[str, str]]:
    """Prepare, in a process of its own, and measure."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, model, "--precision", precision]
        answer = subprocess.run(
            [*command, "--size", str(size), "--prepare", folder],
            check=True,
            capture_output=True,
            timeout=LONGEST,
        )
        skipped = json.loads(answer.stdout.splitlines()[-1])
        found, failed = measure(Path(folder), precision, runs=runs)
    return found, {**skipped, **failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="mobilenet_v2")
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--prepare", type=Path, help="only write the files to this folder")
    options = parser.parse_args()
    if options.prepare:
        print(json.dumps(prepare(options.model, options.precision, options.size, options.prepare)))
        return
    rows, skipped = run(options.model, options.precision, size=options.size, runs=options.runs)
    if options.json:
        print(json.dumps({"results": [asdict(row) for row in rows], "skipped": skipped}, indent=2))
        return
    print(table(rows))
    for name, why in skipped.items():
        print(f"{name}: skipped: {why}")


if __name__ == "__main__":
    main()

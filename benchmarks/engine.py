"""The native engine beside every peer, at every precision: measures, and writes docs/benchmarks.md.

    python benchmarks/engine.py [--model mobilenet_v2 ...]

For each model: float32, bfloat16 and int8 against each other in turns, with one thread and with
two, for one image and for 32; float32 and int8 again with the instruction sets capped, the engine's
and OpenVINO's alike; then whole processes from cold. About a quarter of an hour on two cores.

What was measured is kept in .cache/bench: interrupted with Ctrl-C it writes the page of what is
there, and started again it goes on. --fresh begins anew, as does a run after a complete one.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cold_start
import engine_page
import engine_subjects
from engine_job import Job

from mobilenet.errors import MobilenetError
from mobilenet.progress import say
from mobilenet.runtime import RUNTIMES, inspect_machine
from mobilenet.runtime.engine import require_engine

ROOT = Path(__file__).parent.parent
MODELS = ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")
PRECISIONS = ("float32", "bfloat16", "int8")
PEERS = ("openvino", "onnxruntime", "litert")
LONGEST = 1500.0  # seconds of a converter or a job before it is given up
MANY = 32  # images of the batch whose throughput is measured

# an engine's instruction set, oneDNN's name for it, and the CPU's features without which there is
# nothing to cap down to; the best first
LEVELS = (
    ("amx", "AVX512_CORE_AMX", ("amx_int8", "amx_bf16")),
    ("vnni", "AVX512_CORE_VNNI", ("avx512_vnni",)),
    ("avx512", "AVX512_CORE", ("avx512f",)),
    ("avx2", "AVX2", ("avx2", "fma")),
)


def levels(instruction_sets: Iterable[str]) -> list[str]:
    """What this machine has of `LEVELS`, the best first."""
    there = set(instruction_sets)
    return [name for name, _, needed in LEVELS if set(needed) <= there]


def plan(options: argparse.Namespace, instruction_sets: Iterable[str]) -> list[Job]:
    """What is to be timed of each model, the most telling first."""
    cores = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else (0, 1)
    threads = [count for count in (1, 2) if count <= len(cores)]
    # AVX-512 alone would show nothing that these do not
    caps = [cap for cap in levels(instruction_sets)[1:] if cap != "avx512"]
    settings = [(1, ""), (options.batch, ""), *((1, cap) for cap in caps)]
    return [
        _job(options, model=model, threads=count, batch=batch, cap=cap, cores=cores[-count:])
        for model in options.model
        for batch, cap in settings
        for count in threads
    ]


def _job(
    options: argparse.Namespace,
    *,
    model: str,
    threads: int,
    batch: int,
    cap: str,
    cores: tuple[int, ...],
) -> Job:
    # with another cap, a runtime that has none would show other instructions than the table says;
    # without AMX it is at worst ahead of what is asked
    runtimes = ("engine", "openvino") if cap not in ("", "vnni") else ("engine", *PEERS)
    many = batch > 1
    return Job(
        model=model,
        size=options.size,
        batch=batch,
        threads=threads,
        cap=cap,
        precisions=("float32", "int8") if cap else PRECISIONS,
        runtimes=tuple(runtime for runtime in runtimes if runtime in RUNTIMES),
        rounds=max(1, options.rounds - 2) if many else options.rounds,
        runs=2 if many else options.runs,
        warm_up=1 if many else 3,
        cores=cores,
        profile=threads == 1 and not many and not cap,
    )


def environment(cap: str) -> dict[str, str]:
    """Of a job's process: the caps, and no other library's threads than the runtimes'."""
    given = {
        name: value
        for name, value in os.environ.items()
        if name not in ("ONEDNN_MAX_CPU_ISA", "MOBILENET_ENGINE_ISA", "DNNL_MAX_CPU_ISA")
    }
    if cap:
        given["MOBILENET_ENGINE_ISA"] = cap
        given["ONEDNN_MAX_CPU_ISA"] = next(theirs for ours, theirs, _ in LEVELS if ours == cap)
    return given


def state_of_code(files: str) -> str:
    """Changes where times measured earlier may not be those of the code there is now: `files` is
    the fingerprint of what is timed."""
    digest = hashlib.sha256(files.encode())
    digest.update(inspect_machine().cpu.encode())
    try:
        digest.update(Path(str(require_engine().__file__)).read_bytes())
    except MobilenetError:
        digest.update(b"without the engine")
    return digest.hexdigest()[:16]


class Store:
    """Results on disk, one JSON file each, of one state of the code."""

    def __init__(self, folder: Path, state: str) -> None:
        self.folder, self.state = folder, state
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, name: str, settings: Any) -> dict[str, Any] | None:
        """What was kept under a name, if it is of this state and these settings."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        kept = json.loads(path.read_text())
        same = kept["state"] == self.state and kept["settings"] == json.loads(json.dumps(settings))
        return kept["result"] if same else None

    def write(self, name: str, settings: Any, result: dict[str, Any]) -> None:
        """Keep it."""
        path, part = self.folder / f"{name}.json", self.folder / f"{name}.part"
        part.write_text(
            json.dumps({"state": self.state, "settings": settings, "result": result}, indent=1)
        )
        part.replace(path)

    def clear(self) -> None:
        """Forget everything."""
        for path in self.folder.glob("*.json"):
            path.unlink()


def prepared(job: Job, cache: Path, batches: Iterable[int]) -> Path:
    """The folder of a model's files, which are made where they are not there or not of today."""
    folder = cache / "subjects" / f"{job.model}-{job.size}"
    wanted = [batch for batch in batches if not engine_subjects.is_fresh(folder / f"b{batch}")]
    if wanted:
        say(f"{job.model}: converting for every runtime")
        command = [sys.executable, engine_subjects.__file__, job.model, str(job.size), str(folder)]
        for batch in wanted:
            command += ["--batch", str(batch)]
        with (cache / "converting.log").open("wb") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, timeout=LONGEST)
    return folder


def time_job(job: Job, subjects: Path) -> dict[str, Any]:
    """In a process of its own. Raises MobilenetError where that fails."""
    script = Path(__file__).with_name("engine_job.py")
    done = subprocess.run(
        [sys.executable, str(script), json.dumps(asdict(job)), str(subjects)],
        env=environment(job.cap),
        capture_output=True,
        check=False,
        timeout=LONGEST,
    )
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise MobilenetError(f"{job.name}: {lines[-1] if lines else f'exit {done.returncode}'}")
    return json.loads(done.stdout.splitlines()[-1])


def cold(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Whole processes of MobileNetV2."""
    rows, skipped = cold_start.run(
        "mobilenet_v2", precision, size=options.size, runs=options.cold_runs
    )
    return {"results": [asdict(row) for row in rows], "skipped": skipped}


def measure(options: argparse.Namespace, store: Store, results: engine_page.Results) -> None:
    """Fill `results`, in the order of the plan, with what is kept or measured now."""
    jobs = plan(options, inspect_machine().instruction_sets)
    batches = sorted({job.batch for job in jobs})
    cache = options.cache
    for index, job in enumerate(jobs):
        found = store.read(job.name, asdict(job))
        if found is None:
            try:
                folder = prepared(job, cache, batches)
                say(f"{index + 1} of {len(jobs)}: {job.name}")
                found = time_job(job, folder)
            except (MobilenetError, subprocess.SubprocessError) as error:
                results.failures[job.name] = str(error)
                say(f"{job.name}: {error}")
                continue
            store.write(job.name, asdict(job), found)
        results.jobs.append(found)
    for precision in ("float32", "int8") if options.cold_runs else ():
        name, settings = f"cold-{precision}", [options.size, options.cold_runs]
        found = store.read(name, settings)
        if found is None:
            say(f"cold start, {precision}")
            try:
                found = cold(options, precision)
            except subprocess.SubprocessError as error:
                results.failures[name] = str(error)
                continue
            store.write(name, settings, found)
        results.cold.append(found)
    results.complete = True


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", action="append", help="one of them; without it all four")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=MANY, help="images, for the throughput")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--cold-runs", type=int, default=15, help="processes; 0 leaves them out")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench")
    parser.add_argument("--fresh", action="store_true", help="use nothing measured earlier")
    options = parser.parse_args(arguments)
    options.model = tuple(options.model or MODELS)
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    store = Store(options.cache / "results", state_of_code(engine_subjects.fingerprint()))
    complete = options.cache / "complete"
    if options.fresh or complete.exists():
        store.clear()
        complete.unlink(missing_ok=True)
    if (load := inspect_machine().load or 0.0) > 0.7:
        say(f"load {load}: other work is going on, which the times will show")
    results = engine_page.Results(
        jobs=[],
        cold=[],
        failures={},
        machine=engine_page.describe_machine(),
        versions=engine_subjects.versions(),
        complete=False,
    )
    try:
        measure(options, store, results)
    except KeyboardInterrupt:
        say("interrupted: started again it goes on from here")
    if results.jobs or results.cold:
        engine_page.write(results, options.out)
        say(f"wrote {options.out}")
    if results.complete:
        complete.touch()
        return int(bool(results.failures))
    return 130


if __name__ == "__main__":
    sys.exit(main())

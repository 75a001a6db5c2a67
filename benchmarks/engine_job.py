"""One table's worth of timings: several runtimes and precisions in turns in one process.

Run by engine.py, as a process of its own: caps on instruction sets are read when a library is
loaded, and threads stay on the cores that the process was bound to when they were made.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobilenet.runtime import Precision


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is timed against each other. `cap` is the instruction set that the engine, and OpenVINO
    likewise, may not go beyond; "" is none. The process is bound to `cores`."""

    model: str
    size: int
    batch: int
    threads: int
    cap: str
    precisions: "tuple[Precision, ...]"
    runtimes: tuple[str, ...]
    rounds: int
    runs: int
    warm_up: int
    cores: tuple[int, ...]
    profile: bool

    @property
    def name(self) -> str:
        """Of its file."""
        cap = f"-{self.cap}" if self.cap else ""
        return f"{self.model}-{self.size}-b{self.batch}-t{self.threads}{cap}"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Job":
        """Back from JSON."""
        lists = ("precisions", "runtimes", "cores")
        return cls(**{key: tuple(v) if key in lists else v for key, v in data.items()})


def run(job: Job, subjects: Path) -> dict[str, Any]:
    """Time everything that runs: a JSON object of results, and why others are not there."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    import engine_subjects

    from mobilenet.benchmark import CAPS
    from mobilenet.benchmark.contest import Contender, enter
    from mobilenet.benchmark.result import summarise
    from mobilenet.errors import MobilenetError
    from mobilenet.runtime import inspect_machine
    from mobilenet.runtime.timing import time_in_turns

    subject, failures = engine_subjects.read(subjects / f"b{job.batch}")
    contenders: dict[str, Contender] = {}
    skipped: dict[str, str] = {}
    for precision in job.precisions:
        for runtime in job.runtimes:
            name = f"{precision} {runtime}"
            try:
                contenders[name], failed = enter(
                    subject, runtime, threads=job.threads, precision=precision
                )
            except MobilenetError as error:
                skipped[name] = failures.get(name, str(error))
                continue
            for key, why in failed.items():
                configuration = key.partition(", ")[2]
                skipped[f"{name} {configuration}"] = failures.get(f"{name} {configuration}", why)
    before = inspect_machine()
    sessions = {name: contender.session for name, contender in contenders.items()}
    taken = time_in_turns(
        sessions, subject.inputs, rounds=job.rounds, runs=job.runs, warm_up=job.warm_up
    )
    asked = {id(one.session): name.split()[0] for name, one in contenders.items()}
    results = []
    for name, contender in contenders.items():
        (timing,) = summarise({name: contender}, {name: taken[name]}, batch=job.batch)
        results.append(
            {
                **timing.to_json(),
                "asked": asked[id(contender.session)],
                "doubt": contender.doubt,
                "tried": dict(contender.tried),
            }
        )
    return {
        "job": asdict(job),
        "results": results,
        "skipped": skipped,
        "profile": _profile(job, subject.files) if job.profile else {},
        "peaks": _peaks(job, subject.files) if job.profile else {},
        "caps": {name: os.environ.get(name) for name in CAPS},
        "machine": asdict(before),
        "load_after": inspect_machine().load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _profile(job: Job, files: dict[str, bytes]) -> dict[str, list[dict[str, Any]]]:
    """The engine's own account of its time, by precision; nothing where it gives none."""
    import numpy as np

    from mobilenet.errors import MobilenetError
    from mobilenet.runtime.engine import open_model, plan

    found: dict[str, list[dict[str, Any]]] = {}
    for precision in job.precisions:
        data = files.get(f"engine {precision}")
        try:
            engine = plan(open_model(data)) if data else None
        except MobilenetError:
            continue
        if not hasattr(engine, "profile"):
            continue
        image = np.random.default_rng(0).standard_normal((1, 3, job.size, job.size), np.float32)
        engine.profile(image, job.runs)  # the first is the warm-up
        found[precision] = [
            {"step": step, "kind": kind, "seconds": seconds, "macs": macs, "bytes": read}
            for step, kind, *_, seconds, macs, read in engine.profile(image, job.runs)
        ]
    return found


def _peaks(job: Job, files: dict[str, bytes]) -> dict[str, float]:
    """What this core can do at most: multiply-adds a second by precision, and bytes read a second
    as "read"; nothing where the engine does not measure it."""
    from mobilenet.errors import MobilenetError
    from mobilenet.runtime.engine import open_model, plan

    found = {"read": _read_rate()}
    for precision in job.precisions:
        data = files.get(f"engine {precision}")
        try:
            peak = plan(open_model(data)).peak() if data else 0.0
        except MobilenetError:
            continue
        if peak:
            found[precision] = peak
    return found


def _read_rate() -> float:
    """Bytes a second that one core reads, of as many as a network's float32 weights are."""
    import time

    import numpy as np

    data = np.ones(3_500_000, np.float32)
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        data.max()
        best = max(best, data.nbytes / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    print(json.dumps(run(Job.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]))))

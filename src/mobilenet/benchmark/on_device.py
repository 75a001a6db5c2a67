"""The engine timed on another device: the network alone, and behind the resize of a decoded
picture."""

from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..device import DeviceError, DeviceReport, Remote, open_remote
from ..runtime import Precision, Session
from ..runtime.timing import WARM_UP
from .contest import judge
from .result import Benchmark, summarise
from .subject import Subject

_PICTURE = (480, 640)  # height and width of the decoded picture


def time_on_device(
    subject: Subject,
    device: str,
    *,
    precision: Precision,
    threads: int,
    cores: str | None,
    runs: int,
) -> Benchmark:
    """Time one image with one thread or several. Raises UsageError for a device that is none,
    MissingRunner, DeviceError."""
    model = subject.engine_file(precision)
    picture = np.random.default_rng(0).integers(0, 256, (*_PICTURE, 3), np.uint8)
    classes = subject.spec.classes
    with open_remote(device, model, classes=classes, threads=threads, cores=cores) as remote:
        prepared = remote.answer(subject.inputs, runs=runs, warm_up=WARM_UP)
        decoded = remote.answer([picture], runs=runs, warm_up=WARM_UP)
        report = remote.report(prepared, decoded)
        machine = _machine(remote, report)
        load_after = _load(remote)
    session = Session(
        runtime="engine",
        version=report.instruction_set,
        precision=precision,
        layout="NCHW",
        threads=threads,
        run=lambda _: prepared.logits,
    )
    contender = judge(subject, session, "network", precision)
    height, width = _PICTURE
    from_picture = f"from {width}x{height} RGB"
    contenders = {
        "network": contender,
        from_picture: replace(contender, configuration=from_picture),
    }
    taken = {"network": prepared.seconds[:, :, 1], from_picture: decoded.seconds.sum(axis=2)}
    milliseconds = {name: (1e3 * seconds.reshape(-1)).tolist() for name, seconds in taken.items()}
    conditions = {
        **subject.conditions(),
        "precision": precision,
        "threads": threads,
        "rounds": 1,
        "runs": runs,
        "warm_up": WARM_UP,
        "tried": {},
        "caps": {},
        "machine": machine,
        "load_after": load_after,
        "device": asdict(report),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    wrong = {} if contender.doubt is None else {"engine": contender.doubt}
    return Benchmark(
        conditions=conditions,
        results=summarise(contenders, milliseconds, batch=1),
        skipped={},
        wrong=wrong,
    )


def _machine(remote: Remote, report: DeviceReport) -> dict[str, Any]:
    """The device, as this machine describes itself (see `runtime.Machine`)."""
    count = 0
    with suppress(DeviceError, ValueError):
        count = int(remote.connection.run(["nproc"]))
    chosen = [int(core) for core in (report.cores or "").split(",") if core]
    governors = {value for _, value in report.before.get("governors", [])}
    clocks = [int(value) for _, value in report.before.get("clocks", []) if value.isdigit()]
    return {
        "cpu": report.cpu or "unknown",
        "architecture": report.system.split()[-1],
        "cores": count,
        "affinity": chosen or list(range(count)),
        "instruction_sets": [report.instruction_set],
        "governor": "+".join(sorted(governors)) or None,
        "mhz": max(clocks) / 1000 if clocks else None,
        "load": _load(remote),
        "system": report.system,
        "python": None,
    }


def _load(remote: Remote) -> float | None:
    with suppress(DeviceError, ValueError, IndexError):
        return float(remote.connection.run(["cat", "/proc/loadavg"]).split()[0])
    return None

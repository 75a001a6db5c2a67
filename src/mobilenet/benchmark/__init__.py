"""How fast a model is: `benchmark`, several runtimes timed in turns in one run."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np

from ..errors import MobilenetError, UsageError
from ..progress import say
from ..runtime import RUNTIMES, Floats, Precision, Session, inspect_machine
from .subject import TORCH, find_subject
from .timing import WARM_UP, Timing, summarise, time_in_turns

__all__ = ["Benchmark", "Timing", "benchmark"]

NAMES = (TORCH, *RUNTIMES)
# how far a runtime may be from the reference: the largest error of a logit over the largest logit,
# and, where arithmetic is of eight bits, the cosine between all logits
FLOAT32_ERROR = 1e-3
BFLOAT16_COSINE = 0.98


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Timings, the fastest first, and under which conditions they were taken.

    `skipped` says why a runtime was not timed; `wrong` names those that were not because they
    answer otherwise than the reference: then `ok` is false.
    """

    conditions: Mapping[str, Any]
    results: tuple[Timing, ...]
    skipped: Mapping[str, str]
    wrong: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether every runtime that ran answers rightly."""
        return not self.wrong

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "conditions": dict(self.conditions),
            "results": [timing.to_json() for timing in self.results],
            "skipped": dict(self.skipped),
            "wrong": dict(self.wrong),
        }

    def __str__(self) -> str:
        """A table and its conditions for people."""
        c = self.conditions
        lines = [
            f"{c['model']} x{c['width']:g}, {c['size']} px, batch {c['batch']}, {c['precision']}, "
            f"{c['threads']} thread{'s' * (c['threads'] != 1)}: "
            f"{c['params'] / 1e6:.2f} M parameters, {c['madds'] / 1e6:.0f} M multiply-adds",
            f"{'runtime':<12} {'version':<12} {'precision':<10} {'median ms':>9} {'p10':>8} "
            f"{'p90':>8} {'ratio':>6}",
        ]
        lines += [
            f"{t.runtime:<12} {t.version[:12]:<12} {t.precision:<10} {t.median_ms:>9.3f} "
            f"{t.p10_ms:>8.3f} {t.p90_ms:>8.3f} {t.ratio:>6.2f}"
            for t in self.results
        ]
        lines += [f"{name:<12} WRONG ANSWERS, not timed: {why}" for name, why in self.wrong.items()]
        lines += [f"{name:<12} skipped: {why}" for name, why in self.skipped.items()]
        machine = c["machine"]
        lines += [
            f"on {machine['cpu']} ({machine['cores']} cores, used {machine['affinity']}, "
            f"{' '.join(machine['instruction_sets'][-4:])}), load {machine['load']}, "
            f"weights {c['weights']}",
            f"{c['rounds']} rounds of {c['runs']} runs each in turn, {c['date']}",
        ]
        return "\n".join(lines)


def benchmark(
    target: str,
    *,
    runtime: tuple[str, ...] = (),
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    threads: int = 1,
    size: int | None = None,
    width: float | None = None,
    batch: int = 1,
    rounds: int = 5,
    runs: int = 30,
) -> Benchmark:
    """Time a model with several runtimes, in turns, NumPy arrays in and out.

    Each runtime's answers are first compared with those of PyTorch in float32 (for an exported
    folder those that lie in it); one that answers otherwise is not timed.

    Args:
        target: Model name (random weights), run folder or exported folder.
        runtime: Which of torch, onnxruntime, openvino, litert; without it all that are installed.
        precision: Arithmetic of the convolutions; float32 never becomes less on the quiet. int8
            is not available yet.
        threads: CPU threads of one inference.
        size: Input pixels; without it those of the run or name, or 224.
        width: Width multiplier, with a model's name.
        batch: Images in one inference.
        rounds: How often each runtime has its turn.
        runs: Timed inferences in a turn.
    """
    if precision == "int8":
        raise UsageError("precision 'int8': not available yet; expected 'float32' or 'bfloat16'")
    _check_options(runtime, precision, threads=threads, batch=batch, rounds=rounds, runs=runs)
    subject = find_subject(target, size=size, width=width, batch=batch)
    torch = sys.modules.get("torch")  # there if the subject has a network
    torch_threads = torch.get_num_threads() if torch else 1
    sessions: dict[str, Session] = {}
    skipped: dict[str, str] = {}
    wrong: dict[str, str] = {}
    errors: dict[str, float] = {}
    try:
        for name in runtime or NAMES:
            try:
                session = subject.open(name, threads=threads, precision=precision)
            except MobilenetError as error:
                if runtime:
                    raise
                skipped[name] = str(error)
                continue
            found = session.run(session.laid_out(subject.inputs))
            errors[name] = float(np.abs(found - subject.expected).max())
            if problem := _disagreement(found, subject.expected, precision):
                wrong[name] = problem
                say(f"{name}: answers otherwise than the reference: {problem}; not timed")
            else:
                sessions[name] = session
        if not sessions:
            reasons = "; ".join(f"{name}: {why}" for name, why in {**skipped, **wrong}.items())
            raise MobilenetError(f"{target}: no runtime to time ({reasons})")
        machine = inspect_machine()
        taken = time_in_turns(sessions, subject.inputs, rounds=rounds, runs=runs)
    finally:
        if torch:
            torch.set_num_threads(torch_threads)
    conditions = {
        **subject.conditions(),
        "precision": precision,
        "threads": threads,
        "rounds": rounds,
        "runs": runs,
        "warm_up": WARM_UP,
        "machine": asdict(machine),
        "load_after": inspect_machine().load,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Benchmark(
        conditions=conditions,
        results=summarise(sessions, taken, errors),
        skipped=skipped,
        wrong=wrong,
    )


def _check_options(
    runtime: tuple[str, ...], precision: str, *, threads: int, batch: int, rounds: int, runs: int
) -> None:
    if unknown := sorted(set(runtime) - set(NAMES)):
        raise UsageError(f"runtime {unknown[0]!r}: expected some of {list(NAMES)}")
    if precision not in get_args(Precision):
        raise UsageError(f"precision {precision!r}: expected one of {list(get_args(Precision))}")
    for name, value in (
        ("threads", threads),
        ("batch", batch),
        ("rounds", rounds),
        ("runs", runs),
    ):
        if value < 1:
            raise UsageError(f"{name} {value}: expected at least 1")


def _disagreement(found: Floats, expected: Floats, precision: Precision) -> str | None:
    if found.shape != expected.shape:
        return f"shape {found.shape}, expected {expected.shape}"
    if precision == "float32":
        error, largest = np.abs(found - expected).max(), np.abs(expected).max()
        if not error <= FLOAT32_ERROR * largest:  # also where it is not a number
            return f"logits differ by up to {error:.3g}, the largest logit being {largest:.3g}"
        return None
    lengths = np.linalg.norm(found) * np.linalg.norm(expected)
    cosine = float((found * expected).sum() / lengths) if lengths else 1.0
    return None if cosine >= BFLOAT16_COSINE else f"cosine {cosine:.4f} with the reference"

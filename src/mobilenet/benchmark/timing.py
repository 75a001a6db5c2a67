"""Timing several sessions against each other in one run."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..runtime import Floats, Session

WARM_UP = 3  # untimed runs at the start of every turn: the caches hold the last one's data


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one inference of a batch takes with one runtime, in milliseconds.

    Of `runs` runs, taken in turns with the other runtimes. `precision` is the one really used;
    `ratio` is this median over the fastest median; `max_error` is the largest absolute
    difference of a logit from the reference.
    """

    runtime: str
    version: str
    precision: str
    threads: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    ratio: float
    runs: int
    max_error: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object, times to the tenth of a microsecond."""
        return {
            key: round(value, 4) if key.endswith("_ms") or key == "ratio" else value
            for key, value in asdict(self).items()
        }


def time_in_turns(
    sessions: Mapping[str, Session], inputs: Floats, *, rounds: int, runs: int
) -> dict[str, list[float]]:
    """Milliseconds of every run of every session: `rounds` times each in turn, `runs` a turn.

    `inputs` is float32 (N, 3, H, W); each session gets it in its own layout. Who begins changes
    from round to round, so that a disturbance or a warming CPU meets all of them.
    """
    prepared = {name: session.laid_out(inputs) for name, session in sessions.items()}
    names = list(sessions)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            run, images = sessions[name].run, prepared[name]
            for _ in range(WARM_UP):
                run(images)
            for _ in range(runs):
                start = time.perf_counter_ns()
                run(images)
                taken[name].append((time.perf_counter_ns() - start) / 1e6)
    return taken


def summarise(
    sessions: Mapping[str, Session],
    taken: Mapping[str, list[float]],
    errors: Mapping[str, float],
) -> tuple[Timing, ...]:
    """Medians, 10th and 90th percentiles, the fastest first."""
    medians = {name: float(np.median(times)) for name, times in taken.items()}
    fastest = min(medians.values())
    return tuple(
        Timing(
            runtime=name,
            version=sessions[name].version,
            precision=sessions[name].precision,
            threads=sessions[name].threads,
            median_ms=medians[name],
            p10_ms=float(np.percentile(taken[name], 10)),
            p90_ms=float(np.percentile(taken[name], 90)),
            ratio=medians[name] / fastest,
            runs=len(taken[name]),
            max_error=errors[name],
        )
        for name in sorted(medians, key=medians.__getitem__)
    )

"""What `benchmark` reports: timings and the conditions under which they were taken."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .contest import Contender


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one inference of a batch takes with one runtime, in milliseconds.

    Of `runs` runs, taken in turns with the other runtimes. `precision` is the one really used,
    `configuration` the one of several that was fastest; `ratio` is this median over the fastest
    median; `max_error` is the largest absolute difference of a logit from the reference, `cosine`
    that of all logits with the reference's.
    """

    runtime: str
    version: str
    precision: str
    configuration: str
    threads: int
    median_ms: float
    p10_ms: float
    p90_ms: float
    images_per_s: float
    ratio: float
    runs: int
    max_error: float
    cosine: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object, times to the tenth of a microsecond."""
        digits = {"ratio": 4, "images_per_s": 2, "cosine": 6}
        return {
            key: round(value, 4 if key.endswith("_ms") else digits[key])
            if key.endswith("_ms") or key in digits
            else value
            for key, value in asdict(self).items()
        }


def summarise(
    contenders: Mapping[str, Contender], taken: Mapping[str, list[float]], *, batch: int
) -> tuple[Timing, ...]:
    """Medians, 10th and 90th percentiles of times in milliseconds, the fastest first."""
    medians = {name: float(np.median(times)) for name, times in taken.items()}
    fastest = min(medians.values())
    return tuple(
        Timing(
            runtime=contenders[name].session.runtime,
            version=contenders[name].session.version,
            precision=contenders[name].session.precision,
            configuration=contenders[name].configuration,
            threads=contenders[name].session.threads,
            median_ms=medians[name],
            p10_ms=float(np.percentile(taken[name], 10)),
            p90_ms=float(np.percentile(taken[name], 90)),
            images_per_s=1e3 * batch / medians[name],
            ratio=medians[name] / fastest,
            runs=len(taken[name]),
            max_error=contenders[name].max_error,
            cosine=contenders[name].cosine,
        )
        for name in sorted(medians, key=medians.__getitem__)
    )


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Timings, the fastest first, and under which conditions they were taken.

    `skipped` says why a runtime, or one of its configurations, was not timed. `wrong` says of whom
    the answers are not what they should be: then `ok` is false. Of those a runtime is timed all
    the same if it computes in fewer bits and what it answers are numbers.
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
        wide = max(len(t.configuration) for t in self.results)
        lines = [
            f"{c['model']} x{c['width']:g}, {c['size']} px, batch {c['batch']}, {c['precision']}, "
            f"{_threads(c['threads'])}: "
            f"{c['params'] / 1e6:.2f} M parameters, {c['madds'] / 1e6:.0f} M multiply-adds",
            f"{'runtime':<12} {'version':<12} {'precision':<12} {'':<{wide}} {'median ms':>9} "
            f"{'p10':>8} {'p90':>8} {'images/s':>8} {'ratio':>6} {'cosine':>7}",
        ]
        lines += [
            f"{t.runtime:<12} {t.version[:12]:<12} {t.precision:<12} {t.configuration:<{wide}} "
            f"{t.median_ms:>9.3f} {t.p10_ms:>8.3f} {t.p90_ms:>8.3f} {t.images_per_s:>8.1f} "
            f"{t.ratio:>6.2f} {t.cosine:>7.4f}"
            for t in self.results
        ]
        timed = {t.runtime for t in self.results}
        for name, why in self.wrong.items():
            lines.append(f"{name:<12} WRONG ANSWERS{'' if name in timed else ', not timed'}: {why}")
        lines += [f"{name:<12} skipped: {why}" for name, why in self.skipped.items()]
        for name, tried in c["tried"].items():
            medians = "; ".join(f"{what} {ms:.3f} ms" for what, ms in tried.items())
            lines.append(f"{name:<12} the fastest of: {medians}")
        return "\n".join([*lines, *describe_conditions(c)])


def describe_conditions(conditions: Mapping[str, Any]) -> list[str]:
    """The machine and the run in a few lines."""
    c, machine = conditions, conditions["machine"]
    cores = machine["affinity"]
    caps = (f"{name} {value or 'not set'}" for name, value in c["caps"].items())
    bound = "bound to core" if len(cores) <= c["threads"] else "placed by the system on cores"
    return [
        f"on {machine['cpu']} ({machine['cores']} cores, load {machine['load']}): "
        + " ".join(machine["instruction_sets"]),
        f"{_threads(c['threads'])} {bound} {', '.join(map(str, cores))}; {', '.join(caps)}",
        *_decoding(c),
        f"weights {c['weights']}",
        f"{c['rounds']} rounds of {c['runs']} runs each in turn, {c['date']}",
    ]


def _decoding(conditions: Mapping[str, Any]) -> list[str]:
    """Of networks for scenes."""
    if "timed" not in conditions:
        return []
    return [
        f"timed: {conditions['timed']}; decoding alone, to {conditions['found']} found: "
        f"{conditions['decoding_ms']:.3f} ms"
    ]


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"

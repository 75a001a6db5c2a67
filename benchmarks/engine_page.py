"""docs/benchmarks.md and its plot, from what engine.py measured: nothing here measures."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobilenet.report.plots import Series, line_chart, rounded_axis
from mobilenet.runtime import inspect_machine

PEERS = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "litert": "LiteRT"}
TITLES = {
    "mobilenet_v1": "V1",
    "mobilenet_v2": "V2",
    "mobilenet_v3_large": "V3-Large",
    "mobilenet_v3_small": "V3-Small",
}
PRECISIONS = ("float32", "bfloat16", "int8")
FASTEST = "fastest at any precision"
KINDS = ("stem", "expand", "depthwise", "project", "last", "classifier")  # others are the rest
FEATURES = {
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "bfloat16 on vectors",
    "avx512_fp16": "float16 on vectors",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bfloat16",
}

STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #5a6068; } text.axis-label { fill: #1b1d20; }
.grid { stroke: #dcdfe3; } .axis { stroke: #5a6068; }
.guide { stroke: #5a6068; stroke-dasharray: 4 4; fill: none; }
.line { fill: none; stroke-width: 2; }
.line.first { stroke: #1f5fbf; } .line.second { stroke: #b4500f; } .line.third { stroke: #1d7044; }
.dot.first { fill: #1f5fbf; } .dot.second { fill: #b4500f; } .dot.third { fill: #1d7044; }
.line.parity { stroke: #5a6068; stroke-width: 1; stroke-dasharray: 4 4; }
.dot.parity { fill: none; }
"""


@dataclass(kw_only=True)
class Results:
    """Everything measured so far. `jobs` are objects of engine_job.run, `cold` of cold_start,
    `failures` say what did not work; `machine` is of describe_machine."""

    jobs: list[dict[str, Any]]
    cold: list[dict[str, Any]]
    failures: dict[str, str]
    machine: dict[str, Any]
    versions: Mapping[str, str]
    complete: bool


def describe_machine() -> dict[str, Any]:
    """The conditions that the package's own description leaves out, and that."""
    machine = inspect_machine()
    return {
        "cpu": machine.cpu,
        "cores": machine.cores,
        "instruction_sets": list(machine.instruction_sets),
        "governor": machine.governor,
        "mhz": machine.mhz,
        "system": machine.system,
        "python": machine.python,
        "virtual": _virtual(),
        "caches": _caches(),
        "libc": " ".join(platform.libc_ver()),
    }


def _virtual() -> str | None:
    """What the machine runs in, as far as it tells; None where it seems to be real."""
    info = Path("/proc/cpuinfo")
    if not info.exists() or " hypervisor" not in info.read_text():
        return None
    vendor = Path("/sys/class/dmi/id/sys_vendor")
    return vendor.read_text().strip() if vendor.exists() else "a virtual machine"


def _caches() -> str:
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (
            (folder / name).read_text().strip() for name in ("level", "type", "size")
        )
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: a job's results at one precision, by runtime, and of its peers the
    fastest at this precision and at any."""

    job: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    best: Mapping[str, Any] | None
    best_of_all: Mapping[str, Any] | None

    @property
    def engine(self) -> Mapping[str, Any] | None:
        """Ours, if it was timed."""
        return self.results.get("engine")

    def ratio(self, peer: Mapping[str, Any] | None) -> float | None:
        """The peer's median over ours: above 1 we are faster."""
        if self.engine is None or peer is None:
            return None
        return peer["median_ms"] / self.engine["median_ms"]


def rows_of(results: Results, precision: str, *, wanted: Callable[[Mapping], bool]) -> list[Row]:
    """The jobs that `wanted` takes, at one precision."""
    found = []
    for job in results.jobs:
        if precision not in job["job"]["precisions"] or not wanted(job["job"]):
            continue
        peers = [one for one in job["results"] if one["runtime"] in PEERS]
        here = [one for one in peers if one["asked"] == precision]
        mine = {one["runtime"]: one for one in job["results"] if one["asked"] == precision}
        found.append(
            Row(job=job["job"], results=mine, best=_fastest(here), best_of_all=_fastest(peers))
        )
    return found


def _fastest(timings: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return min(timings, key=lambda one: one["median_ms"], default=None)


def write(results: Results, path: Path) -> None:
    """The page, and beside it the plot of its ratios."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plot = path.with_suffix(".svg")
    drawn = _plot(results)
    if drawn:
        plot.write_text(drawn)
    path.write_text(page(results, plot.name if drawn else None))


def page(results: Results, plot: str | None) -> str:
    """The page as Markdown."""
    parts = [
        "# Benchmarks",
        "Written by `make bench`; do not edit. [How it measures](benchmark.md).",
        *([] if results.complete else ["**Not all was measured: the run was interrupted.**"]),
        *_conditions(results),
        *_summary(results),
        *([f"![best peer's time over the engine's, by network]({plot})"] if plot else []),
    ]
    for precision in PRECISIONS:
        parts += _latency(results, precision)
    parts += [*_throughput(results), *_cold(results), *_roofline(results), *_missing(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conditions(results: Results) -> list[str]:
    machine, versions = results.machine, results.versions
    dates = sorted(job["date"] for job in results.jobs)
    loads = [one for job in results.jobs for one in (job["machine"]["load"], job["load_after"])]
    loads = [load for load in loads if load is not None]
    lines = {
        "CPU": f"{machine['cpu']}, {machine['cores']} cores"
        + (f", virtual ({machine['virtual']})" if machine["virtual"] else ""),
        "instruction sets": " ".join(machine["instruction_sets"]),
        "caches": machine["caches"] or "unknown",
        "frequency": f"governor {machine['governor'] or 'unknown'}, "
        f"{machine['mhz'] or 'unknown'} MHz as told",
        "load": f"{min(loads)} to {max(loads)} (one minute, the run's own included)"
        if loads
        else "unknown",
        "system": f"{machine['system']}, {machine['libc']}, Python {machine['python']}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": f"{dates[0]} to {dates[-1]}" if dates else datetime.now(UTC).isoformat(),
        "networks": "width 1, 1000 classes, random weights, batch norm statistics of random images",
    }
    threads = sorted({(job["job"]["threads"], tuple(job["job"]["cores"])) for job in results.jobs})
    bound = "; ".join(
        f"{count} thread{'s' * (count != 1)} on core{'s' * (len(cores) != 1)} "
        + ", ".join(map(str, cores))
        for count, cores in threads
    )
    table = _table(["condition", ""], [[f"**{name}**", value] for name, value in lines.items()])
    return [
        "## Conditions",
        table,
        "Times are of one call from Python, a float32 NumPy array in and one out for every "
        "runtime, in milliseconds: the median, and behind it the 10th and 90th percentile. All "
        "runtimes and precisions of one line were timed in turns in one process, bound to its "
        f"cores ({bound or 'nothing yet'}); threads are not bound one by one. *Ratio* is the best "
        "peer's median over the engine's: above 1 the engine is faster. Two numbers of different "
        "lines differ by several percent from run to run. The cosine is that of an answer's logits "
        "with those of float32 PyTorch; † marks answers that are further off than they may be.",
    ]


def _summary(results: Results) -> list[str]:
    """Ratios alone, a column a network."""
    lines: dict[str, dict[str, float]] = {}
    for precision in PRECISIONS:
        for row in rows_of(results, precision, wanted=lambda job: True):
            job = row.job
            name = f"{precision}, {job['threads']} thread{'s' * (job['threads'] != 1)}"
            name += f", {job['batch']} images" if job["batch"] > 1 else ""
            name += f", capped to {job['cap']}" if job["cap"] else ""
            peers = {name: row.best}
            if precision != "float32" and job["batch"] == 1:
                peers[f"{name}, to the {FASTEST}"] = row.best_of_all
            for label, peer in peers.items():
                if (ratio := row.ratio(peer)) is not None:
                    lines.setdefault(label, {})[_title(job["model"])] = ratio
    if not lines:
        return []
    models = list(dict.fromkeys(model for ratios in lines.values() for model in ratios))
    table = [
        [label, *(f"{ratios[model]:.2f}" if model in ratios else "–" for model in models)]
        for label, ratios in lines.items()
    ]
    return ["## In short: the best peer's median over the engine's", _table(["", *models], table)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _title(model: str) -> str:
    return TITLES.get(model, model)


def _cell(timing: Mapping[str, Any] | None, *, notes: bool) -> str:
    """Median, percentiles and, with `notes`, configuration and cosine."""
    if timing is None:
        return "–"
    text = f"{timing['median_ms']:.2f} ({timing['p10_ms']:.2f}–{timing['p90_ms']:.2f})"
    if timing["doubt"]:
        text += " †"
    if notes:
        how = f"{timing['configuration']}, " if timing["configuration"] else ""
        text += f"<br>{how}cosine {timing['cosine']:.3f}"
    return text


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"**{value:.2f}**"


def _where(row: Row) -> list[str]:
    """Network, threads, and the instruction sets in use."""
    own = row.engine["version"].split()[-1] if row.engine else "this CPU's"
    used = f"{row.job['cap']} (capped)" if row.job["cap"] else own
    return [_title(row.job["model"]), str(row.job["threads"]), used]


def _latency(results: Results, precision: str) -> list[str]:
    rows = rows_of(results, precision, wanted=lambda job: job["batch"] == 1)
    if not rows:
        return []
    notes = precision != "float32"
    heads = ["network", "threads", "instructions", "engine", *PEERS.values(), "ratio"]
    if notes:
        heads.append(f"ratio to the {FASTEST}")
    lines = []
    for row in rows:
        cells = [_cell(row.results.get(name), notes=notes) for name in ("engine", *PEERS)]
        line = [*_where(row), *cells, _ratio(row.ratio(row.best))]
        if notes:
            line.append(_of_all(row))
        lines.append(line)
    size = rows[0].job["size"]
    parts = [f"## {precision}, one image of {size} pixels", _table(heads, lines)]
    if all(row.best is None for row in rows):
        parts.append(f"No peer computes in {precision} on this machine.")
    if any(row.job["cap"] for row in rows):
        parts.append(
            "Capped lines have `MOBILENET_ENGINE_ISA` and, for OpenVINO, `ONEDNN_MAX_CPU_ISA` set. "
            "ONNX Runtime and LiteRT know no such cap: they are in the lines capped to vnni, where "
            "they may use more than the others, and in none of the rest."
        )
    return parts


def _of_all(row: Row) -> str:
    value = row.ratio(row.best_of_all)
    if value is None or row.best_of_all is None:
        return "–"
    best = row.best_of_all
    return (
        f"{_ratio(value)}<br>{PEERS[best['runtime']]} {best['precision']} {best['median_ms']:.2f}"
    )


def _throughput(results: Results) -> list[str]:
    lines, batches = [], set()
    for precision in PRECISIONS:
        for row in rows_of(results, precision, wanted=lambda job: job["batch"] > 1):
            batches.add(row.job["batch"])
            rates = [row.results.get(name) for name in ("engine", *PEERS)]
            lines.append(
                [
                    _title(row.job["model"]),
                    precision,
                    str(row.job["threads"]),
                    *("–" if rate is None else f"{rate['images_per_s']:.0f}" for rate in rates),
                    _ratio(row.ratio(row.best)),
                ]
            )
    if not lines:
        return []
    heads = ["network", "precision", "threads", "engine", *PEERS.values(), "ratio"]
    return [
        f"## Throughput, {'/'.join(map(str, sorted(batches)))} images at once, images a second",
        _table(heads, lines),
    ]


def _cold(results: Results) -> list[str]:
    rows = [row for part in results.cold for row in part["results"]]
    if not rows:
        return []
    lines = [
        [
            row["name"],
            row["precision"],
            f"{row['median_ms']:.0f} ({row['p10_ms']:.0f}–{row['p90_ms']:.0f})",
            f"{row['memory_mb']:.0f}",
        ]
        for row in rows
    ]
    return [
        "## A whole process, from its start to the first answer, MobileNetV2",
        _table(["", "precision", "ms", "peak memory, MB"], lines),
        f"Medians of {rows[0]['runs']} processes each, one at a time and in turns, one thread, not "
        "bound to a core; files in the disk cache. Memory is the process's own peak (VmHWM). See "
        "benchmarks/cold_start.py.",
    ]


def _roofline(results: Results) -> list[str]:
    peaks = next((job["peaks"] for job in results.jobs if job["peaks"]), {})
    profiles = [
        (job["job"]["model"], precision, lines)
        for job in results.jobs
        for precision, lines in job["profile"].items()
    ]
    if not profiles:
        return []
    heads = ["network", "precision", "", "million multiply-adds", "ms", "billion a second"]
    heads += ["floor, ms", "time over floor"] if peaks else []
    table = []
    for model, precision, lines in profiles:
        for kind, work in _by_kind(lines).items():
            line = [_title(model), precision, kind, f"{work['macs'] / 1e6:.1f}"]
            line += [f"{1e3 * work['seconds']:.3f}", _rate(work["macs"], work["seconds"])]
            if peaks:
                low = floor_seconds(work, kind, precision, peaks)
                over = f"{work['seconds'] / low:.1f}" if low else "–"
                line += [f"{1e3 * low:.3f}", over]
            table.append(line)
    parts = ["## Where the engine's time goes, and how far it is from the roofline"]
    if peaks:
        measured = ", ".join(
            f"{name} {value / 1e9:.0f}" + (" GB/s" if name == "read" else " G multiply-adds/s")
            for name, value in sorted(peaks.items())
        )
        parts.append(
            f"Measured peaks of one core: {measured}. The floor is the longer of the arithmetic at "
            "its precision's peak (depthwise: at float32's) and the reading of the weights."
        )
    else:
        parts.append("The peaks of this core were not measured: no floor is given.")
    return [*parts, _table(heads, table)]


def _by_kind(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Work and time of a profile's lines added up by kind of layer, in the network's order."""
    found = {kind: {"macs": 0.0, "seconds": 0.0, "bytes": 0.0} for kind in (*KINDS, "rest")}
    for line in lines:
        sums = found[line["kind"] if line["kind"] in KINDS else "rest"]
        for key in sums:
            sums[key] += line[key]
    found["all"] = {key: sum(one[key] for one in found.values()) for key in found["rest"]}
    return {kind: sums for kind, sums in found.items() if sums["seconds"]}


def floor_seconds(
    work: Mapping[str, float], kind: str, precision: str, peaks: Mapping[str, float]
) -> float:
    """The least time a kind of layer can take; 0 where no peak is known that bounds it."""
    peak = peaks.get("float32" if kind == "depthwise" else precision, peaks.get("float32"))
    arithmetic = work["macs"] / peak if peak else 0.0
    return max(arithmetic, work["bytes"] / peaks["read"] if "read" in peaks else 0.0)


def _rate(macs: float, seconds: float) -> str:
    return f"{macs / seconds / 1e9:.1f}" if macs else "–"


def _missing(results: Results) -> list[str]:
    there = set(results.machine["instruction_sets"])
    points = []
    if "avx2" in there:
        lacking = [title for name, title in FEATURES.items() if name not in there]
        if lacking:
            points.append(
                f"This CPU has no {', '.join(lacking)}: nothing here says how fast those are."
            )
    if not any(one["runtime"] == "engine" for job in results.jobs for one in job["results"]):
        points.append("The engine was not timed.")
    if not any(job["job"]["threads"] > 1 for job in results.jobs):
        points.append("There is one core only: nothing was measured with two threads.")
    if results.machine["virtual"]:
        points.append(
            "The machine is virtual: others on the same host can disturb it unseen, and its clock "
            "frequency is not its own to say."
        )
    reasons: dict[str, set[str]] = {}
    for job in results.jobs:
        for name, why in job["skipped"].items():
            reasons.setdefault(f"{name}: {why}", set()).add(_title(job["job"]["model"]))
    for part in results.cold:
        for name, why in part["skipped"].items():
            reasons.setdefault(f"cold start, {name}: {why}", set())
    for job in results.jobs:
        for one in job["results"]:
            if one["doubt"]:
                reasons.setdefault(f"† {one['asked']} {one['runtime']}: {one['doubt']}", set()).add(
                    _title(job["job"]["model"])
                )
    for reason, models in reasons.items():
        points.append(f"{reason} ({', '.join(sorted(models))})" if models else reason)
    points += [f"{name}: failed: {why}" for name, why in results.failures.items()]
    if not points:
        return []
    return ["## What was not measured", "\n".join(f"- {point}" for point in points)]


def _plot(results: Results) -> str | None:
    """Ratios of one image with one thread, uncapped, as an SVG file; None without any."""
    series, models = [], []
    for tone, precision in zip(("first", "second", "third"), PRECISIONS, strict=True):
        ratios = {}
        wanted = rows_of(
            results,
            precision,
            wanted=lambda job: (job["batch"], job["threads"], job["cap"]) == (1, 1, ""),
        )
        for row in wanted:
            # int8 is worth what it gains over everything else there is
            ratio = row.ratio(row.best_of_all if precision == "int8" else row.best)
            if ratio is not None:
                ratios[_title(row.job["model"])] = ratio
        models += [model for model in ratios if model not in models]
        if ratios:
            name = f"{precision} to the {FASTEST}" if precision == "int8" else precision
            series.append((name, tone, ratios))
    if not series:
        return None
    across = range(len(models))
    lines = [
        Series(name=name, tone=tone, x=list(across), y=[ratios.get(model) for model in models])
        for name, tone, ratios in series
    ]
    ratios = [y for line in lines for y in line.y]
    lines.append(Series(name="parity", tone="parity", x=list(across), y=[1.0] * len(models)))
    x = rounded_axis("network", [-0.5, len(models) - 0.5], form=lambda v: _tick(v, models))
    chart = line_chart(
        lines,
        title="The best peer's time over the engine's, one thread, one image",
        x=x,
        y=rounded_axis("best peer / engine", [*ratios, 1.0], zero=True),
        width=760,
        height=320,
    )
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1).replace(
        ">", f"><style>{STYLE}</style>", 1
    )


def _tick(value: float, names: Sequence[str]) -> str:
    index = round(value)
    return names[index] if abs(value - index) < 1e-6 and 0 <= index < len(names) else ""

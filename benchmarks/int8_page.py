"""The tables of docs/int8.md and the plot beside it, from what int8.py measured."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from int8_peers import METHODS
from int8_subjects import SUBJECTS

from mobilenet.evaluate.metrics import wilson
from mobilenet.evaluate.paired import compare_answers
from mobilenet.report.markup import Markup, element, join

BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
FLOAT = "float"
LEAST = 0.1  # percent, the left end of the plot's logarithmic axis
SERIES = {  # of the plot, by part
    "photographs": ("first", "ImageNet's V2: answers changed, %"),
    "trained": ("second", "Fashion-MNIST: the most points lost by one of {count} networks"),
    "hostile": ("third", "the same, made hostile"),
}
STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #1b1d20; } .tick { fill: #5a6068; } .grid { stroke: #dcdfe3; }
.first { fill: #1f5fbf; } .second { fill: #b4500f; } .third { fill: #1d7044; }
"""


def read_cell(path: Path) -> dict[str, Any]:
    """A cell as int8.py keeps it."""
    return json.loads(path.read_text())["result"]


def read_settings(path: Path) -> Any:
    """What a cell was measured on: the float weights, and how many pictures."""
    return json.loads(path.read_text())["settings"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network by one method. `points` are those lost beside its float network, `p` McNemar's;
    without labels they are of the answers that changed. `weights` tells two trainings apart. None
    is what a page did not say of which nothing else is left, of `p` that it is below 0.001."""

    subject: str
    title: str
    part: str
    method: str
    size: int
    pictures: int
    weights: str
    right: int
    n: int
    points: float
    p: float | None
    cosine: float | None
    seconds: float | None
    threads: int | None
    train_minutes: float
    date: str


@dataclass(kw_only=True)
class Results:
    """Rows, what failed and why, and conditions."""

    rows: list[Row]
    failures: dict[str, str]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]


def rows_of(cells: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Of the cells of int8.Bench, each beside its float network."""
    cells = list(cells)
    found = []
    for real in (cell for cell in cells if cell["method"] == FLOAT):
        first = np.array(real["first"])
        labels = first if real["labels"] is None else np.array(real["labels"])
        for cell in cells:
            # a cell of other pictures than the float network's is of an earlier run
            if cell["subject"] != real["subject"] or len(cell["first"]) != len(first):
                continue
            right = np.array(cell["first"]) == labels
            drop = compare_answers(first == labels, right)
            found.append(
                Row(
                    subject=cell["subject"],
                    title=cell["title"],
                    part=cell["part"],
                    method=cell["method"],
                    size=cell["size"],
                    pictures=cell["pictures"],
                    weights=real["weights"],
                    right=int(right.sum()),
                    n=len(labels),
                    points=drop.points,
                    p=drop.p_value,
                    cosine=cell["cosine"],
                    seconds=cell["seconds_to_make"],
                    threads=cell["threads"],
                    train_minutes=cell["train_minutes"],
                    date=cell["date"],
                )
            )
    return found


def read_rows(path: Path) -> list[Row]:
    """What lies beside the page from earlier; nothing where there is no such file."""
    return [Row(**row) for row in json.loads(path.read_text())] if path.exists() else []


def merged(earlier: Iterable[Row], now: Iterable[Row]) -> list[Row]:
    """Both, the later where both have a network by a method. A column is of one network: rows of
    one that was trained anew since are left out."""
    now = list(now)
    weights = {row.subject: row.weights for row in now}
    found = {
        (row.subject, row.method): row
        for row in earlier
        if weights.get(row.subject, row.weights) == row.weights
    }
    found |= {(row.subject, row.method): row for row in now}
    return list(found.values())


def by_subject(results: Results, part: str) -> dict[str, dict[str, Row]]:
    """Of one part: by subject, by method in the order of METHODS, float first."""
    found: dict[str, dict[str, Row]] = {}
    for subject in SUBJECTS:
        rows = {row.method: row for row in results.rows if row.subject == subject}
        if FLOAT in rows and rows[FLOAT].part == part:
            found[subject] = {name: rows[name] for name in (FLOAT, *METHODS) if name in rows}
    return found


def write(results: Results, path: Path) -> None:
    """Replace what stands between the page's marks, and write the plot and the rows beside it.

    Raises ValueError for a page without marks.
    """
    text = path.read_text()
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise ValueError(f"{path}: expected {BEGIN} and {END}")
    plot = path.with_suffix(".svg")
    plot.write_text(_plot(results))
    lines = ",\n".join(json.dumps(asdict(row)) for row in results.rows)
    path.with_suffix(".json").write_text(f"[\n{lines}\n]\n")
    before, after = text[: text.index(BEGIN)], text[text.index(END) + len(END) :]
    path.write_text(f"{before}{BEGIN}\n\n{tables(results, plot.name)}\n\n{END}{after}")


def tables(results: Results, plot: str) -> str:
    """All of them as Markdown."""
    parts = [
        f"![points of accuracy and answers lost, by quantiser]({plot})",
        *_photographs(results),
        *_trained(
            results,
            "trained",
            "Fashion-MNIST",
            "All 10,000 test pictures: accuracy in percent, and behind it the points lost and "
            "McNemar's exact p-value.",
        ),
        *_trained(
            results,
            "hostile",
            "The same networks, made hostile",
            "Channels scaled up to a hundredfold while the float network answers as before: "
            "`benchmarks/int8_hostile.py` says how.",
        ),
        *_conditions(results),
    ]
    return "\n\n".join(parts)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _photographs(results: Results) -> list[str]:
    parts = []
    for rows in by_subject(results, "photographs").values():
        lines = []
        for method, row in rows.items():
            if method == FLOAT:
                continue
            rate = wilson(row.right, row.n)
            lines.append(
                [
                    METHODS[method].title,
                    f"{100 * rate.value:.1f} %",
                    f"{100 * rate.low:.1f} to {100 * rate.high:.1f}",
                    "–" if row.cosine is None else f"{row.cosine:.4f}",
                    "–" if row.seconds is None else _duration(row.seconds),
                ]
            )
        real = rows[FLOAT]
        parts += [
            f"### {real.title}, {real.size} pixels",
            f"{real.n} composited photographs, which have no labels: how often the first class is "
            "that of the float network, with a 95 % interval, and the mean cosine of the logits "
            "with its.",
            _table(["", "same answer", "95 %", "cosine", "time to make"], lines),
        ]
    return parts


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def _trained(results: Results, part: str, title: str, words: str) -> list[str]:
    found = by_subject(results, part)
    if not found:
        return []
    real = [rows[FLOAT] for rows in found.values()]
    heads = ["", *(f"{row.title}<br>{row.size} px" for row in real)]
    lines = []
    for method in (FLOAT, *METHODS):
        cells = [_accuracy(rows.get(method)) for rows in found.values()]
        if any(cell != "–" for cell in cells):
            name = "float32" if method == FLOAT else METHODS[method].title
            lines.append([name, *cells])
    return [f"### {title}", words, _table(heads, lines)]


def _accuracy(row: Row | None) -> str:
    if row is None:
        return "–"
    text = f"{100 * row.right / row.n:.2f}"
    if row.method == FLOAT:
        return text
    chance = "p < 0.001" if row.p is None or row.p < 0.001 else f"p {row.p:.2g}"
    sign = "−" if row.points > 0 else "+"
    return f"{text}<br>{sign}{abs(row.points):.2f}, {chance}"


def _conditions(results: Results) -> list[str]:
    machine, rows = results.machine, results.rows
    dates = sorted(row.date for row in rows)
    pictures = sorted({row.pictures for row in rows})
    sizes = {row.n for row in rows}
    minutes = sorted({row.train_minutes for row in rows if row.method == "distilled"})
    lines = {
        "CPU": f"{machine['cpu']}, {machine['cores']} cores"
        + (f", virtual ({machine['virtual']})" if machine["virtual"] else ""),
        "instruction sets": " ".join(machine["instruction_sets"]),
        "system": f"{machine['system']}, {machine['libc']}, Python {machine['python']}",
        "versions": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        "threads": _listed({row.threads for row in rows if row.threads is not None}),
        "date": f"{dates[0]} to {dates[-1]}",
        "pictures": f"{_listed(pictures)} to calibrate with, the same for all, from the training "
        f"split; {_listed(sizes)} others to measure on",
        "distillation": f"{_listed(minutes)} minutes" if minutes else "not measured",
    }
    parts = [
        "### Conditions",
        _table(["condition", ""], [[f"**{name}**", value] for name, value in lines.items()]),
        "The peers are measured without the saturation of their int8 kernels on CPUs without VNNI: "
        "ONNX Runtime with `session.x64quantprecision=1`, OpenVINO with `LP_TRANSFORMS_MODE=NO`, "
        "which computes NNCF's fake quantisation as it is written, in float32. On such CPUs they "
        "lose more in use. Ours is `mobilenet quantize`, run by the engine. Full bias correction "
        "takes a fifth of the pictures, by NNCF's own rule. Times to make are of a machine that "
        "was shared.",
    ]
    if results.failures:
        failed = [f"- {name}: {why}" for name, why in results.failures.items()]
        parts += ["Not measured:", "\n".join(failed)]
    return parts


def _listed(values: Iterable[float]) -> str:
    return " or ".join(f"{value:,g}" for value in sorted(values))


def _plot(results: Results) -> str:
    """Percent lost by method, on a logarithmic axis; of several networks the worst."""
    series = {}
    for part in SERIES:
        worst: dict[str, float] = {}
        found = by_subject(results, part)
        for rows in found.values():
            for method, row in rows.items():
                worst[method] = max(worst.get(method, -math.inf), row.points)
        series[part] = (worst, len(found))
    methods = [name for name in METHODS if any(name in worst for worst, _ in series.values())]
    left, right, top, height = 230, 790, 76, 26
    bottom = top + height * len(methods)

    def across(percent: float) -> float:
        part = math.log10(max(percent, LEAST) / LEAST) / math.log10(100 / LEAST)
        return left + part * (right - left)

    parts: list[Markup] = []
    for tick in (LEAST, 1.0, 10.0, 100.0):
        x = across(tick)
        words = f"≤ {tick:g}" if tick == LEAST else f"{tick:g}"
        parts += [
            element("line", {"x1": x, "x2": x, "y1": top - 6, "y2": bottom, "class": "grid"}),
            element(
                "text", {"x": x, "y": bottom + 16, "text-anchor": "middle", "class": "tick"}, words
            ),
        ]
    for index, name in enumerate(methods):
        at = {"x": left - 12, "y": top + height * (index + 0.5) + 4, "text-anchor": "end"}
        parts.append(element("text", at, METHODS[name].short))
    for line, (part, (worst, count)) in enumerate(series.items()):
        tone, words = SERIES[part]
        y = 16 + 17 * line
        parts += [
            element("circle", {"cx": left, "cy": y, "r": 5, "class": tone}),
            element("text", {"x": left + 12, "y": y + 4}, words.format(count=count)),
        ]
        for index, name in enumerate(methods):
            if name in worst:
                dot = {"cx": across(worst[name]), "cy": top + height * (index + 0.5), "r": 5}
                title = element("title", None, f"{METHODS[name].title}: {worst[name]:.2f}")
                parts.append(element("circle", {**dot, "class": tone}, title))
    return element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {right + 30} {bottom + 28}",
            "width": right + 30,
            "height": bottom + 28,
            "role": "img",
        },
        element("style", None, Markup(STYLE)),
        join(*parts),
    )

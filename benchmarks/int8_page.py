"""The tables of docs/int8.md and the plot beside it, from what int8.py measured."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from int8_peers import METHODS

from mobilenet.evaluate.metrics import wilson
from mobilenet.evaluate.paired import Drop, compare_answers
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


@dataclass(kw_only=True)
class Results:
    """Cells of int8.Bench, what failed and why, and conditions."""

    cells: list[dict[str, Any]]
    failures: dict[str, str]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]


def read_cell(path: Path) -> dict[str, Any]:
    """A cell as int8.py keeps it."""
    return json.loads(path.read_text())["result"]


def read_settings(path: Path) -> Any:
    """What a cell was measured on: the float weights, and how many pictures."""
    return json.loads(path.read_text())["settings"]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A cell beside its float network. Without labels `drop` is of the answers that changed."""

    cell: Mapping[str, Any]
    right: int
    n: int
    drop: Drop


def measured(results: Results, part: str) -> dict[str, dict[str, Measured]]:
    """Of one part: by subject, by method in the order of METHODS, float first."""
    found: dict[str, dict[str, Measured]] = {}
    cells = [cell for cell in results.cells if cell["part"] == part]
    for real in (cell for cell in cells if cell["method"] == FLOAT):
        first = np.array(real["first"])
        labels = first if real["labels"] is None else np.array(real["labels"])
        rows = {}
        for method in (FLOAT, *METHODS):
            for cell in cells:
                # a cell of other pictures than the float network's is of an earlier run
                same = cell["subject"] == real["subject"] and len(cell["first"]) == len(first)
                if same and cell["method"] == method:
                    right = np.array(cell["first"]) == labels
                    rows[method] = Measured(
                        cell=cell,
                        right=int(right.sum()),
                        n=len(labels),
                        drop=compare_answers(first == labels, right),
                    )
        found[real["subject"]] = rows
    return found


def write(results: Results, path: Path) -> None:
    """Replace what stands between the page's marks, and draw the plot beside it.

    Raises ValueError for a page without marks.
    """
    text = path.read_text()
    if not 0 <= text.find(BEGIN) < text.find(END):
        raise ValueError(f"{path}: expected {BEGIN} and {END}")
    plot = path.with_suffix(".svg")
    drawn = _plot(results)
    plot.write_text(drawn)
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
    for rows in measured(results, "photographs").values():
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
                    f"{row.cell['cosine']:.4f}",
                    _duration(row.cell["seconds_to_make"]),
                ]
            )
        real = rows[FLOAT]
        parts += [
            f"### {real.cell['title']}, {real.cell['size']} pixels",
            f"{real.n} composited photographs, which have no labels: how often the first class is "
            "that of the float network, with a 95 % interval, and the mean cosine of the logits "
            "with its.",
            _table(["", "same answer", "95 %", "cosine", "time to make"], lines),
        ]
    return parts


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 100 else f"{seconds:.0f} s"


def _trained(results: Results, part: str, title: str, words: str) -> list[str]:
    found = measured(results, part)
    if not found:
        return []
    names = {subject: rows[FLOAT].cell for subject, rows in found.items()}
    heads = ["", *(f"{cell['title']}<br>{cell['size']} px" for cell in names.values())]
    lines = []
    for method in (FLOAT, *METHODS):
        cells = [_accuracy(rows.get(method)) for rows in found.values()]
        if any(cell != "–" for cell in cells):
            name = "float32" if method == FLOAT else METHODS[method].title
            lines.append([name, *cells])
    return [f"### {title}", words, _table(heads, lines)]


def _accuracy(row: Measured | None) -> str:
    if row is None:
        return "–"
    text = f"{100 * row.right / row.n:.2f}"
    if row.cell["method"] == FLOAT:
        return text
    p = row.drop.p_value
    chance = "p < 0.001" if p < 0.001 else f"p {p:.2g}"
    sign = "−" if row.drop.points > 0 else "+"
    return f"{text}<br>{sign}{abs(row.drop.points):.2f}, {chance}"


def _conditions(results: Results) -> list[str]:
    machine, cells = results.machine, results.cells
    dates = sorted(cell["date"] for cell in cells)
    pictures = sorted({cell["pictures"] for cell in cells})
    sizes = {len(cell["first"]) for cell in cells}
    minutes = sorted({cell["train_minutes"] for cell in cells if cell["method"] == "distilled"})
    lines = {
        "CPU": f"{machine['cpu']}, {machine['cores']} cores"
        + (f", virtual ({machine['virtual']})" if machine["virtual"] else ""),
        "instruction sets": " ".join(machine["instruction_sets"]),
        "system": f"{machine['system']}, {machine['libc']}, Python {machine['python']}",
        "versions": ", ".join(f"{name} {version}" for name, version in results.versions.items()),
        "threads": _listed({cell["threads"] for cell in cells}),
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
        found = measured(results, part)
        for rows in found.values():
            for method, row in rows.items():
                worst[method] = max(worst.get(method, -math.inf), row.drop.points)
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

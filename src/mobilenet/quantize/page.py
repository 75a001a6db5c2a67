"""The report of a quantisation: one HTML file that needs nothing else."""

from ..report.markup import Markup, element
from ..report.page import figures, html_page, number_cell, paragraph, table, text_cell
from ..report.plots import Point, Series, line_chart, number, rounded_axis, scatter
from .result import AnyGate, Latency, Quantisation, SceneGate

_SHOWN = 200  # flipped pictures in the table


def quantisation_page(found: Quantisation) -> Markup:
    """The whole file: the verdict, the ladder, what hurts most, the noise of each tensor, flipped
    pictures."""
    title = f"{found.model} in int8"
    parts = (_ladder(found), _classes(found.gate), _harms(found), _layers(found), _flips(found))
    return html_page(title, *_head(title, found), *parts)


def _head(title: str, found: Quantisation) -> tuple[Markup, ...]:
    verdict = "The gate holds" if found.ok else "The gate FAILS"
    numbers = figures(
        [
            *found.gate.figures(),
            ("Size", f"{found.int8_bytes / 1e6:.2f} MB", f"of {found.float_bytes / 1e6:.2f}"),
            *_latency(found.latency),
        ]
    )
    said = (
        f"{verdict}: a drop of at most {found.max_drop:g} points, on {found.n} pictures of "
        f"{found.data} ({found.split}); calibrated on {found.calibrated_on} others."
    )
    notes = [paragraph(note) for note in found.notes]
    return element("h1", None, title), paragraph(said), *notes, numbers


def _latency(taken: Latency | None) -> list[tuple[str, str, str]]:
    if taken is None:
        return []
    beside = f"float32 {taken.float32_ms:.2f}; engine {taken.instruction_set}, one thread"
    predicted = f"float32 {taken.predicted_float32_ms:.2f}; from other networks' rates here"
    return [
        ("Latency", f"{taken.int8_ms:.2f} ms", beside),
        ("Predicted latency", f"{taken.predicted_int8_ms:.2f} ms", predicted),
    ]


def _harms(found: Quantisation) -> Markup:
    worst = sorted(found.harms, key=lambda harm: harm.snr_db)
    series = [
        Series(
            name=kind,
            x=[float(rank) for rank, harm in enumerate(worst) if harm.kind == kind],
            y=[harm.snr_db for harm in worst if harm.kind == kind],
        )
        for kind in ("tensor", "weights")
    ]
    chart = line_chart(
        series,
        title="Signal to noise of the logits where this alone is rounded, the worst first",
        x=rounded_axis("rank", [float(len(worst))], zero=True),
        y=rounded_axis("dB", [harm.snr_db for harm in worst], form=number),
    )
    rows = [
        [
            text_cell(harm.where),
            text_cell(harm.kind),
            number_cell(f"{harm.snr_db:.1f}", harm.snr_db),
        ]
        for harm in worst
    ]
    return element(
        "section",
        None,
        element("h2", None, "What hurts most"),
        chart,
        table(
            ["step and name", "what", "logits dB"],
            rows,
            caption="One thing rounded, all else in float32: the lowest hurt most",
            numbers_from=2,
            sortable=True,
        ),
    )


def _ladder(found: Quantisation) -> Markup:
    rows = []
    for rung in found.rungs:
        gate = rung.gate
        rows.append(
            [
                text_cell(rung.name),
                element("td", None, rung.did if rung.kept else f"{rung.did}: no gain, left out"),
                number_cell(f"{rung.snr_db:.1f}", rung.snr_db),
                number_cell("–" if gate is None else f"{gate.drop.points:.2f}"),
                number_cell("–" if gate is None else f"{100 * gate.agreement.value:.2f}"),
                number_cell(f"{rung.seconds:.0f}", rung.seconds),
            ]
        )
    kept = [rung for rung in found.rungs if rung.kept]
    points = [(float(index), rung.snr_db) for index, rung in enumerate(kept)]
    chart = line_chart(
        [Series(name="logits", x=[x for x, _ in points], y=[y for _, y in points])],
        title="Signal to noise of the logits, dB, after each step that was kept",
        x=rounded_axis("step", [x for x, _ in points], zero=True),
        y=rounded_axis("dB", [y for _, y in points], form=number),
    )
    heads = ["step", "what it did", "logits dB", "drop", "agreement %", "seconds"]
    return element(
        "section",
        None,
        element("h2", None, "Ladder"),
        table(heads, rows, caption="Each step of the repair", numbers_from=2),
        chart,
    )


def _layers(found: Quantisation) -> Markup:
    points = [
        Point(x=float(index), y=layer.snr_db, title=f"{layer.tensor}: {layer.snr_db:.1f} dB")
        for index, layer in enumerate(found.layers)
    ]
    chart = scatter(
        points,
        title="Signal to noise of each tensor beside the float network's, in order",
        x=rounded_axis("tensor", [point.x for point in points], zero=True),
        y=rounded_axis("dB", [point.y for point in points], form=number),
        width=760,
    )
    rows = [
        [text_cell(layer.tensor), number_cell(f"{layer.snr_db:.1f}", layer.snr_db)]
        for layer in found.layers
    ]
    return element(
        "section",
        None,
        element("h2", None, "Tensors"),
        chart,
        table(["tensor", "dB"], rows, caption="Step and tensor", sortable=True),
    )


def _classes(gate: AnyGate) -> Markup:
    """The primary figure of both networks by class, of scenes."""
    if not isinstance(gate, SceneGate) or not gate.float_scores.per_class:
        return Markup("")
    primary = gate.float_scores.primary
    rows = []
    for label, found in gate.float_scores.per_class.items():
        pair = (found.get(primary), gate.int8_scores.per_class[label].get(primary))
        cells = [number_cell("–" if v is None else f"{100 * v:.2f} %", v) for v in pair]
        rows.append([text_cell(label), *cells])
    return element(
        "section",
        None,
        element("h2", None, "Classes"),
        table(["class", "float32", "int8"], rows, caption=f"{primary} by class", sortable=True),
    )


def _flips(found: Quantisation) -> Markup:
    rows = [
        [text_cell(flip.picture), *(element("td", None, label) for label in labels)]
        for flip, labels in ((f, (f.float_label, f.int8_label)) for f in found.flips[:_SHOWN])
    ]
    heads = ["picture", "float32", "int8"]
    changed = "whose first class changed"
    if isinstance(found.gate, SceneGate):
        changed = "on which the networks differ most"
    caption = f"{len(found.flips)} pictures {changed}"
    return element(
        "section",
        None,
        element("h2", None, "Flipped pictures"),
        table(heads, rows, caption=caption, numbers_from=9),
    )

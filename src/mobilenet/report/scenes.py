"""The report of a run on scenes: figures, learning curve, classes, what it finds."""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from ..checkpoint import read_model_json
from ..checkpoint.contract import WEIGHTS_FILE
from ..durable import write_atomically
from ..evaluate.scene_model import SceneModel
from ..evaluate.scenes import SceneEvaluation
from ..networks import create_network, name_of
from ..preprocess import ImageError
from ..scenes import SceneData
from ..tasks import Example, examples_of
from . import FILE_NAME, sections
from .markup import Markup, element, join
from .page import commands, figures, html_page, muted, number_cell, paragraph, table, text_cell
from .plots import Axis, Series, line_chart, percent_tick, rounded_axis

_SHOWN = 12  # pictures
_SIDE = 320  # pixels of one


def write_scene_report(
    run: Path, model: SceneModel, data: SceneData, evaluation: SceneEvaluation
) -> Path:
    """Write `report.html` into a run folder and return its path.

    Reads `model.json`, `metrics.jsonl` and the size of the weights there. Raises CheckpointError
    where the run is none.
    """
    contract = read_model_json(run)
    title = f"{name_of(model.spec)} on {evaluation.data}"
    page = html_page(
        title,
        _head(run, model, evaluation, title),
        _part("Figures", _figures(evaluation)),
        _part("Training", _curve(_epochs(run / "metrics.jsonl"), evaluation.scores.primary)),
        _part("Classes", _classes(evaluation)),
        _part("What it finds", _found(model, data, evaluation.split)),
        sections.conditions_part(
            contract["provenance"],
            {
                "measured with": evaluation.runtime,
                "measured in": f"{evaluation.seconds:.1f} s",
                "weights sha256": contract["weights"]["sha256"],
            },
            contract["provenance"].get("command"),
        ),
        _part(
            "How to use it next",
            commands(
                [
                    f"mobilenet predict {run} picture.jpg --save drawn/",
                    f"mobilenet quantize {run} {evaluation.data} --out {run}-int8",
                    f"mobilenet export {run} --to engine --out {run}-engine",
                    f"mobilenet verify {run}-engine {evaluation.data}",
                ]
            ),
        ),
    )
    path = run / FILE_NAME
    write_atomically(path, page.encode("utf-8", "replace"))
    return path


def _part(title: str, *parts: str | Markup) -> Markup:
    name = title.lower().replace(" ", "-")
    heading = element("h2", {"id": f"{name}-title"}, title)
    return element("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, *parts)


def _head(run: Path, model: SceneModel, evaluation: SceneEvaluation, title: str) -> Markup:
    from ..heads import count_network

    size = model.preprocess.size
    cost = count_network(lambda: create_network(model.spec), size, size)
    weights = (run / WEIGHTS_FILE).stat().st_size
    scores = evaluation.scores
    between = f"{100 * evaluation.low:.1f} to {100 * evaluation.high:.1f}"
    return element(
        "header",
        None,
        element("h1", None, title),
        figures(
            [
                (scores.primary, f"{100 * scores.value:.1f} %", f"{between} (95 %)"),
                ("Size", f"{weights / 1e6:.1f} MB", "float32 weights"),
                ("Parameters", f"{cost.params / 1e6:.2f} M", f"{cost.params:,}"),
                ("Multiply-adds", f"{cost.madds / 1e6:.0f} M", "an image"),
                ("Input", f"{size} × {size}", "pixels, RGB"),
                ("Measured on", f"{scores.n}", f"examples, split {evaluation.split}"),
            ]
        ),
    )


def _percent(value: float | None) -> Markup:
    return muted("–") if value is None else join(f"{100 * value:.1f} %")


def _figures(evaluation: SceneEvaluation) -> Markup:
    rows = [
        [text_cell(name), number_cell(_percent(value), value)]
        for name, value in evaluation.scores.figures.items()
    ]
    return table(("figure", "value"), rows, caption="What the task's own metric says")


def _classes(evaluation: SceneEvaluation) -> Markup:
    per_class = evaluation.scores.per_class
    if not per_class:
        return paragraph("This task has no figures by class.")
    names = list(next(iter(per_class.values())))
    rows = [
        [text_cell(label), *(number_cell(_percent(found[name]), found[name]) for name in names)]
        for label, found in per_class.items()
    ]
    return table(("class", *names), rows, caption="By class", sortable=True)


def _epochs(path: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and record.get("kind") == "epoch":
                    found.append(record)
    return found


def _curve(epochs: Sequence[Mapping[str, Any]], primary: str) -> Markup:
    """The loss, and the primary figure where it was measured between epochs."""
    if not epochs:
        return paragraph("No epoch was written down.")
    numbers = [int(record["epoch"]) + 1 for record in epochs]
    x = Axis(label="epoch", low=0.5, high=max(numbers) + 0.5, form=lambda v: f"{v:.0f}")
    loss = [float(record["train_loss"]) for record in epochs]
    charts = [
        line_chart(
            [Series(name="training", x=numbers, y=loss)],
            title="Loss by epoch",
            x=x,
            y=rounded_axis("loss", loss, zero=True),
        )
    ]
    measured = [
        (n, r[f"val_{primary}"])
        for n, r in zip(numbers, epochs, strict=True)
        if f"val_{primary}" in r
    ]
    if measured:
        at, values = zip(*measured, strict=True)
        charts.append(
            line_chart(
                [Series(name="validation", x=at, y=values)],
                title=f"{primary} by epoch",
                x=x,
                y=rounded_axis(primary, values, form=percent_tick, zero=True),
            )
        )
    return join(
        paragraph(
            f"{len(epochs)} epochs. {primary} was measured on some validation pictures while there "
            "was time for it; the figures above are of the saved network."
        ),
        element("div", {"class": "plots"}, *charts),
    )


def _found(model: SceneModel, data: SceneData, split: str) -> Markup:
    examples = examples_of(data.splits[split], windowed=model.task.windowed(model.spec))
    step = max(len(examples) // _SHOWN, 1)
    shown = list(_drawn(model, examples[::step][:_SHOWN]))
    return element("div", {"class": "gallery"}, *shown)


def _drawn(model: SceneModel, examples: Sequence[Example]) -> Iterator[Markup]:
    for example in examples:
        name = example.scene.image.name
        with suppress(ImageError):
            picture = Image.fromarray(example.read(mask=False).picture)
            found = model.find(picture)
            drawn = model.task.draw(picture, found, model.labels, model.rules)
            yield element(
                "figure",
                None,
                element("img", {"src": _embedded(drawn), "alt": "a picture and what was found"}),
                element(
                    "figcaption",
                    None,
                    muted(f"{name}: {model.task.describe(found, model.labels)}"),
                ),
            )


def _embedded(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    ImageOps.contain(picture, (_SIDE, _SIDE)).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

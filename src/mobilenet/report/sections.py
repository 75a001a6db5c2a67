"""The parts of the report, each a function from numbers to markup."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data import ScanReport
from ..data.scan import Copy
from ..evaluate import Evaluation
from ..evaluate.metrics import ClassMetrics, Outcomes, reject_curve, wilson
from .history import Epoch, best_epoch
from .markup import Markup, element, join
from .mistakes import Mistake
from .page import (
    PARTS,
    commands,
    estimate,
    figures,
    interval,
    muted,
    number_cell,
    paragraph,
    section,
    table,
    text_cell,
)
from .plots import (
    Axis,
    Band,
    Mark,
    Point,
    Series,
    line_chart,
    percent,
    percent_tick,
    rounded_axis,
    scatter,
)

_ROWS = 1000  # classes that the table lists
_FILES = 20  # files listed under one finding
_IMBALANCED = 5.0  # times that the largest class may exceed the smallest without a word
_CURVE = 200  # points of the reject curve
_THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def head(title: str, evaluation: Evaluation, numbers: Sequence[tuple[str, str, str]]) -> Markup:
    """The verdict line, key numbers, and links to the other parts."""
    top1 = evaluation.metrics.top1
    half = 100 * (top1.high - top1.low) / 2
    tuned = (
        " This split was watched during training: new pictures may fare a little worse."
        if evaluation.split == "val"
        else ""
    )
    links = [
        element("li", None, element("a", {"href": f"#{name}"}, words))
        for name, words in PARTS.items()
    ]
    return element(
        "header",
        None,
        element("h1", None, title),
        element(
            "p",
            {"class": "verdict"},
            f"{percent(top1.value)} right ",
            muted(f"± {half:.1f}"),
        ),
        paragraph(
            f"of {top1.n:,} {evaluation.split} images; the true rate lies between "
            f"{100 * top1.low:.1f} and {100 * top1.high:.1f} % with 95 % confidence.{tuned}"
        ),
        figures(numbers),
        element("nav", {"aria-label": "Parts of this report"}, element("ul", None, *links)),
    )


def use_and_limits(evaluation: Evaluation) -> Markup:
    """What the model is for, as far as the data tells."""
    labels = evaluation.labels
    shown = ", ".join(labels[:12]) + (f" and {len(labels) - 12} more" if len(labels) > 12 else "")
    return section(
        "use",
        paragraph(f"Sorts one picture into one of {len(labels)} classes: {shown}."),
        paragraph(
            "It always answers with one of these, also for a picture of something else: where "
            "that can happen, reject answers of low confidence (see ",
            element("a", {"href": "#calibration"}, "Confidence"),
            "). The numbers here hold for pictures like the ones measured "
            f"({evaluation.data}); another camera, light or place can lower them, and "
            "nothing here says how it treats different groups of people.",
        ),
        muted("This text follows from the data alone; the model's author should replace it."),
    )


def data_part(counts: Mapping[str, Mapping[str, int]], kind: str, evaluation: Evaluation) -> Markup:
    """Images and classes in every split."""
    rows = []
    for split, classes in counts.items():
        filled = {name: n for name, n in classes.items() if n}
        least = min(filled.items(), key=lambda item: item[1], default=("–", 0))
        most = max(filled.items(), key=lambda item: item[1], default=("–", 0))
        rows.append(
            [
                text_cell(split + (" (measured here)" if split == evaluation.split else "")),
                number_cell(f"{sum(filled.values()):,}"),
                number_cell(f"{len(filled):,}"),
                number_cell(join(f"{least[1]:,} ", muted(least[0]))),
                number_cell(join(f"{most[1]:,} ", muted(most[0]))),
            ]
        )
    heads = ["Split", "Images", "Classes", "Smallest class", "Largest class"]
    return section(
        "data", table(heads, rows, caption=f"Images in {evaluation.data} (kind: {kind}), by split")
    )


def findings_part(found: ScanReport | None) -> Markup:
    """What the check of the data found."""
    if found is None:
        return section("findings", paragraph("The data was not checked."))
    parts = [_finding(what, where) for what, where in _findings(found) if where]
    return section(
        "findings",
        paragraph(f"All {found.images:,} images were read and compared before training."),
        *(parts or [paragraph("Nothing was found that should be mended.")]),
    )


def _findings(found: ScanReport) -> Iterator[tuple[str, list[str]]]:
    """(what, the files or classes concerned) of everything a person should know of."""
    bad = [f"{one.path}: {one.reason}" for one in found.unreadable]
    yield "Images that cannot be read, left out", bad
    for conflict, words in (
        ("splits", "The same image in several splits, which flatters the numbers here"),
        ("labels", "The same image under several labels, of which at most one is right"),
    ):
        groups = [d.copies for d in found.duplicates if d.conflict == conflict]
        yield words, [_copies(group) for group in groups]
    for split, names in found.missing.items():
        yield f"Classes without an image in {split}", list(names)
    yield "Class folders without an image, which are no classes", list(found.empty_classes)
    yield "Files that were not taken for images", [f"{f.path}: {f.reason}" for f in found.ignored]
    if found.imbalance > _IMBALANCED:
        words = f"the largest has {found.imbalance:.0f} times the images of the smallest"
        yield "Classes of unequal size in train", [words]
    if found.sizes is not None and found.sizes.small:
        yield "Very small images", [f"{found.sizes.small:,} with a side below 32 pixels"]
    if found.sizes is not None and found.sizes.long:
        yield "Very long images", [f"{found.sizes.long:,}: the centre crop loses most of them"]
    if found.repeated:
        yield "Repeated images", [f"{found.repeated:,} further copies within a split and class"]


def _copies(copies: tuple[Copy, ...]) -> str:
    shown = ", ".join(f"{copy.path} ({copy.split}, {copy.label})" for copy in copies[:_FILES])
    return shown + (f" and {len(copies) - _FILES:,} more" if len(copies) > _FILES else "")


def _finding(what: str, where: list[str]) -> Markup:
    if len(where) == 1:
        return paragraph(f"{what}: {where[0]}.")
    items = [element("li", None, item) for item in where[:_FILES]]
    if len(where) > _FILES:
        items.append(element("li", None, f"and {len(where) - _FILES:,} more"))
    summary = element("summary", None, f"{what} ({len(where):,})")
    return element("details", None, summary, element("ul", None, *items))


def curves(epochs: tuple[Epoch, ...]) -> Markup:
    """Accuracy, loss and learning rate over the epochs, the best one marked."""
    if not epochs:
        return section("training", paragraph("No epochs were recorded."))
    best = best_epoch(epochs)
    numbers = list(range(1, len(epochs) + 1))
    x = Axis(label="epoch", low=0.5, high=len(epochs) + 0.5, form=lambda v: f"{v:.0f}")
    bands = list(_phases(epochs))

    def pair(train: list[float | None], val: list[float | None]) -> list[Series]:
        return [
            Series(name="training", x=numbers, y=train, tone="second"),
            Series(name="validation", x=numbers, y=val),
        ]

    top1 = pair([e.train_top1 for e in epochs], [e.val_top1 for e in epochs])
    loss = pair([e.train_loss for e in epochs], [e.val_loss for e in epochs])
    rates = [epoch.lr for epoch in epochs]
    mark = None
    words = "Validation accuracy was not measured."
    if best is not None and (top := epochs[best].val_top1) is not None:
        mark = Mark(x=best + 1, y=top, text=f"best: {percent(top)}")
        words = f"Validation accuracy was best in epoch {best + 1}: {percent(top)}."
    charts = [
        line_chart(
            top1,
            title="Accuracy by epoch",
            x=x,
            y=rounded_axis("accuracy", _values(top1), form=percent_tick, top=1.0),
            mark=mark,
            bands=bands,
        ),
        line_chart(
            loss,
            title="Loss by epoch",
            x=x,
            y=rounded_axis("loss", _values(loss), zero=True),
            bands=bands,
        ),
        line_chart(
            [Series(name="learning rate", x=numbers, y=rates)],
            title="Learning rate by epoch",
            x=x,
            y=rounded_axis("learning rate", rates, zero=True),
            bands=bands,
        ),
    ]
    return section(
        "training",
        paragraph(
            f"{len(epochs)} epoch{'s' * (len(epochs) > 1)}. {words} Training accuracy is measured "
            "while the weights move and on augmented pictures: it may lie below validation."
        ),
        element("div", {"class": "plots"}, *charts),
    )


def classes_part(evaluation: Evaluation, train_counts: Mapping[str, int] | None) -> Markup:
    """Precision, recall and F1 of every class, the worst first."""
    metrics = evaluation.metrics
    shown = sorted(
        (row for row in metrics.per_class if row.support or row.predicted),
        key=lambda row: row.f1.value,
    )[:_ROWS]
    heads = ["Class", "F1", "Precision", "Recall", f"Images ({evaluation.split})"]
    if train_counts is not None:
        heads.append("Images (train)")

    def cells(row: ClassMetrics) -> list[Markup]:
        found = [text_cell(row.name)]
        for rate in (row.f1, row.precision, row.recall):
            found.append(number_cell(estimate(rate), rate.value if rate.n else -1.0))
        found.append(number_cell(f"{row.support:,}", row.support))
        if train_counts is not None:
            trained = train_counts.get(row.name, 0)
            found.append(number_cell(f"{trained:,}", trained))
        return found

    caption = f"{len(shown):,} of {len(metrics.per_class):,} classes, the lowest F1 first"
    return section(
        "classes",
        paragraph(
            f"Averages over classes: F1 {percent(metrics.macro_f1)}, precision "
            f"{percent(metrics.macro_precision)}, recall {percent(metrics.macro_recall)}. In grey: "
            "the interval that holds the true rate with 95 % confidence; a class with few images "
            "has a wide one."
        ),
        table(heads, [cells(row) for row in shown], caption=caption, sortable=True),
    )


def mistakes_part(mistakes: Sequence[Mistake], errors: int) -> Markup:
    """The worst mistakes as pictures."""
    if not mistakes:
        words = "None to show." if errors else "No image was classified wrongly."
        return section("mistakes", paragraph(words))
    items = []
    for mistake in mistakes:
        alt = f"{mistake.name}: {mistake.true}, taken for {mistake.predicted}"
        picture = (
            "no longer readable"
            if mistake.picture is None
            else element("img", {"src": mistake.picture, "alt": alt})
        )
        items.append(
            element(
                "li",
                None,
                element("div", {"class": "picture"}, picture),
                element("span", {"class": "said"}, mistake.predicted),
                f" {percent(mistake.predicted_score)}",
                element("br"),
                f"is {mistake.true} ",
                muted(percent(mistake.true_score)),
                element("br"),
                element("span", {"class": "file"}, mistake.name),
            )
        )
    return section(
        "mistakes",
        paragraph(
            f"{len(mistakes)} of {errors:,} wrongly classified images, those of the highest loss "
            "first: in orange what the model said, below what the label says, each with the "
            "model's score. The first are often wrong labels: look at them before training longer."
        ),
        element("ul", {"class": "mistakes"}, *items),
    )


def calibration_part(evaluation: Evaluation) -> Markup:
    """Whether confidence can be believed, and what rejecting low confidence gives."""
    metrics, outcomes = evaluation.metrics, evaluation.outcomes
    share = Axis(label="confidence", low=0.0, high=1.0, form=percent_tick)
    points = [
        Point(
            x=bin_.confidence,
            y=bin_.accuracy.value,
            low=bin_.accuracy.low,
            high=bin_.accuracy.high,
            radius=3.0 + 6.0 * (bin_.accuracy.n / metrics.n) ** 0.5,
            title=f"confidence {percent(bin_.confidence)}: {percent(bin_.accuracy.value)} right "
            f"{interval(bin_.accuracy)}, n = {bin_.accuracy.n:,}",
        )
        for bin_ in metrics.bins
    ]
    reliability = scatter(
        points,
        title="Reliability diagram: accuracy by confidence",
        x=share,
        y=Axis(label="accuracy", low=0.0, high=1.0, form=percent_tick),
        diagonal=True,
    )
    rows = []
    for threshold in _THRESHOLDS:
        kept = outcomes.confidence >= threshold
        right = wilson(int(outcomes.correct[kept].sum()), int(kept.sum()))
        rows.append(
            [
                text_cell(f"{threshold:.2f}"),
                number_cell(estimate(wilson(right.n, metrics.n))),
                number_cell(estimate(right)),
                number_cell(f"{right.n:,}"),
            ]
        )
    heads = ["Answer from", "Answered", "Right among them", "Images"]
    return section(
        "calibration",
        paragraph(
            f"Expected calibration error {percent(metrics.ece)}: so far, on average, does the "
            "confidence stand from the accuracy of answers of that confidence (15 bins). Dots "
            "below the dashed line: too sure; above: not sure enough. The larger a dot, the more "
            "images."
        ),
        element("div", {"class": "plots"}, reliability, _reject_chart(outcomes)),
        element("h3", None, "Rejecting answers of low confidence"),
        table(heads, rows, caption="What answering only from a confidence on would give"),
    )


def conditions_part(
    provenance: Mapping[str, Any], measured: Mapping[str, str], command: str | None
) -> Markup:
    """How the numbers came about, and the command that repeats it."""
    flat, nested = dict(measured), {}
    for name, value in provenance.items():
        if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            nested[name] = value
        elif name != "command":
            flat[name] = _in_words(value)
    options = provenance.get("options")
    if isinstance(options, Mapping) and "seed" in options:
        flat["seed"] = str(options["seed"])
    rows = [[text_cell(name), element("td", None, value)] for name, value in flat.items()]
    parts = [table(["What", "Value"], rows, caption="Recorded with the run", numbers_from=2)]
    for name, value in nested.items():
        text = json.dumps(value, indent=1, ensure_ascii=False)
        summary = element("summary", None, f"All of {name}")
        parts.append(element("details", None, summary, commands([text])))
    if command is not None:
        parts += [element("h3", None, "To reproduce"), commands([command])]
    return section("conditions", *parts)


def next_part(run: Path, data: str, found: ScanReport | None) -> Markup:
    """Commands that use the run."""
    skip_bad = " --skip-bad" if found is not None and found.unreadable else ""
    here, there = shlex.quote(str(run)), shlex.quote(str(run) + "-onnx")
    source = shlex.quote(data)
    steps = [
        ("Name a picture, or a folder of pictures", [f"mobilenet predict {here} PICTURE"]),
        ("Measure it again, or on other data", [f"mobilenet evaluate {here} {source}{skip_bad}"]),
        (
            "Export it, prove that the file answers as the network does, and time it",
            [
                f"mobilenet export {here} --to onnx --out {there}",
                f"mobilenet verify {there} {source}",
                f"mobilenet benchmark {there}",
            ],
        ),
    ]
    parts = [join(element("h3", None, title), commands(lines)) for title, lines in steps]
    return section("next", *parts)


def _in_words(value: Any) -> str:
    """A JSON value without objects inside one another."""
    match value:
        case None:
            return "–"
        case dict():
            return "; ".join(f"{name} {_in_words(inner)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(map(_in_words, value)) or "–"
    return str(value)


def _values(series: Sequence[Series]) -> list[float | None]:
    return [value for one in series for value in one.y]


def _phases(epochs: tuple[Epoch, ...]) -> Iterator[Band]:
    """Stretches of epochs of the same phase; none where there is only one phase."""
    starts = [
        index
        for index, epoch in enumerate(epochs)
        if index == 0 or epoch.phase != epochs[index - 1].phase
    ]
    if len(starts) < 2:
        return
    for start, end in zip(starts, [*starts[1:], len(epochs)], strict=True):
        yield Band(start=start + 0.5, end=end + 0.5, text=epochs[start].phase)


def _reject_chart(outcomes: Outcomes) -> Markup:
    curve = reject_curve(outcomes)
    # the accuracy of a handful of images says nothing
    steady = np.flatnonzero(curve.coverage * len(outcomes) >= min(20, len(outcomes)))
    at = steady[np.unique(np.linspace(0, len(steady) - 1, _CURVE).round().astype(int))]
    line = Series(name="accuracy", x=curve.coverage[at].tolist(), y=curve.accuracy[at].tolist())
    return line_chart(
        [line],
        title="Reject curve: accuracy of what is answered, by how much is answered",
        x=Axis(label="share of images answered", low=0.0, high=1.0, form=percent_tick),
        y=rounded_axis("accuracy of the answers", line.y, form=percent_tick, top=1.0),
    )

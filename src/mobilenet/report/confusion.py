"""The confusion matrix and the most frequent confusions."""

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from ..evaluate import Evaluation
from ..evaluate.metrics import Metrics, wilson
from .markup import Markup, element
from .page import estimate, number_cell, paragraph, section, table, text_cell
from .plots import Cell, heat_map, percent

_GRID = 30  # classes a side that the matrix shows one by one
_PAIRS = 20  # confusions that are listed


def confusion_part(evaluation: Evaluation) -> Markup:
    """The confusion matrix and the most frequent confusions."""
    metrics, labels = evaluation.metrics, evaluation.labels
    wrong = [pair for pair in metrics.confusions if pair.true != pair.predicted]
    rows = [
        [
            text_cell(labels[pair.true]),
            element("td", None, labels[pair.predicted]),
            number_cell(f"{pair.count:,}"),
            number_cell(estimate(wilson(pair.count, metrics.per_class[pair.true].support))),
        ]
        for pair in wrong[:_PAIRS]
    ]
    heads = ["True class", "Taken for", "Images", "Share of the true class"]
    listed = table(heads, rows, caption="The most frequent confusions", numbers_from=2)
    wide = len(labels) > _GRID
    words = (
        f"{len(labels)} classes in groups of {ceil(len(labels) / _GRID)}, in the classes' order. "
        "A row holds the images of one group. Blue: stay in their group"
        if wide
        else "A row holds the images of one true class. Blue: right"
    )
    map_ = _grouped_map(metrics, labels) if wide else _full_map(metrics, labels)
    readout = element("output", {"class": "readout", "aria-live": "polite"})
    figure = element("figure", None, element("div", {"class": "scroll"}, map_), readout)
    return section(
        "confusion",
        paragraph(
            words
            + ", orange: taken for another; the stronger, the larger the share of the row (as "
            "its square root, so that rare confusions show). ",
            element("span", {"class": "keys"}, "Point at a field, or use the arrow keys in it."),
        ),
        figure,
        listed if wrong else paragraph("No image was taken for another class."),
    )


def _map(
    counts: np.ndarray, names: Sequence[str], sentence: Callable[[int, int, int, int], str]
) -> Markup:
    """A heat map of counts (classes, classes), shaded by the share of the row."""
    totals = counts.sum(axis=1)

    def cell(row: int, column: int) -> Cell:
        count = int(counts[row, column])
        share = count / totals[row] if totals[row] else 0.0
        return Cell(
            intensity=float(share) ** 0.5,
            text=str(count) if count else "",
            title=sentence(row, column, count, int(totals[row])),
            tone="first" if row == column else "second",
        )

    side = range(len(names))
    return heat_map(
        [[cell(row, column) for column in side] for row in side],
        title="Confusion matrix; the arrow keys walk through its fields",
        rows=names,
        columns=names,
        row_label="true",
        column_label="taken for",
    )


def _full_map(metrics: Metrics, labels: Sequence[str]) -> Markup:
    def sentence(row: int, column: int, count: int, total: int) -> str:
        said = "right" if row == column else f"taken for {labels[column]}"
        share = f" ({percent(count / total)})" if total else ""
        return f"{labels[row]}, {said}: {count:,} of {total:,}{share}"

    return _map(metrics.confusion_matrix(), labels, sentence)


def _grouped_map(metrics: Metrics, labels: Sequence[str]) -> Markup:
    size = ceil(len(labels) / _GRID)
    groups = ceil(len(labels) / size)
    counts = np.zeros((groups, groups), np.int64)
    inside = np.zeros(groups, np.int64)  # confusions between two classes of one group
    for pair in metrics.confusions:
        counts[pair.true // size, pair.predicted // size] += pair.count
        if pair.true != pair.predicted and pair.true // size == pair.predicted // size:
            inside[pair.true // size] += pair.count
    names = [
        f"{labels[g * size]} … {labels[min((g + 1) * size, len(labels)) - 1]}"
        for g in range(groups)
    ]

    def sentence(row: int, column: int, count: int, total: int) -> str:
        if row == column:
            return f"{names[row]}: {count:,} of {total:,} stay here, {inside[row]:,} of them wrong"
        return f"{names[row]}, taken for {names[column]}: {count:,} of {total:,}"

    return _map(counts, [f"{labels[g * size]} …" for g in range(groups)], sentence)

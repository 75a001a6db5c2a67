"""Certificates of several exported folders side by side: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluate.metrics import Estimate
from .markup import Markup, element
from .page import estimate, html_page, number_cell, paragraph, table, text_cell

_HEADS = [
    "folder", "target", "gate", "top-1", "drop, points", "same answer", "logits differ by at most",
    "convolutions", "MB", "not involved",
]  # fmt: skip


def certificates_page(
    certificates: Sequence[Mapping[str, Any]], failed: Mapping[str, str], sizes: Mapping[str, int]
) -> Markup:
    """The page: a row for each certificate, as `Certificate.to_json` gives it, by folder; below,
    what could not be measured and why. `sizes` are bytes by folder."""
    rows = [_row(one, sizes.get(str(one["folder"]))) for one in certificates]
    first = next(iter(certificates), None)
    held = sum(bool(one["ok"]) for one in certificates)
    said = f"{held} of {len(certificates) + len(failed)} folders hold their gate."
    where = ""
    if first is not None:
        where = (
            f" Measured on {first['n']} pictures, split {first['split']} of {first['data']}, "
            f"each file by its own runtime; intervals are of 95 %."
        )
    lost = [
        element("li", None, element("b", None, folder), f": {why}")
        for folder, why in failed.items()
    ]
    return html_page(
        "Certificates",
        element("h1", None, "Certificates"),
        paragraph(said + where),
        table(_HEADS, rows, caption="The exported files", numbers_from=3, sortable=True),
        *([element("h2", None, "Not measured"), element("ul", None, *lost)] if failed else []),
    )


def _row(one: Mapping[str, Any], size: int | None) -> list[Markup]:
    found = one["comparison"]
    drop = None if found is None else found["drop"]
    counts = ", ".join(f"{count} {name}" for name, count in one["convolutions"].items())
    dash = element("td", None, "–")
    return [
        text_cell(str(one["folder"])),
        element("td", None, f"{one['format']}, {one['precision']} ({one['runtime']})"),
        element("td", None, "holds" if one["ok"] else "FAILS: " + "; ".join(one["problems"])),
        number_cell(estimate(Estimate(**one["top1"])), one["top1"]["value"]),
        dash
        if drop is None
        else number_cell(
            f"{drop['points']:.2f} ({drop['low']:.2f} to {drop['high']:.2f}), "
            f"p {drop['p_value']:.2g}",
            drop["points"],
        ),
        dash
        if found is None
        else number_cell(estimate(Estimate(**found["agreement"])), found["agreement"]["value"]),
        dash
        if found is None
        else number_cell(f"{found['max_logit_error']:.2g}", found["max_logit_error"]),
        element("td", None, counts or "not told"),
        dash if size is None else number_cell(f"{size / 1e6:.2f}", float(size)),
        element("td", None, one["not_involved"] or "–"),
    ]

"""What the report's page is made of: its parts, tables, key numbers, commands."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from ..evaluate.metrics import Estimate
from .markup import Markup, element, join

PARTS = {
    "use": "Intended use and limits",
    "data": "Data",
    "findings": "Data quality",
    "training": "Training",
    "confusion": "Confusion matrix",
    "classes": "Classes",
    "mistakes": "Worst mistakes",
    "calibration": "Confidence",
    "conditions": "Conditions",
    "next": "How to use it next",
}


def section(name: str, *parts: str | Markup) -> Markup:
    """A part of the page, one of `PARTS`, under its heading."""
    heading = element("h2", {"id": f"{name}-title"}, PARTS[name])
    return element("section", {"id": name, "aria-labelledby": f"{name}-title"}, heading, *parts)


def paragraph(*parts: str | Markup) -> Markup:
    """A paragraph."""
    return element("p", None, *parts)


def muted(text: str) -> Markup:
    """Words that stand back."""
    return element("span", {"class": "muted"}, text)


def figures(entries: Sequence[tuple[str, str, str]]) -> Markup:
    """Key numbers side by side: (name, value, remark)."""
    boxes = [
        element(
            "div",
            None,
            element("dt", None, name),
            element("dd", None, value, element("small", None, remark)),
        )
        for name, value, remark in entries
    ]
    return element("dl", {"class": "figures"}, *boxes)


def interval(value: Estimate) -> str:
    """The 95 % interval of a rate, in per cent."""
    return f"({100 * value.low:.1f}–{100 * value.high:.1f})"


def estimate(value: Estimate) -> Markup:
    """A rate in per cent with its interval, a dash where nothing was counted."""
    if value.n == 0:
        return muted("–")
    return join(f"{100 * value.value:.1f} % ", muted(interval(value)))


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[Markup]],
    *,
    caption: str,
    numbers_from: int = 1,
    sortable: bool = False,
) -> Markup:
    """A table of cells (`text_cell`, `number_cell`); columns from `numbers_from` hold numbers."""

    def head(index: int, name: str) -> Markup:
        kind = "number" if index >= numbers_from else None
        inside = element("button", {"type": "button"}, name) if sortable else name
        return element("th", {"scope": "col", "class": kind}, inside)

    top = element("tr", None, *(head(index, name) for index, name in enumerate(heads)))
    kind = {"class": "sortable" if sortable else None}
    inner = element(
        "table",
        kind,
        element("caption", None, caption),
        element("thead", None, top),
        element("tbody", None, *(element("tr", None, *row) for row in rows)),
    )
    high = "scroll tall" if len(rows) > 25 else "scroll"
    # what scrolls must be reachable without a mouse
    region = {"class": high, "tabindex": 0, "role": "region", "aria-label": caption}
    return element("div", region, inner)


def text_cell(text: str | Markup) -> Markup:
    """A cell that heads its row."""
    return element("th", {"scope": "row"}, text)


def number_cell(text: str | Markup, value: float | None = None) -> Markup:
    """A number's cell; `value` is what the column is sorted by."""
    attributes = {"class": "number", "data-value": None if value is None else f"{value:.6g}"}
    return element("td", attributes, text)


def commands(lines: Sequence[str]) -> Markup:
    """Command lines to copy."""
    return element("pre", {"tabindex": 0}, element("code", None, "\n".join(lines)))


def html_page(title: str, *parts: str | Markup) -> Markup:
    """A whole file that needs nothing else, on line or off."""
    style, script = _resource("page.css"), _resource("page.js")
    # nothing may be fetched, and no script runs but ours: names of files and classes are foreign
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{_digest(script)}'"
    )
    top = element(
        "head",
        None,
        element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("title", None, title),
        element("style", None, style),
    )
    main = element("main", None, *parts)
    body = element("body", None, main, element("script", None, script))
    return join(Markup("<!doctype html>\n"), element("html", {"lang": "en"}, top, body))


def _resource(name: str) -> Markup:
    return Markup(files("mobilenet.report").joinpath(name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")

"""Line chart, heat map and scatter plot as SVG, coloured by the page's style sheet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from .markup import Markup, element, join

Format = Callable[[float], str]

_DOTS_UP_TO = 100  # points of one series that still get a dot with a title each


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line; a y of None, NaN or infinity leaves a gap. `tone` picks the colour."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    tone: str = "first"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point that is singled out, with words below it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Band:
    """A named stretch of the x axis, such as a phase of training."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """One dot of a scatter plot, `radius` in pixels; low and high draw an interval in y."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None
    radius: float = 4.0
    label: str = ""
    tone: str = "first"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One field of a heat map: `intensity` 0 ... 1, few words inside, a sentence on hovering."""

    intensity: float
    text: str
    title: str
    tone: str = "first"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A labelled axis from `low` to `high`."""

    label: str
    low: float
    high: float
    form: Format

    def ticks(self, about: int) -> list[float]:
        """Round values inside the axis, about so many."""
        step = _step(self.high - self.low, about)
        first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def percent(value: float) -> str:
    """0.934 as "93.4 %"."""
    return f"{100 * value:.1f} %"


def percent_tick(value: float) -> str:
    """0.934 as "93.4 %", 0.9 as "90 %"."""
    return percent(value).replace(".0", "")


def number(value: float) -> str:
    """A number in three significant digits."""
    return f"{value:.3g}"


def rounded_axis(
    label: str,
    values: Sequence[float | None],
    *,
    form: Format = number,
    zero: bool = False,
    top: float | None = None,
) -> Axis:
    """An axis around the finite `values`, widened to round numbers, from 0 if `zero`, at most to
    `top`."""
    finite = [value for value in values if value is not None and isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    low = min(low, 0.0) if zero else low
    if high == low:
        spread = abs(low) or 1.0
        low, high = (low - spread, high) if high == top else (low, high + spread)
    step = _step(high - low, 4)
    low, high = floor(low / step + 1e-9) * step, ceil(high / step - 1e-9) * step
    return Axis(label=label, low=low, high=high if top is None else min(high, top), form=form)


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x: Axis,
    y: Axis,
    mark: Mark | None = None,
    bands: Sequence[Band] = (),
    width: int = 380,
    height: int = 250,
) -> Markup:
    """Lines over common axes, with a legend where there is more than one."""
    above = 36 if bands else 20 * (len(series) > 1)
    frame = _Frame(x, y, width, height, above=above)
    parts = [frame.bands(bands), frame.axes()]
    for one in series:
        parts.append(_line(frame, one))
    if len(series) > 1:
        parts.append(_legend(frame, [(one.name, one.tone) for one in series]))
    if mark is not None:
        px, py = frame.place(mark.x, mark.y)
        down = {"x1": px, "x2": px, "y1": py, "y2": frame.bottom, "class": "guide"}
        beyond = px > width * 0.6
        words = {"x": px - 6 if beyond else px + 6, "y": frame.bottom - 8, "class": "note"}
        words["text-anchor"] = "end" if beyond else "start"
        parts += [
            element("line", down),
            element("circle", {"cx": px, "cy": py, "r": 4.5, "class": "mark"}),
            element("text", words, mark.text),
        ]
    return _svg(title, width, height, parts)


def scatter(
    points: Sequence[Point],
    *,
    title: str,
    x: Axis,
    y: Axis,
    diagonal: bool = False,
    width: int = 380,
    height: int = 250,
) -> Markup:
    """Dots over common axes, with the line y = x if `diagonal`."""
    frame = _Frame(x, y, width, height, above=0)
    parts = [frame.axes()]
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        (x1, y1), (x2, y2) = frame.place(low, low), frame.place(high, high)
        parts.append(element("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": "guide"}))
    for point in points:
        px, py = frame.place(point.x, point.y)
        if point.low is not None and point.high is not None:
            y1, y2 = frame.place(point.x, point.low)[1], frame.place(point.x, point.high)[1]
            whisker = {"x1": px, "x2": px, "y1": y1, "y2": y2, "class": f"line {point.tone}"}
            parts.append(element("line", whisker))
        dot = {"cx": px, "cy": py, "r": point.radius, "class": f"dot {point.tone}"}
        parts.append(element("circle", dot, element("title", None, point.title)))
        if point.label:
            parts.append(element("text", {"x": px + point.radius + 3, "y": py + 4}, point.label))
    return _svg(title, width, height, parts)


def heat_map(
    cells: Sequence[Sequence[Cell]],
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
) -> Markup:
    """A grid of coloured fields. The page's script lets the arrow keys walk through it."""
    count = max(len(rows), len(columns))
    size = max(10, min(44, 660 // count))
    # longer names are cut; each field's title has them whole
    most = max(4, min(20, max(len(name) for name in (*rows, *columns))))
    left = top = 30 + 7 * most
    width, height = left + size * len(columns) + 8, top + size * len(rows) + 8
    written = size >= 5 + 6 * max(len(cell.text) for line in cells for cell in line)
    parts: list[Markup] = [
        element("text", {"x": left, "y": 14, "class": "axis-label"}, f"{column_label} →"),
        element(
            "text",
            {
                "x": -top,
                "y": 14,
                "class": "axis-label",
                "text-anchor": "end",
                "transform": "rotate(-90)",
            },
            f"← {row_label}",
        ),
    ]
    for index, name in enumerate(rows):
        at = {"x": left - 6, "y": top + (index + 0.5) * size + 4, "text-anchor": "end"}
        parts.append(element("text", at, _shortened(name, most)))
    for index, name in enumerate(columns):
        px = left + (index + 0.5) * size + 4
        at = {"transform": f"translate({px:.1f} {top - 6}) rotate(-90)"}
        parts.append(element("text", at, _shortened(name, most)))
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            parts.append(
                _field(cell, left + column * size, top + row * size, size, written=written)
            )
    return _svg(title, width, height, parts, kind="heat", columns=len(columns))


def _field(cell: Cell, px: float, py: float, size: int, *, written: bool) -> Markup:
    box = {"x": px + 0.5, "y": py + 0.5, "width": size - 1, "height": size - 1}
    shade = f"{min(max(cell.intensity, 0.0), 1.0):.2f}"
    inside = [
        element("title", None, cell.title),
        element("rect", {**box, "class": "ground"}),
        element("rect", {**box, "class": f"field {cell.tone}", "fill-opacity": shade}),
    ]
    if cell.text and written:
        at = {"x": px + size / 2, "y": py + size / 2 + 4, "text-anchor": "middle"}
        at["class"] = ("small " if size < 34 else "") + ("on" if cell.intensity > 0.6 else "")
        inside.append(element("text", at, cell.text))
    return element("g", {"class": "cell"}, *inside)


class _Frame:
    """The axes' place in the picture, and points in it."""

    def __init__(self, x: Axis, y: Axis, width: int, height: int, *, above: int) -> None:
        """`above`: pixels that legend and bands' names take between the y label and the axes."""
        self.x, self.y = x, y
        self.left, self.right = 52.0, width - 22.0
        self.top, self.bottom = 26.0 + above, height - 38.0

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x.low) / (self.x.high - self.x.low)
        up = (y - self.y.low) / (self.y.high - self.y.low)
        return (
            self.left + across * (self.right - self.left),
            self.bottom - up * (self.bottom - self.top),
        )

    def axes(self) -> Markup:
        parts = []
        for tick in self.y.ticks(4):
            _, py = self.place(self.x.low, tick)
            at = {"x1": self.left, "x2": self.right, "y1": py, "y2": py, "class": "grid"}
            parts.append(element("line", at))
            text = {"x": self.left - 6, "y": py + 4, "text-anchor": "end"}
            parts.append(element("text", text, self.y.form(tick)))
        for tick in self.x.ticks(6):
            px, _ = self.place(tick, self.y.low)
            at = {"x1": px, "x2": px, "y1": self.bottom, "y2": self.bottom + 4, "class": "axis"}
            parts.append(element("line", at))
            text = {"x": px, "y": self.bottom + 17, "text-anchor": "middle"}
            parts.append(element("text", text, self.x.form(tick)))
        base = {"x1": self.left, "x2": self.right, "y1": self.bottom, "y2": self.bottom}
        middle = (self.left + self.right) / 2
        below = {"x": middle, "y": self.bottom + 33, "text-anchor": "middle", "class": "axis-label"}
        above = {"x": 4, "y": 13, "class": "axis-label"}
        parts += [
            element("line", {**base, "class": "axis"}),
            element("text", below, self.x.label),
            element("text", above, self.y.label),
        ]
        return join(*parts)

    def bands(self, bands: Sequence[Band]) -> Markup:
        parts = []
        for index, band in enumerate(bands):
            x1, x2 = self.place(band.start, self.y.low)[0], self.place(band.end, self.y.low)[0]
            box = {"x": x1, "width": x2 - x1, "y": self.top, "height": self.bottom - self.top}
            parts.append(element("rect", {**box, "class": f"band band{index % 2}"}))
            at = {"x": (x1 + x2) / 2, "y": self.top - 4, "text-anchor": "middle"}
            if x2 - x1 > 6.5 * len(band.text):
                parts.append(element("text", {**at, "class": "band-label"}, band.text))
        return join(*parts)


def _line(frame: _Frame, series: Series) -> Markup:
    parts: list[Markup] = []
    run: list[tuple[float, float]] = []
    pieces = [run]
    dots: list[Markup] = []
    for x, y in zip(series.x, series.y, strict=True):
        if y is None or not isfinite(y):
            run = []
            pieces.append(run)
            continue
        px, py = frame.place(x, y)
        run.append((px, py))
        words = f"{series.name}, {frame.x.label} {frame.x.form(x)}: {frame.y.form(y)}"
        dot = {"cx": px, "cy": py, "r": 2.4, "class": f"dot {series.tone}"}
        dots.append(element("circle", dot, element("title", None, words)))
    for piece in pieces:
        points = " ".join(f"{px:.1f},{py:.1f}" for px, py in piece)
        if len(piece) > 1:
            parts.append(element("polyline", {"points": points, "class": f"line {series.tone}"}))
    return join(*parts, *(dots if len(dots) <= _DOTS_UP_TO else ()))


def _legend(frame: _Frame, entries: Sequence[tuple[str, str]]) -> Markup:
    parts, at = [], frame.left
    for name, tone in entries:
        line = {"x1": at, "x2": at + 16, "y1": 30, "y2": 30, "class": f"line {tone}"}
        parts += [element("line", line), element("text", {"x": at + 21, "y": 34}, name)]
        at += 37 + 6.5 * len(name)
    return join(*parts)


def _svg(
    title: str,
    width: int,
    height: int,
    parts: Sequence[Markup],
    *,
    kind: str = "",
    columns: int | None = None,
) -> Markup:
    attributes = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "class": f"plot {kind}".strip(),
        "role": "img",
        "aria-label": title,
        "data-columns": columns,
        "tabindex": None if columns is None else 0,
    }
    return element("svg", attributes, *parts)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _step(span: float, about: int) -> float:
    """The round number (1, 2 or 5 times a power of ten) that cuts `span` in about so many."""
    raw = span / about
    power = 10.0 ** floor(log10(raw))
    return next(power * unit for unit in (1, 2, 5, 10) if raw <= power * unit * 1.0001)

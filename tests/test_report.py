"""The report: numbers that are in it, text that must not become markup, plots that are to scale."""

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mobilenet import CheckpointError
from mobilenet.checkpoint import read_model_json, write_model_json
from mobilenet.data import ArraySplit, Dataset, FileSplit, scan
from mobilenet.evaluate import Evaluation
from mobilenet.evaluate.metrics import outcomes_of, summarise
from mobilenet.report import gather, write_report
from mobilenet.report.history import best_epoch, read_epochs
from mobilenet.report.markup import Markup, element, join
from mobilenet.report.mistakes import worst_mistakes
from mobilenet.report.plots import (
    Axis,
    Band,
    Cell,
    Mark,
    Point,
    Series,
    heat_map,
    line_chart,
    number,
    percent,
    percent_tick,
    rounded_axis,
    scatter,
)

EVIL = "<script>alert(1)</script>\"' onload=x &amp;"
JPEG = "data:image/jpeg;base64,"
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Every tag with its attributes, the text outside styles and scripts; checks the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data + " "


def evaluation(labels: Sequence[str], *, n: int, split: str = "test") -> Evaluation:
    """Of a classifier that is right most of the time."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, len(labels), n)
    logits = rng.normal(size=(n, len(labels))) + 3 * np.eye(len(labels))[truth]
    outcomes = outcomes_of(logits, truth, np.arange(n))
    return Evaluation(
        model="run",
        data="DATA",
        split=split,
        runtime="torch 9.9 on cpu",
        seconds=1.5,
        labels=tuple(labels),
        metrics=summarise(outcomes, labels),
        outcomes=outcomes,
    )


def dataset(labels: Sequence[str], truth: np.ndarray) -> Dataset:
    """Pictures of one colour each: those measured under test, two a class under train."""
    colours = np.random.default_rng(1).integers(0, 256, (len(truth), 1, 1, 3), np.uint8)
    images = np.tile(colours, (1, 40, 30, 1))
    twice = np.repeat(np.arange(len(labels)), 2)
    train = np.zeros((len(twice), 8, 8, 3), np.uint8)
    splits = {"train": ArraySplit(EVIL, train, twice), "test": ArraySplit(EVIL, images, truth)}
    return Dataset(kind="array", source="DATA", classes=tuple(labels), splits=dict(splits))


def epoch_line(epoch: int, **changed: object) -> str:
    """One line of metrics.jsonl."""
    record = {
        "kind": "epoch",
        "phase": "head" if epoch < 2 else "all",
        "epoch": epoch,
        "step": 10 * epoch,
        "seconds": 5.0 * epoch,
        "lr": 0.1 / (epoch + 1),
        "train_loss": 1.0 / (epoch + 1),
        "train_top1": 0.5 + epoch / 20,
        "val_loss": 1.1 / (epoch + 1),
        "val_top1": [0.5, 0.7, 0.9, 0.8][epoch],
        "img_per_s": 300.0,
    }
    return json.dumps({**record, **changed}) + "\n"


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the small run with four epochs of metrics."""
    folder = tmp_path / "my run"
    folder.mkdir()
    weights = "model.safetensors"
    (folder / weights).write_bytes((small_run / weights).read_bytes())
    provenance = {
        "command": "mobilenet train",
        "machine": {"cpu": "Z80", "cores": 2, "governor": None},
        "versions": {"torch": "9.9"},
        "options": {"seed": 41, "model": {"name": EVIL}},
    }
    write_model_json(folder, {**read_model_json(small_run), "provenance": provenance})
    (folder / "metrics.jsonl").write_text("".join(map(epoch_line, range(4))))
    return folder


def report(run: Path, labels: Sequence[str], *, n: int = 300) -> str:
    """The report of a run on made-up pictures."""
    measured = evaluation(labels, n=n)
    data = dataset(labels, measured.outcomes.labels)
    gathered = gather(measured, data, scan=scan(data, workers=0), command=f"train {EVIL}")
    return write_report(run, gathered).read_text()


def test_the_page_is_whole_and_needs_nothing_else(run: Path) -> None:
    text = report(run, ["cat", "dog", "owl"])
    page = Page(text)
    assert not re.search(r"https?://|@import|url\(", text)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or JPEG).startswith(JPEG)
        assert (attributes.get("href") or "#").startswith("#")
    anchors = {a["href"] for tag, a in page.tags if tag == "a"}
    sections = [a["id"] for tag, a in page.tags if tag == "section"]
    assert anchors == {f"#{name}" for name in sections}
    assert sections == [
        "use",
        "data",
        "findings",
        "training",
        "confusion",
        "classes",
        "mistakes",
        "calibration",
        "conditions",
        "next",
    ]


def test_only_the_page_s_own_script_may_run(run: Path) -> None:
    text = report(run, ["cat", "dog"])
    scripts = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policies = [a["content"] for tag, a in Page(text).tags if "http-equiv" in a and tag == "meta"]
    assert policies == [
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    ]


def test_foreign_names_stay_text(run: Path) -> None:
    labels = [EVIL, "</table></svg><img src=x onerror=alert(1)>", "{{7*7}}", "<!--"]
    text = report(run, labels)
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert text.count("<!--") == 0
    for label in labels:
        assert label in page.text
    thumbnails = [a for tag, a in page.tags if tag == "img"]
    assert all(a["src"] != "x" and "onerror" not in a for a in thumbnails)
    assert any(EVIL in (a["alt"] or "") for a in thumbnails)


def test_what_is_measured_is_on_the_page(run: Path) -> None:
    labels = ["cat", "dog", "owl"]
    found = evaluation(labels, n=300).metrics
    page = Page(report(run, labels))
    text = re.sub(r"\s+", " ", page.text)
    half = 50 * (found.top1.high - found.top1.low)
    assert f"{100 * found.top1.value:.1f} % right ± {half:.1f}" in text
    assert f"of 300 test images; the true rate lies between {100 * found.top1.low:.1f}" in text
    for row in found.per_class:
        for rate in (row.f1, row.precision, row.recall):
            interval = f"({100 * rate.low:.1f}–{100 * rate.high:.1f})"
            assert f"{100 * rate.value:.1f} % {interval}" in text
    matrix = found.confusion_matrix()
    for i, true in enumerate(labels):
        for j, said in enumerate(labels):
            told = "right" if i == j else f"taken for {said}"
            assert f"{true}, {told}: {matrix[i, j]} of {matrix[i].sum()}" in text
    assert f"Expected calibration error {100 * found.ece:.1f} %" in text
    assert "best in epoch 3: 90.0 %" in text
    assert "torch 9.9 on cpu" in text
    assert f"mobilenet predict '{run}' PICTURE" in text
    contract = json.loads((run / "model.json").read_text())
    assert contract["weights"]["sha256"] in text
    assert "machine cpu Z80; cores 2; governor – versions torch 9.9 seed 41" in text
    assert json.dumps(EVIL) in text


def test_key_numbers_are_those_of_the_network(run: Path) -> None:
    from mobilenet.checkpoint import load_model

    loaded = load_model(run)
    params = sum(parameter.numel() for parameter in loaded.module().parameters())
    megabytes = (run / "model.safetensors").stat().st_size / 1e6
    text = re.sub(r"\s+", " ", Page(report(run, ["cat", "dog"])).text)
    assert f"{params:,}" in text
    assert f"{megabytes:.1f} MB" in text
    assert "48 × 48" in text


@pytest.mark.parametrize("classes", [1, 2, 30, 31, 1000])
def test_any_number_of_classes(run: Path, classes: int) -> None:
    labels = [f"class {index}" for index in range(classes)]
    text = report(run, labels, n=400)
    assert len(text.encode()) < 5e6
    page = Page(text)
    maps = [a for tag, a in page.tags if tag == "svg" and "heat" in (a["class"] or "")]
    columns = classes if classes <= 30 else -(-classes // -(-classes // 30))
    assert [a["data-columns"] for a in maps] == [str(columns)]
    cells = sum(tag == "g" and a.get("class") == "cell" for tag, a in page.tags)
    assert cells == columns**2
    fields = re.findall(r": (\d+) of \d+ stay here, (\d+) of them wrong", page.text)
    if classes > 30:  # on the groups' diagonal: right, and wrong within the group
        found = evaluation(labels, n=400).metrics
        wrong = sum(int(within) for _, within in fields)
        assert sum(int(stay) for stay, _ in fields) - wrong == round(found.top1.value * 400)


def test_a_run_without_metrics_check_or_mistakes(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    labels = ["cat", "dog"]
    truth = np.array([0, 1, 1])
    outcomes = outcomes_of(9.0 * np.eye(2)[truth], truth, np.arange(3))
    perfect = Evaluation(
        model="run",
        data="DATA",
        split="val",
        runtime="",
        seconds=0.0,
        labels=tuple(labels),
        metrics=summarise(outcomes, labels),
        outcomes=outcomes,
    )
    data = dataset(labels, truth)
    data = Dataset(
        kind="array", source="DATA", classes=data.classes, splits={"val": data.splits["test"]}
    )
    page = Page(write_report(run, gather(perfect, data)).read_text())
    assert "No epochs were recorded." in page.text
    assert "The data was not checked." in page.text
    assert "No image was classified wrongly." in page.text
    assert "watched during training" in page.text


def test_findings_name_files_and_reasons(run: Path, tmp_path: Path, pictures: list[Path]) -> None:
    torn = tmp_path / "torn <b>.png"
    torn.write_bytes(b"")
    paths = [str(pictures[0]), str(pictures[1]), str(torn)]
    splits = {
        "train": FileSplit(paths, [0, 1, 1]),
        "test": FileSplit([str(pictures[0]), str(pictures[0])], [0, 1]),
    }
    data = Dataset(kind="csv", source="DATA", classes=("cat", "dog"), splits=dict(splits))
    measured = evaluation(["cat", "dog"], n=2)
    text = write_report(run, gather(measured, data, scan=scan(data, workers=0))).read_text()
    page = Page(text)
    assert f"{torn}: the file is empty" in page.text
    assert "same image under several labels" in page.text
    assert "kind: csv" in page.text


# ------------------------------------------------------------------------------- worst mistakes


def test_worst_mistakes_come_first_with_their_pictures() -> None:
    labels = ["a", "b", "c"]
    measured = evaluation(labels, n=200)
    outcomes = measured.outcomes
    split = dataset(labels, outcomes.labels).splits["test"]
    found = worst_mistakes(outcomes, split, labels, most=5)
    wrong = np.flatnonzero(outcomes.predicted != outcomes.labels)
    worst = sorted(wrong, key=lambda at: -outcomes.loss[at])[:5]
    for mistake, at in zip(found, worst, strict=True):
        assert mistake.name == split.name(at)
        assert mistake.true == labels[outcomes.labels[at]]
        assert mistake.predicted == labels[outcomes.predicted[at]]
        assert mistake.true_score == pytest.approx(np.exp(-outcomes.loss[at]))
        assert mistake.predicted_score > mistake.true_score
        assert mistake.picture is not None
        jpeg = base64.b64decode(mistake.picture.removeprefix(JPEG))
        shown = np.asarray(Image.open(io.BytesIO(jpeg)), float)
        assert np.abs(shown - np.asarray(split.read(at), float)).max() < 6
        assert shown.shape == (40, 30, 3)


def test_a_picture_that_is_gone_is_still_listed(tmp_path: Path, run: Path) -> None:
    split = FileSplit([str(tmp_path / "gone.png")], [0])
    outcomes = outcomes_of(np.array([[0.0, 1.0]]), np.array([0]), np.array([0]))
    (mistake,) = worst_mistakes(outcomes, split, ["a", "b"])
    assert mistake.picture is None
    assert mistake.name.endswith("gone.png")


# -------------------------------------------------------------------------------------- history


def test_metrics_survive_a_crash_and_a_resume(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    again = epoch_line(1, val_top1=0.75)
    path.write_text(
        epoch_line(0)
        + epoch_line(1)
        + '{"kind": "step", "loss": 1}\n'
        + '{"kind": "epoch", "epo\n'
        + again
        + epoch_line(2, val_top1=None, val_loss=None)
        + epoch_line(3)[:40]
    )
    epochs = read_epochs(path)
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2]
    assert [epoch.val_top1 for epoch in epochs] == [0.5, 0.75, None]
    assert best_epoch(epochs) == 1
    assert best_epoch(epochs[2:]) is None
    assert read_epochs(tmp_path / "absent") == ()


def test_an_epoch_without_its_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(epoch_line(0) + '{"kind": "epoch", "epoch": 1}\n')
    with pytest.raises(CheckpointError, match="line 2"):
        read_epochs(path)


def test_the_first_of_equally_good_epochs_is_best(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(epoch_line(e, val_top1=0.9) for e in range(4)))
    assert best_epoch(read_epochs(path)) == 0


# --------------------------------------------------------------------------- markup and plots


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", {"title": EVIL, "id": None, "width": 3.14159}, EVIL)
    assert inner == (f'<b title="{html.escape(EVIL)}" width="3.1">{html.escape(EVIL)}</b>')
    assert element("p", None, inner, "<") == f"<p>{inner}&lt;</p>"
    assert isinstance(join("<", Markup("<i></i>")), Markup)
    assert join("<", Markup("<i></i>")) == "&lt;<i></i>"


def points(svg: str, tone: str) -> list[list[tuple[float, float]]]:
    """The pieces of the line of one tone, in pixels."""
    root = ElementTree.fromstring(svg)
    lines = [e for e in root.iter("polyline") if e.get("class") == f"line {tone}"]
    return [
        [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]
        for line in lines
    ]


def test_lines_are_to_scale_and_gaps_stay_open() -> None:
    x = Axis(label="epoch", low=0.0, high=10.0, form=number)
    y = Axis(label="<loss>", low=0.0, high=4.0, form=number)
    values = [4.0, 2.0, None, 1.0, float("nan"), 0.0, 3.0]
    svg = line_chart(
        [Series(name="a & b", x=range(7), y=values), Series(name="c", x=[0], y=[1], tone="second")],
        title="t",
        x=x,
        y=y,
        mark=Mark(x=3, y=1.0, text="<best>"),
        bands=[Band(start=0, end=5, text="head")],
    )
    first, second = points(svg, "first")
    (x0, y0), (x1, y1) = first
    assert len(second) == 2
    per_unit = x1 - x0
    assert y1 - y0 > 0  # down the page, from 4 to 2
    loss_unit = (y1 - y0) / 2
    (x5, y5), (x6, y6) = second
    assert (x5 - x0, x6 - x0) == pytest.approx((5 * per_unit, 6 * per_unit), abs=0.2)
    assert (y5 - y0, y6 - y0) == pytest.approx((4 * loss_unit, loss_unit), abs=0.2)
    titles = [e.text for e in ElementTree.fromstring(svg).iter("title")]
    assert "a & b, epoch 3: 1" in titles
    assert len(titles) == 6


def test_intervals_and_dots_are_to_scale() -> None:
    axis = Axis(label="", low=0.0, high=1.0, form=percent_tick)
    dots = [
        Point(x=0.25, y=0.5, low=0.25, high=1.0, title="n = 3", label="v2"),
        Point(x=1.0, y=0.0, title="n = 9"),
    ]
    root = ElementTree.fromstring(scatter(dots, title="t", x=axis, y=axis, diagonal=True))
    circles = [(float(e.get("cx", 0)), float(e.get("cy", 0))) for e in root.iter("circle")]
    (guide,) = [e for e in root.iter("line") if e.get("class") == "guide"]
    left, bottom, right, top = (float(guide.get(key, 0)) for key in ("x1", "y1", "x2", "y2"))
    assert circles[0] == pytest.approx((left + (right - left) / 4, (top + bottom) / 2), abs=0.2)
    assert circles[1] == pytest.approx((right, bottom), abs=0.2)
    (whisker,) = [e for e in root.iter("line") if e.get("class") == "line first"]
    ends = sorted(float(whisker.get(key, 0)) for key in ("y1", "y2"))
    assert ends == pytest.approx([top, bottom - (bottom - top) / 4], abs=0.2)


def test_heat_maps_shade_by_intensity_and_keep_names_whole_in_titles() -> None:
    name = "a very long name of a class <x>"
    cells = [[Cell(intensity=0.25, text="7", title=name), Cell(intensity=2.0, text="", title="b")]]
    svg = heat_map(
        cells, title="t", rows=[name], columns=["p", "q"], row_label="true", column_label="said"
    )
    root = ElementTree.fromstring(svg)
    shades = [e.get("fill-opacity") for e in root.iter("rect") if e.get("fill-opacity")]
    assert shades == ["0.25", "1.00"]
    assert [e.text for e in root.iter("title")] == [name, "b"]
    written = [e.text for e in root.iter("text")]
    assert "7" in written
    assert f"{name[:19]}…" in written


@pytest.mark.parametrize(
    ("values", "zero", "top", "expected"),
    [
        ([0.61, 0.93], False, 1.0, (0.6, 1.0)),
        ([0.9312, 0.9391], False, 1.0, (0.93, 0.94)),
        ([2.3, 0.4, None, float("inf")], True, None, (0.0, 3.0)),
        ([1.0, 1.0], False, 1.0, (0.0, 1.0)),
        ([5.0], False, None, (4.0, 10.0)),
        ([0.0], False, None, (0.0, 1.0)),
        ([], True, None, (0.0, 1.0)),
    ],
)
def test_axes_end_on_round_numbers(
    values: list[float | None],
    zero: bool,
    top: float | None,
    expected: tuple[float, float],
) -> None:
    axis = rounded_axis("y", values, zero=zero, top=top)
    assert (axis.low, axis.high) == pytest.approx(expected)
    ticks = axis.ticks(4)
    assert 2 <= len(ticks) <= 7
    assert all(axis.low - 1e-9 <= tick <= axis.high + 1e-9 for tick in ticks)
    assert np.diff(ticks) == pytest.approx(np.full(len(ticks) - 1, ticks[1] - ticks[0]))


def test_rates_are_written_in_per_cent() -> None:
    assert (percent(0.934), percent(0.9), percent(1.0)) == ("93.4 %", "90.0 %", "100.0 %")
    assert (percent_tick(0.934), percent_tick(0.9), percent_tick(1.0)) == (
        "93.4 %",
        "90 %",
        "100 %",
    )

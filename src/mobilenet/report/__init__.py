"""The report of a run: one HTML file that needs nothing else, on line or off."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import read_model_json
from ..checkpoint.contract import WEIGHTS_FILE, read_spec
from ..cost import count
from ..data import Dataset, ScanReport
from ..durable import write_atomically
from ..evaluate import Evaluation
from . import sections
from .confusion import confusion_part
from .history import read_epochs
from .markup import Markup
from .mistakes import Mistake, worst_mistakes
from .page import html_page, interval
from .plots import percent

FILE_NAME = "report.html"


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What the report says beyond what lies in the run folder.

    `counts` holds the images of every split by class; `scan` what the check of the data found,
    None where there was none; `command` repeats the run.
    """

    evaluation: Evaluation
    data_kind: str
    counts: Mapping[str, Mapping[str, int]]
    scan: ScanReport | None
    mistakes: Sequence[Mistake]
    command: str | None


def gather(
    evaluation: Evaluation,
    dataset: Dataset,
    *,
    scan: ScanReport | None = None,
    command: str | None = None,
) -> ReportData:
    """Count the splits of `dataset` and read the pictures of the worst mistakes from it."""
    split = dataset.splits[evaluation.split]
    return ReportData(
        evaluation=evaluation,
        data_kind=dataset.kind,
        counts={name: part.counts(dataset.classes) for name, part in dataset.splits.items()},
        scan=scan,
        mistakes=worst_mistakes(evaluation.outcomes, split, evaluation.labels),
        command=command,
    )


def write_report(run: Path, data: ReportData) -> Path:
    """Write `report.html` into a run folder and return its path.

    Reads `model.json`, `metrics.jsonl` and the size of the weights there. Raises CheckpointError
    where the run is none.
    """
    contract = read_model_json(run)
    page = _page(run, contract, data)
    path = run / FILE_NAME
    write_atomically(path, page.encode("utf-8", "replace"))  # a file's name may not be Unicode
    return path


def _page(run: Path, contract: Mapping[str, Any], data: ReportData) -> Markup:
    evaluation = data.evaluation
    wrong = evaluation.metrics.n - int(evaluation.outcomes.correct.sum())
    parts = {
        "use": sections.use_and_limits(evaluation),
        "data": sections.data_part(data.counts, data.data_kind, evaluation),
        "findings": sections.findings_part(data.scan),
        "training": sections.curves(read_epochs(run / "metrics.jsonl")),
        "confusion": confusion_part(evaluation),
        "classes": sections.classes_part(evaluation, data.counts.get("train")),
        "mistakes": sections.mistakes_part(data.mistakes, wrong),
        "calibration": sections.calibration_part(evaluation),
        "conditions": sections.conditions_part(
            contract["provenance"],
            {
                "measured with": evaluation.runtime,
                "measured in": f"{evaluation.seconds:.1f} s",
                "weights sha256": contract["weights"]["sha256"],
            },
            data.command,
        ),
        "next": sections.next_part(run, evaluation.data, data.scan),
    }
    title = f"{contract['model']['name']} on {evaluation.data}"
    head = _head(run, contract, evaluation, title)
    return html_page(title, head, *parts.values())


def _head(run: Path, contract: Mapping[str, Any], evaluation: Evaluation, title: str) -> Markup:
    """The verdict, key numbers and the way to the other parts."""
    metrics = evaluation.metrics
    size = contract["preprocess"]["size"]
    cost = count(read_spec(contract).network(), size)
    weights = (run / WEIGHTS_FILE).stat().st_size
    return sections.head(
        title,
        evaluation,
        [
            ("Top-1", percent(metrics.top1.value), interval(metrics.top1)),
            ("Top-5", percent(metrics.top5.value), interval(metrics.top5)),
            ("Size", f"{weights / 1e6:.1f} MB", "float32 weights"),
            ("Parameters", f"{cost.params / 1e6:.2f} M", f"{cost.params:,}"),
            ("Multiply-adds", f"{cost.madds / 1e6:.0f} M", "an image"),
            ("Input", f"{size} × {size}", "pixels, RGB"),
        ],
    )

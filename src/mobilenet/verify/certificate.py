"""What `verify` found, as it is written and printed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..device import DeviceReport
from ..evaluate.metrics import CONFIDENCE, Estimate
from ..evaluate.paired import Drop
from ..runtime import Machine

FILE = "certificate.json"


@dataclass(frozen=True, kw_only=True)
class GoldenCheck:
    """The exported file and this machine's preprocessing on the golden images.

    `max_logit_error` is against the float network's logits, `max_input_error` against the input
    tensors that were exported; each beside the most that is accepted.
    """

    ok: bool
    images: int
    max_logit_error: float
    logit_tolerance: float
    max_input_error: float
    input_tolerance: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The float run, and the exported file beside it picture by picture.

    `agreement` is the fraction with the same first class; errors are absolute, of logits.
    """

    run: Path
    top1: Estimate
    drop: Drop
    agreement: Estimate
    max_logit_error: float
    mean_logit_error: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was verified, on which pictures, with what, and whether the gate holds.

    `ok` needs the golden check and a drop of at most `max_drop` points; `problems` says what
    failed. Without the float run there is no `comparison`, so that the gate cannot hold.
    `data_sha256` is of the labels and stored bytes of the pictures, in order. `convolutions` counts
    those that really ran in which precision, where the runtime tells; `not_involved` names the
    hardware that the file is meant for and that had no part in this. `device` is where the file
    ran, None on this machine; `machine` is always this one.
    """

    ok: bool
    problems: tuple[str, ...]
    max_drop: float
    top1: Estimate
    comparison: Comparison | None
    golden: GoldenCheck
    data: str
    split: str
    data_sha256: str
    n: int
    folder: Path
    format: str
    artifact_sha256: str
    weights_sha256: str
    runtime: str
    precision: str
    convolutions: Mapping[str, int]
    not_involved: str | None
    threads: int
    device: DeviceReport | None
    versions: Mapping[str, str]
    machine: Machine
    seconds: float
    date: str

    def to_json(self) -> dict[str, Any]:
        """A JSON object; rates are fractions, drops percentage points, no number is null."""
        text = json.dumps(asdict(self), default=str)
        return json.loads(text, parse_constant=lambda _: None)

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [f"exported  top-1 {_percent(self.top1)}"]
        if (found := self.comparison) is not None:
            drop = found.drop
            lines += [
                f"float     top-1 {_percent(found.top1)}",
                f"drop      {drop.points:.2f} points ({drop.low:.2f} to {drop.high:.2f}; "
                f"McNemar p = {drop.p_value:.3g}; right only in float {drop.only_float}, "
                f"only exported {drop.only_exported})",
                f"agreement {_percent(found.agreement)}",
                f"logits    differ by at most {found.max_logit_error:.2g}, "
                f"{found.mean_logit_error:.2g} on average",
            ]
        golden = self.golden
        lines += [
            f"golden    {golden.images} images: logits within {golden.max_logit_error:.2g} "
            f"(accepted {golden.logit_tolerance:g}), inputs within {golden.max_input_error:.2g}",
            *_device_lines(self.device),
            f"measured  {self.n} images, split {self.split} of {self.data}, "
            f"{self.runtime} in {self.precision}{self._counts()}",
            *([f"not run   {self.not_involved}"] if self.not_involved else []),
            f"gate      {'holds' if self.ok else 'FAILS'}: drop at most {self.max_drop:g} points"
            + "".join(f"\n          {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)

    def _counts(self) -> str:
        counts = ", ".join(f"{count} in {name}" for name, count in self.convolutions.items())
        return f" (convolutions: {counts})" if counts else ""


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """Those of several exported folders. `failed` says why others were not measured, `page` is the
    matrix of all as HTML. `ok` where every folder has a certificate whose gate holds."""

    ok: bool
    certificates: tuple[Certificate, ...]
    failed: Mapping[str, str]
    page: Path

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "ok": self.ok,
            "certificates": [one.to_json() for one in self.certificates],
            "failed": dict(self.failed),
            "page": str(self.page),
        }

    def __str__(self) -> str:
        """A line for each folder, and where the page is."""
        width = max(len(one.folder.name) for one in self.certificates) if self.certificates else 0
        lines = [
            f"{one.folder.name:<{width}}  {'holds' if one.ok else 'FAILS'}  "
            f"top-1 {100 * one.top1.value:.2f} %"
            + (
                ""
                if one.comparison is None
                else f", drop {one.comparison.drop.points:.2f}, same answer "
                f"{100 * one.comparison.agreement.value:.2f} %"
            )
            + f"  {one.runtime} in {one.precision}"
            + "".join(f"\n    {problem}" for problem in one.problems)
            for one in self.certificates
        ]
        lines += [f"{name}  not measured: {why}" for name, why in self.failed.items()]
        return "\n".join([*lines, f"side by side: {self.page}"])


def _device_lines(report: DeviceReport | None) -> list[str]:
    if report is None:
        return []
    bound = f"cores {report.cores}" if report.cores else "any core"
    lines = [
        f"device    {report.device}: {report.system}, {report.cpu or 'unknown processor'}, "
        f"{report.instruction_set}, threads: {report.threads}, {bound}",
        f"latency   p50 {report.run.p50_ms:.2f} ms, p90 {report.run.p90_ms:.2f} ms "
        f"({report.run.runs} runs)",
    ]
    if (whole := report.prepare_and_run) is not None:
        lines.append(
            f"          from decoded pictures p50 {whole.p50_ms:.2f} ms, p90 {whole.p90_ms:.2f} ms"
        )
    for name in ("temperatures", "clocks"):
        if before := report.before.get(name):
            after = dict(report.after.get(name, []))
            changes = [f"{key} {value} -> {after.get(key)}" for key, value in before[:4]]
            lines.append(f"          {name}: {', '.join(changes)}")
    return lines


def _percent(estimate: Estimate) -> str:
    return (
        f"{100 * estimate.value:6.2f} % ({100 * estimate.low:.2f} to {100 * estimate.high:.2f} "
        f"with {100 * CONFIDENCE:.0f} % confidence)"
    )

"""What `quantize` reports."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..evaluate.metrics import Estimate
from ..evaluate.paired import Drop
from ..evaluate.scenes import SceneDrop
from ..tasks import SceneScores

FILE, PAGE = "quantisation.json", "quantisation.html"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What was measured on pictures that had no part in the repair. Without labels the float
    network's answers stand in for them."""

    float_top1: Estimate
    int8_top1: Estimate
    drop: Drop
    agreement: Estimate

    def lines(self) -> list[str]:
        """A few lines for people."""
        drop = self.drop
        return [
            f"float     top-1 {100 * self.float_top1.value:.2f} %",
            f"int8      top-1 {100 * self.int8_top1.value:.2f} %",
            f"drop      {drop.points:.2f} points ({drop.low:.2f} to {drop.high:.2f}; "
            f"McNemar p = {drop.p_value:.3g}; right only in float {drop.only_float}, only "
            f"in int8 {drop.only_exported})",
            f"agreement {100 * self.agreement.value:.2f} % "
            f"({100 * self.agreement.low:.2f} to {100 * self.agreement.high:.2f})",
        ]

    def figures(self) -> list[tuple[str, str, str]]:
        """Key numbers of the page: name, value, remark."""
        drop = self.drop
        return [
            ("float32", f"{100 * self.float_top1.value:.2f} %", "top-1"),
            ("int8", f"{100 * self.int8_top1.value:.2f} %", "top-1"),
            ("Drop", f"{drop.points:.2f}", f"points ({drop.low:.2f} to {drop.high:.2f})"),
            ("McNemar", f"{drop.p_value:.3g}", "p, exact and two-sided"),
            ("Agreement", f"{100 * self.agreement.value:.2f} %", "same first class"),
        ]


@dataclass(frozen=True, kw_only=True)
class Share:
    """A part of a whole, of which no interval is known."""

    value: float


@dataclass(frozen=True, kw_only=True)
class SceneGate:
    """What was measured of a network for scenes: the task's own figures of both networks, what the
    primary one lost, and how much of what either finds both find."""

    float_scores: SceneScores
    int8_scores: SceneScores
    drop: SceneDrop
    agreement: Share

    def lines(self) -> list[str]:
        """A few lines for people."""
        drop, primary = self.drop, self.float_scores.primary
        return [
            f"float     {primary} {100 * self.float_scores.value:.2f} %",
            f"int8      {primary} {100 * self.int8_scores.value:.2f} %",
            f"drop      {drop.points:.2f} points ({drop.low:.2f} to {drop.high:.2f})",
            f"agreement {100 * self.agreement.value:.2f} % of what either finds",
        ]

    def figures(self) -> list[tuple[str, str, str]]:
        """Key numbers of the page: name, value, remark."""
        drop, primary = self.drop, self.float_scores.primary
        return [
            ("float32", f"{100 * self.float_scores.value:.2f} %", primary),
            ("int8", f"{100 * self.int8_scores.value:.2f} %", primary),
            ("Drop", f"{drop.points:.2f}", f"points ({drop.low:.2f} to {drop.high:.2f})"),
            ("Agreement", f"{100 * self.agreement.value:.2f} %", "of what either finds"),
        ]


AnyGate = Gate | SceneGate


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A step of the ladder: the signal-to-noise ratio of the logits behind it, in dB, on pictures
    held out of the calibration set; dropped (not `kept`) where that did not rise."""

    name: str
    did: str
    snr_db: float
    kept: bool
    seconds: float
    gate: AnyGate | None


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A picture whose first class changed, and the labels of what both networks say; of scenes one
    on which they differ most, and what they find."""

    picture: str
    float_label: str
    int8_label: str


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """The signal-to-noise ratio of a tensor in int8, beside the float network's, in dB."""

    tensor: str
    snr_db: float


@dataclass(frozen=True, kw_only=True)
class Harm:
    """The signal-to-noise ratio of the outputs, in dB, where one tensor or the weights of one
    filter alone are rounded and all else is float32: the lowest are those that hurt most."""

    kind: Literal["tensor", "weights"]
    where: str
    snr_db: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median milliseconds of one image in the native engine, both networks in turns in one run; and
    what was predicted of them by the engine's rates in other networks on this machine."""

    float32_ms: float
    int8_ms: float
    predicted_float32_ms: float
    predicted_int8_ms: float
    runs: int
    threads: int
    instruction_set: str
    cpu: str


@dataclass(frozen=True, kw_only=True)
class Quantisation:
    """What `quantize` did and measured; `ok` where the drop is at most `max_drop` points.

    The float network is the one that was given. Without labels (`labelled` false) its answers stand
    in for them, so that the drop is the part of the answers that changed.
    """

    ok: bool
    max_drop: float
    path: Path
    model: str
    data: str
    split: str
    n: int
    calibrated_on: int
    labelled: bool
    gate: AnyGate
    rungs: tuple[Rung, ...]
    layers: tuple[LayerNoise, ...]
    harms: tuple[Harm, ...]
    flips: tuple[Flip, ...]
    notes: tuple[str, ...]
    float_bytes: int
    int8_bytes: int
    latency: Latency | None  # without the native engine
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object; rates are fractions, drops percentage points."""
        return json.loads(json.dumps(asdict(self), default=str))

    def _latency(self) -> list[str]:
        if self.latency is None:
            return []
        taken = self.latency
        return [
            f"latency   {taken.int8_ms:.2f} ms (float32 {taken.float32_ms:.2f} ms: "
            f"{taken.float32_ms / taken.int8_ms:.2f}x; predicted {taken.predicted_int8_ms:.2f} and "
            f"{taken.predicted_float32_ms:.2f}), engine {taken.instruction_set}, "
            f"{taken.threads} thread, {taken.cpu}"
        ]

    def __str__(self) -> str:
        """A few lines for people."""
        steps = [rung.name for rung in self.rungs if rung.kept]
        return "\n".join(
            [
                f"{self.path}: int8, {self.int8_bytes / 1e6:.2f} MB of weights "
                f"(float32 {self.float_bytes / 1e6:.2f} MB)",
                *self.gate.lines(),
                f"measured  {self.n} images, split {self.split} of {self.data}; calibrated on "
                f"{self.calibrated_on} others",
                f"ladder    {', '.join(steps)}",
                *self._latency(),
                f"gate      {'holds' if self.ok else 'FAILS'}: drop at most {self.max_drop:g} "
                f"points",
                f"report    {self.path / PAGE}",
            ]
        )

"""The numbers of a classifier, from its logits: rates with intervals, confusion, calibration.

NumPy only. Logits are reduced to a few numbers an image (`Outcomes`), of which everything else
is made, so that no logits need be kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CONFIDENCE = 0.95  # of every interval
_Z = 1.959963984540054  # the standard normal's quantile at 0.5 + CONFIDENCE / 2
CALIBRATION_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A rate among n cases and the interval that holds it with 95 % confidence; NaN if n is 0."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a classifier answered for n images; every array is (n,).

    `labels` and `predicted` are class indices, `confidence` the probability of the predicted
    class, `loss` the negative log likelihood (nats) of the true class, `rank` the number of
    classes placed before the true one (0: right), `indices` the images' places in their split.
    """

    labels: Ints
    predicted: Ints
    confidence: Floats
    loss: Floats
    rank: Ints
    indices: Ints

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the predicted class is the true one."""
        return self.rank == 0

    @classmethod
    def join(cls, parts: Sequence["Outcomes"]) -> "Outcomes":
        """Those of several batches, in order."""
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            }
        )


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class: `support` images carry its label, `predicted` got it as the answer.

    Precision is NaN where the class was never predicted, recall where it has no images.
    """

    name: str
    support: int
    predicted: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The images whose confidence lies in (low, high]: mean confidence beside accuracy."""

    low: float
    high: float
    confidence: float
    accuracy: Estimate


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """`count` images of class `true` were taken for class `predicted` (indices)."""

    true: int
    predicted: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """All the numbers of one evaluation of n images.

    `top5` counts the true class among the first min(5, classes) answers; `loss` is the mean
    negative log likelihood (nats); the macro averages are over the classes that have images;
    `confusions` holds every (true, predicted) pair that occurs, right answers included, the most
    frequent first; `ece` is the expected calibration error over `bins`.
    """

    n: int
    top1: Estimate
    top5: Estimate
    loss: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    per_class: tuple[ClassMetrics, ...]
    confusions: tuple[Confusion, ...]
    ece: float
    bins: tuple[ReliabilityBin, ...]

    def confusion_matrix(self) -> Ints:
        """Counts (classes, classes): row the true class, column the predicted one."""
        matrix = np.zeros((len(self.per_class),) * 2, np.int64)
        for pair in self.confusions:
            matrix[pair.true, pair.predicted] = pair.count
        return matrix

    def to_json(self) -> dict[str, Any]:
        """A JSON object; rates are fractions, undefined ones null, confusions name to name."""
        names = [row.name for row in self.per_class]
        confusion: dict[str, dict[str, int]] = {}
        for pair in self.confusions:
            confusion.setdefault(names[pair.true], {})[names[pair.predicted]] = pair.count
        return {
            "top1": self.top1.value,
            "top5": self.top5.value,
            "n": self.n,
            "loss": self.loss,
            "top1_interval": [self.top1.low, self.top1.high],
            "top5_interval": [self.top5.low, self.top5.high],
            "interval_confidence": CONFIDENCE,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "macro_f1": self.macro_f1,
            "ece": self.ece,
            "per_class": {row.name: _class_json(row) for row in self.per_class},
            "confusion": confusion,
            "reliability": [
                {
                    "low": bin_.low,
                    "high": bin_.high,
                    "n": bin_.accuracy.n,
                    "confidence": bin_.confidence,
                    "accuracy": bin_.accuracy.value,
                    "accuracy_interval": [bin_.accuracy.low, bin_.accuracy.high],
                }
                for bin_ in self.bins
            ],
        }


@dataclass(frozen=True, kw_only=True)
class RejectCurve:
    """Answering only at or above a confidence: arrays (thresholds,), from strict to lax.

    `coverage` is the fraction of images that are answered, `accuracy` that of right answers
    among them.
    """

    threshold: Floats
    coverage: Floats
    accuracy: Floats


def wilson(hits: int, n: int) -> Estimate:
    """Wilson's score interval of a proportion (Wilson 1927; Newcombe 1998, method 3)."""
    if n == 0:
        return Estimate(value=nan, low=0.0, high=1.0, n=0)
    z, rate = _Z, hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # at the ends the formula gives 0 and 1 but for rounding
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == n else centre + half
    return Estimate(value=rate, low=low, high=high, n=n)


def f1_score(hits: int, missed: int, false_alarms: int) -> Estimate:
    """F1 of a class; n is the number of images that carry the class or were given it.

    F1 = 2J / (1 + J) grows with J = hits / (hits + missed + false alarms), a proportion, so that
    Wilson's interval of J carries over.
    """
    jaccard = wilson(hits, hits + missed + false_alarms)
    low, value, high = (2 * j / (1 + j) for j in (jaccard.low, jaccard.value, jaccard.high))
    return Estimate(value=value, low=low, high=high, n=jaccard.n)


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """Log probabilities (n, classes) of logits (n, classes), in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def outcomes_of(
    logits: NDArray[np.floating], labels: NDArray[np.integer], indices: NDArray[np.integer]
) -> Outcomes:
    """Reduce logits (n, classes) with true labels (n,) to what the metrics need.

    Equal logits are placed in the order of the classes, as `argmax` does. Raises ValueError where
    a logit is not a number, since comparisons with it would count as right.
    """
    if not np.isfinite(logits).all():
        bad = int(indices[~np.isfinite(logits).all(axis=1)][0])
        raise ValueError(f"logits of image {bad} are not finite")
    log_probabilities = log_softmax(logits)
    labels = labels.astype(np.int64)
    rows = np.arange(len(labels))
    true_logit = logits[rows, labels][:, None]
    earlier = np.arange(logits.shape[1])[None] < labels[:, None]
    ahead = (logits > true_logit) | ((logits == true_logit) & earlier)
    predicted = logits.argmax(axis=1).astype(np.int64)
    return Outcomes(
        labels=labels,
        predicted=predicted,
        confidence=np.exp(log_probabilities[rows, predicted]),
        loss=-log_probabilities[rows, labels],
        rank=ahead.sum(axis=1, dtype=np.int64),
        indices=indices.astype(np.int64),
    )


def summarise(outcomes: Outcomes, classes: Sequence[str]) -> Metrics:
    """All the numbers of `outcomes`; `classes` names every index. Raises ValueError if empty."""
    n = len(outcomes)
    if n == 0:
        raise ValueError("no images to measure")
    confusions = count_confusions(outcomes, len(classes))
    hits = np.bincount(outcomes.labels[outcomes.correct], minlength=len(classes))
    support = np.bincount(outcomes.labels, minlength=len(classes))
    predicted = np.bincount(outcomes.predicted, minlength=len(classes))
    per_class = tuple(
        ClassMetrics(
            name=name,
            support=int(s),
            predicted=int(p),
            precision=wilson(int(h), int(p)),
            recall=wilson(int(h), int(s)),
            f1=f1_score(int(h), int(s - h), int(p - h)),
        )
        for name, h, s, p in zip(classes, hits, support, predicted, strict=True)
    )
    present = [row for row in per_class if row.support]
    # a class that is never predicted has precision 0 here, or ignoring it would be rewarded
    precisions = [row.precision.value if row.predicted else 0.0 for row in present]
    bins = reliability_bins(outcomes)
    return Metrics(
        n=n,
        top1=wilson(int(outcomes.correct.sum()), n),
        top5=wilson(int((outcomes.rank < 5).sum()), n),
        loss=float(outcomes.loss.mean()),
        macro_precision=float(np.mean(precisions)),
        macro_recall=float(np.mean([row.recall.value for row in present])),
        macro_f1=float(np.mean([row.f1.value for row in present])),
        per_class=per_class,
        confusions=confusions,
        ece=sum(b.accuracy.n / n * abs(b.accuracy.value - b.confidence) for b in bins),
        bins=bins,
    )


def count_confusions(outcomes: Outcomes, classes: int) -> tuple[Confusion, ...]:
    """Every (true, predicted) pair that occurs, the most frequent first."""
    pairs, counts = np.unique(outcomes.labels * classes + outcomes.predicted, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple(
        Confusion(true=int(pair // classes), predicted=int(pair % classes), count=int(count))
        for pair, count in zip(pairs[order], counts[order], strict=True)
    )


def reliability_bins(outcomes: Outcomes) -> tuple[ReliabilityBin, ...]:
    """The bins of equal width that hold any image (Guo et al. 2017, arXiv 1706.04599)."""
    places = np.ceil(outcomes.confidence * CALIBRATION_BINS).astype(np.int64) - 1
    bins = []
    for place in np.unique(places):
        inside = places == place
        bins.append(
            ReliabilityBin(
                low=float(place / CALIBRATION_BINS),
                high=float((place + 1) / CALIBRATION_BINS),
                confidence=float(outcomes.confidence[inside].mean()),
                accuracy=wilson(int(outcomes.correct[inside].sum()), int(inside.sum())),
            )
        )
    return tuple(bins)


def reject_curve(outcomes: Outcomes) -> RejectCurve:
    """Coverage and accuracy at every confidence that occurs (equal ones are taken together)."""
    order = np.argsort(-outcomes.confidence, kind="stable")
    confidence = outcomes.confidence[order]
    last = np.append(confidence[1:] != confidence[:-1], True)
    answered = np.arange(1, len(outcomes) + 1)[last]
    right = np.cumsum(outcomes.correct[order])[last]
    return RejectCurve(
        threshold=confidence[last],
        coverage=answered / len(outcomes),
        accuracy=right / answered,
    )


def _class_json(row: ClassMetrics) -> dict[str, Any]:
    found: dict[str, Any] = {"support": row.support, "predicted": row.predicted}
    rates = {"precision": row.precision, "recall": row.recall, "f1": row.f1}
    for name, estimate in rates.items():
        found[name] = estimate.value if estimate.n else None
        found[f"{name}_interval"] = [estimate.low, estimate.high] if estimate.n else None
    return found

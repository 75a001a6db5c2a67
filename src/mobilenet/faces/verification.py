"""Whether two embeddings are of one person: similarities, ROC, accuracy as LFW's (NumPy)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..program import Floats
from .embedding import normalise

Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS = 10
FALSE_ACCEPTS = (1e-1, 1e-2, 1e-3)


@dataclass(frozen=True, kw_only=True, eq=False)
class Roc:
    """Of every different score as threshold, from above all of them down: the share of pairs of
    different people (`far`) and of one (`tar`) that reach it, each (T,)."""

    thresholds: Doubles
    far: Doubles
    tar: Doubles

    @property
    def auc(self) -> float:
        """The area under it."""
        return float((np.diff(self.far) * (self.tar[1:] + self.tar[:-1]) / 2).sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class Verification:
    """How well pairs are told apart. `accuracy` and its standard deviation over `folds`, each
    judged at the threshold that suits the other folds best; `threshold`, the mean of those;
    `tar_at_far`: the share of pairs of one person that are accepted where at most that share of
    others is, NaN where there are too few others to tell; how many `same` and `different` pairs."""

    accuracy: float
    deviation: float
    threshold: float
    auc: float
    tar_at_far: Mapping[float, float]
    roc: Roc
    same: int
    different: int
    folds: int


def cosine_similarity(first: Floats, second: Floats) -> Floats:
    """The cosine (N,) of the angles between pairs of embeddings (N, D), of any length above 0.

    Raises UsageError for other shapes and for embeddings of length 0.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise UsageError(f"embeddings {first.shape} and {second.shape}: expected (N, D) twice")
    return np.einsum("nd,nd->n", normalise(first), normalise(second))


def roc(scores: NDArray, same: Bools) -> Roc:
    """The ROC of scores (N,), higher where a pair is more alike, and whether it is one person's.

    Raises UsageError for scores that are no numbers, and without a pair of either kind.
    """
    values, alike = _pairs(scores, same)
    order = np.argsort(-values, kind="stable")
    values, alike = values[order], alike[order]
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)  # of equal scores
    tar = np.cumsum(alike)[last] / alike.sum()
    far = np.cumsum(~alike)[last] / (~alike).sum()
    return Roc(
        thresholds=np.concatenate([[np.inf], values[last]]),
        far=np.concatenate([[0.0], far]),
        tar=np.concatenate([[0.0], tar]),
    )


def tar_at_far(curve: Roc, far: float, *, different: int) -> float:
    """The largest share of pairs of one person accepted at a false accept rate of at most `far`;
    NaN where one of the `different` pairs is already more than that share."""
    if far * different < 1:
        return float("nan")
    return float(curve.tar[curve.far <= far].max())


def best_threshold(scores: NDArray, same: Bools) -> float:
    """The threshold, midway between two scores, at or above which "one person" is right most often;
    of equally good ones the lowest."""
    values, alike = _pairs(scores, same, both=False)
    order = np.argsort(values, kind="stable")
    values, alike = values[order], alike[order]
    # right with the first k refused and the others accepted
    right = np.concatenate([[0], np.cumsum(~alike)]) + np.concatenate(
        [np.cumsum(alike[::-1])[::-1], [0]]
    )
    between = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    possible = np.concatenate([[True], np.diff(values) > 0, [True]])
    return float(between[np.where(possible, right, -1).argmax()])


def verify_pairs(
    scores: NDArray,
    same: Bools,
    *,
    folds: int = FOLDS,
    false_accepts: Sequence[float] = FALSE_ACCEPTS,
) -> Verification:
    """Measure scores (N,) of pairs against whether they are of one person, as LFW's unrestricted
    protocol does: folds are runs of equal length in the order of the pairs, so that LFW's list
    keeps its own, and no person in two of them.

    Raises UsageError as `roc`, and for fewer pairs than folds or fewer than two folds.
    """
    values, alike = _pairs(scores, same)
    if not 2 <= folds <= len(values):
        raise UsageError(f"{folds} folds of {len(values)} pairs: expected from 2 to {len(values)}")
    accuracies, thresholds = [], []
    for held in np.array_split(np.arange(len(values)), folds):
        others = np.ones(len(values), bool)
        others[held] = False
        threshold = best_threshold(values[others], alike[others])
        thresholds.append(threshold)
        accuracies.append(((values[held] >= threshold) == alike[held]).mean())
    curve, different = roc(values, alike), int((~alike).sum())
    return Verification(
        accuracy=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies)),
        threshold=float(np.mean(thresholds)),
        auc=curve.auc,
        tar_at_far={far: tar_at_far(curve, far, different=different) for far in false_accepts},
        roc=curve,
        same=int(alike.sum()),
        different=different,
        folds=folds,
    )


def _pairs(scores: NDArray, same: Bools, *, both: bool = True) -> tuple[Doubles, Bools]:
    values, alike = np.asarray(scores, np.float64), np.asarray(same, bool)
    if values.ndim != 1 or values.shape != alike.shape or not np.isfinite(values).all():
        raise UsageError(
            f"scores {values.shape} and pairs {alike.shape}: expected one finite score of each pair"
        )
    if both and (alike.all() or not alike.any()):
        raise UsageError(
            f"{int(alike.sum())} of {len(alike)} pairs are of one person: expected both kinds"
        )
    return values, alike

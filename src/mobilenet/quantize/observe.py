"""What a float network's tensors hold, measured on pictures, and the ranges that follow from it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..integer.scheme import LARGEST, Doubles, Place, places
from ..program import Floats, Program
from .calibrate import Range
from .trace import run_float

BINS = 2048

_MOMENTUM = 0.1  # of the moving average, a batch
_SHRINK = np.linspace(1.0, 0.2, 41)  # tops that the searches try, as parts of the extreme


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """Of one tensor: `lows` and `highs` (batches, C) by batch and channel, and how many numbers
    lie in each of `BINS` bins of equal width between its least and greatest."""

    lows: Doubles
    highs: Doubles
    counts: Doubles

    @property
    def extremes(self) -> Range:
        """The least and greatest number."""
        return float(self.lows.min()), float(self.highs.max())

    @property
    def centres(self) -> Doubles:
        """The middle of each bin."""
        low, high = self.extremes
        edges = np.linspace(low, high, BINS + 1)
        return (edges[1:] + edges[:-1]) / 2


def observe(program: Program, batches: Iterable[Floats]) -> dict[Place, Statistics]:
    """Statistics of every tensor that has a range, over all batches of images (N, 3, H, W).

    Two passes: the extremes, then the bins between them. Raises UsageError without a batch, or
    where a number is not finite.
    """
    wanted = frozenset(places(program))
    kept = list(batches)
    if not kept:
        raise UsageError("no pictures to calibrate with")
    lows: dict[Place, list[Doubles]] = {place: [] for place in wanted}
    highs: dict[Place, list[Doubles]] = {place: [] for place in wanted}

    def extremes(place: Place, x: Tensor) -> None:
        if place in wanted:
            lows[place].append(x.amin((0, 2, 3)).double().numpy())
            highs[place].append(x.amax((0, 2, 3)).double().numpy())

    for images in kept:
        run_float(program, images, observe=extremes)
    for place in sorted(wanted):
        if not np.isfinite([*lows[place], *highs[place]]).all():
            raise UsageError(f"{place}: not a number: the weights are damaged, or overflow")
    ends = {place: (np.min(lows[place]), np.max(highs[place])) for place in wanted}
    counts = {place: torch.zeros(BINS, dtype=torch.float64) for place in wanted}

    def fill(place: Place, x: Tensor) -> None:
        if place in wanted:
            low, high = ends[place]
            if high > low:
                # of single precision, in which the last bin's edge may lie below the greatest
                found = torch.histc(x, BINS, float(low), float(high))
                counts[place] += found.double()
            else:
                counts[place][0] += x.numel()

    for images in kept:
        run_float(program, images, observe=fill)
    return {
        place: Statistics(
            lows=np.stack(lows[place]), highs=np.stack(highs[place]), counts=counts[place].numpy()
        )
        for place in wanted
    }


def minmax(seen: Statistics) -> Range:
    """The extremes over all batches."""
    return seen.extremes


def moving_average(seen: Statistics) -> Range:
    """The extremes of each batch, averaged with a momentum of 0.1 (Jacob et al. 2018, 3.1)."""
    low, high = seen.lows[0].min(), seen.highs[0].max()
    for lows, highs in zip(seen.lows[1:], seen.highs[1:], strict=True):
        low += _MOMENTUM * (lows.min() - low)
        high += _MOMENTUM * (highs.max() - high)
    return float(low), float(high)


def percentile(part: float) -> "Calibrator":
    """The range without the least and greatest (100 - part) % of the numbers."""

    def found(seen: Statistics) -> Range:
        share = np.cumsum(seen.counts) / seen.counts.sum()
        centres = seen.centres
        low = centres[np.searchsorted(share, 1 - part / 100)]
        high = centres[min(np.searchsorted(share, part / 100), BINS - 1)]
        return float(low), float(high)

    return found


def least_squares(seen: Statistics) -> Range:
    """The range with the least mean squared error of the rounded and clipped numbers."""
    return _best(seen, lambda parts, rounded: float((parts * (rounded - seen.centres) ** 2).sum()))


def entropy(seen: Statistics) -> Range:
    """The range whose rounded numbers are distributed most like the numbers themselves (the least
    Kullback-Leibler divergence; Migacz, GTC 2017)."""

    def divergence(parts: Doubles, rounded: Doubles) -> float:
        # a bin's share is what its rounded value has, spread over the bins that round to it
        _, group = np.unique(rounded, return_inverse=True)
        held = parts > 0
        spread = np.bincount(group, parts) / np.maximum(np.bincount(group, held), 1)
        inside = (seen.centres >= rounded.min()) & (seen.centres <= rounded.max())
        kept = held & inside
        reference = parts.copy()
        # what is clipped is added to the last bins of the reference, but not of the candidate
        ends = np.flatnonzero(inside)
        reference[ends[0]] += parts[: ends[0]].sum()
        reference[ends[-1]] += parts[ends[-1] + 1 :].sum()
        candidate = np.where(held, spread[group], 0)[kept]
        candidate = candidate / candidate.sum()
        return float((reference[kept] * np.log(reference[kept] / candidate)).sum())

    return _best(seen, divergence)


def _best(seen: Statistics, badness: Callable[[Doubles, Doubles], float]) -> Range:
    """The range with the least badness, given the bins' shares and their centres as rounded."""
    low, high = (min(seen.extremes[0], 0.0), max(seen.extremes[1], 0.0))
    if not high > low:
        return low, high
    parts, centres = seen.counts / seen.counts.sum(), seen.centres
    lows = low * _SHRINK if low < 0 else np.zeros(1)
    highs = high * _SHRINK if high > 0 else np.zeros(1)

    def of(candidate: Range) -> float:
        scale = (candidate[1] - candidate[0]) / LARGEST
        if scale <= 0:
            return np.inf
        rounded = np.rint(np.clip(centres, *candidate) / scale) * scale
        return badness(parts, rounded)

    # one end at a time: they hardly depend on each other
    best = (low, high)
    for _ in range(2):
        best = min(((low_, best[1]) for low_ in lows), key=of)
        best = min(((best[0], high_) for high_ in highs), key=of)
    return float(best[0]), float(best[1])


Calibrator = Callable[[Statistics], Range]

CALIBRATORS: Mapping[str, Calibrator] = {
    "minmax": minmax,
    "moving average": moving_average,
    "99.999 %": percentile(99.999),
    "99.99 %": percentile(99.99),
    "99.9 %": percentile(99.9),
    "entropy": entropy,
    "least squares": least_squares,
}

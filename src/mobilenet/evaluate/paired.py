"""Two classifiers on the same pictures: how much accuracy one loses against the other."""

import math
from dataclasses import dataclass

import numpy as np

from .metrics import wilson


@dataclass(frozen=True, kw_only=True)
class Drop:
    """How much accuracy the exported file loses against the float run, on the same pictures.

    `points` is float minus exported in percentage points, with a 95 % interval (`low`, `high`).
    `only_float` and `only_exported` count the pictures that just one of them gets right;
    `p_value` is McNemar's exact two-sided test of whether that differs by more than chance.
    """

    points: float
    low: float
    high: float
    only_float: int
    only_exported: int
    p_value: float


def compare_answers(reference: np.ndarray, exported: np.ndarray) -> Drop:
    """The drop from the float network's answers to the other's: booleans (N,), right or not."""
    return paired_drop(
        both=int((reference & exported).sum()),
        only_float=int((reference & ~exported).sum()),
        only_exported=int((~reference & exported).sum()),
        neither=int((~reference & ~exported).sum()),
    )


def paired_drop(*, both: int, only_float: int, only_exported: int, neither: int) -> Drop:
    """The difference of two accuracies on the same pictures, given how many each gets right.

    The interval is Newcombe's square-and-add with the correction for correlation (Newcombe 1998,
    Statistics in Medicine 17:2635-2650, method 10).
    """
    n = both + only_float + only_exported + neither
    first, second = wilson(both + only_float, n), wilson(both + only_exported, n)
    association = both * neither - only_float * only_exported
    if association > 0:  # continuity correction
        association = max(association - n / 2, 0)
    spread = math.sqrt(
        (both + only_float)
        * (only_exported + neither)
        * (both + only_exported)
        * (only_float + neither)
    )
    phi = association / spread if spread else 0.0

    def reach(one: float, other: float) -> float:
        # the square is 0 but for rounding where both are equal and phi is 1
        return math.sqrt(max(one**2 - 2 * phi * one * other + other**2, 0))

    difference = (only_float - only_exported) / n
    below = reach(first.value - first.low, second.high - second.value)
    above = reach(first.high - first.value, second.value - second.low)
    return Drop(
        points=100 * difference,
        low=100 * (difference - below),
        high=100 * (difference + above),
        only_float=only_float,
        only_exported=only_exported,
        p_value=mcnemar(only_float, only_exported),
    )


def mcnemar(only_one: int, only_other: int) -> float:
    """The p-value of McNemar's exact two-sided test, from the pictures that just one of two
    classifiers gets right (a sign test of them: Binomial(n, 1/2))."""
    n = only_one + only_other
    term = total = 1  # n choose k, and their sum, in whole numbers
    for k in range(min(only_one, only_other)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / 2**n)

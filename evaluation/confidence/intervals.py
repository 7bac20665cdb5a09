"""Exact intervals for a single error rate, errors / total; p-values of several tests at once.

Curves and areas need a bootstrap instead: see `evaluation.confidence.bootstrap`. NumPy and SciPy
only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Count(NamedTuple):
    """Errors among so many comparisons; as text with their rate, as in 3/1000 = 0.003."""

    errors: int
    total: int

    def __str__(self) -> str:
        rate = f" = {self.errors / self.total:.4g}" if self.total else ""
        return f"{self.errors}/{self.total}{rate}"


class Interval(NamedTuple):
    """Lower and upper end, both included."""

    low: float
    high: float


def clopper_pearson(errors: int, total: int, confidence: float = 0.95) -> Interval:
    """Two-sided interval of a binomial rate that covers it at least as often as stated.

    Both ends are beta quantiles (Clopper and Pearson, Biometrika 1934), each with half of the
    error probability. It treats the trials as independent; comparisons that share people are not,
    so for FNMR over such pairs it is too narrow, and the bootstrap over identities is not.

    Args:
        errors: number of errors.
        total: number of trials; with 0 nothing is known, and the interval is 0 to 1.
        confidence: in (0, 1).

    Raises:
        ValueError: errors outside 0..total, or confidence outside (0, 1).
    """
    if not 0 <= errors <= total:
        raise ValueError(f"{errors} errors in {total} trials: need 0 <= errors <= total")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1, as in 0.95")
    from scipy.special import betaincinv  # takes a while to load, and few need it

    tail = (1 - confidence) / 2
    low = betaincinv(errors, total - errors + 1, tail) if errors else 0.0
    high = betaincinv(errors + 1, total - errors, 1 - tail) if errors < total else 1.0
    return Interval(float(low), float(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values of several tests for their number; each is then compared with the level.

    Step-down (Holm, Scandinavian Journal of Statistics 6, 1979): the i-th smallest of m counts
    m - i + 1 times, and none less than a smaller one; at most 1. It needs no independence.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(steps, 1)
    return [float(value) for value in adjusted]

"""False match and false non-match rates over all thresholds, and the operating points on them.

Counts are kept as whole numbers, so a rate can always be shown as k / N. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.thresholds import OperatingPoint


class EqualErrorRate(NamedTuple):
    """Where FMR and FNMR meet (Maio et al., FVC2000, section 3).

    Attributes:
        value: half the sum of `low` and `high`.
        low: the smaller rate at the chosen side of the crossing.
        high: the larger one.
        threshold: score at that side.
    """

    value: float
    low: float
    high: float
    threshold: float


@dataclass(frozen=True)
class ErrorRates:
    """Errors at every distinct score of both classes.

    Attributes:
        thresholds: (T,) float64, ascending.
        false_non_matches: (T,) mated scores below each threshold.
        false_matches: (T,) non-mated scores at or above it.
        mated: number of mated scores.
        non_mated: number of non-mated scores.
    """

    thresholds: NDArray[np.float64]
    false_non_matches: NDArray[np.int64]
    false_matches: NDArray[np.int64]
    mated: int
    non_mated: int

    @property
    def fnmr(self) -> NDArray[np.float64]:
        """(T,) false non-match rates; NaN without mated scores."""
        return _rate(self.false_non_matches, self.mated)

    @property
    def fmr(self) -> NDArray[np.float64]:
        """(T,) false match rates; NaN without non-mated scores."""
        return _rate(self.false_matches, self.non_mated)

    def at(self, index: int) -> OperatingPoint:
        """Return the operating point of one of the thresholds."""
        return OperatingPoint(
            float(self.thresholds[index]),
            int(self.false_non_matches[index]),
            self.mated,
            int(self.false_matches[index]),
            self.non_mated,
        )

    def at_nearest_fmr(self, target: float) -> OperatingPoint:
        """Return the point whose FMR is nearest to the target, the lowest threshold among equals.

        The realised FMR may lie above the target. Without non-mated scores it is the lowest
        threshold, where FNMR is 0.
        """
        if not self.non_mated:
            return self.at(0)
        return self.at(int(np.argmin(np.abs(self.fmr - target))))

    def at_conservative_fmr(self, target: float) -> OperatingPoint:
        """Return the lowest threshold with FMR <= target.

        Where no score has so few false matches above it (a non-mated score is on top), the
        threshold lies just above the highest score: no false match, and no match either.
        """
        allowed = np.flatnonzero(_at_most(self.false_matches, target, self.non_mated))
        if allowed.size:
            return self.at(int(allowed[0]))
        above = float(np.nextafter(self.thresholds[-1], np.inf))
        return OperatingPoint(above, self.mated, self.mated, 0, self.non_mated)

    def at_nearest_fnmr(self, target: float) -> OperatingPoint:
        """Return the point whose FNMR is nearest to the target, the highest threshold of equals.

        Raises:
            ValueError: there is no mated score.
        """
        if not self.mated:
            raise ValueError("no mated score: there is no FNMR to come near to")
        distance = np.abs(self.fnmr - target)
        return self.at(int(np.flatnonzero(distance == distance.min())[-1]))

    def crossing(self) -> int | None:
        """Return the first index with FMR <= FNMR; None where there is none."""
        crossed = np.flatnonzero(self.fmr <= self.fnmr)  # NaN, a missing class, never is
        return int(crossed[0]) if crossed.size else None

    def equal_error_rate(self) -> EqualErrorRate:
        """Return the EER.

        It is 1, at the lowest threshold, by convention where the two rates do not meet: one class
        of scores is missing, or the highest score is mated and non-mated and no mated one is lower.
        """
        fmr, fnmr = self.fmr, self.fnmr
        right = self.crossing()
        if right is None:
            return EqualErrorRate(1.0, 1.0, 1.0, float(self.thresholds[0]))
        left = right - 1 if fmr[right] != fnmr[right] else right
        chosen = left if fmr[left] + fnmr[left] <= fmr[right] + fnmr[right] else right
        low, high = sorted((float(fmr[chosen]), float(fnmr[chosen])))
        return EqualErrorRate((low + high) / 2, low, high, float(self.thresholds[chosen]))


def error_rates(scores: NDArray[np.floating], mated: NDArray[np.bool_]) -> ErrorRates:
    """Count the errors at every distinct score.

    Args:
        scores: (N,) comparison scores, larger = more alike.
        mated: (N,) whether both images show one person.

    Raises:
        ValueError: no score at all, shapes that differ, or NaN.
    """
    if len(scores) == 0 or scores.shape != mated.shape:
        raise ValueError(f"{scores.shape} scores for {mated.shape} labels: need one label each")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    order = np.argsort(scores)
    return rates_of_sorted(scores[order], mated[order])


def rates_of_sorted(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    mated_below: int = 0,
    non_mated_above: int = 0,
    totals: tuple[int, int] | None = None,
) -> ErrorRates:
    """Do the work of `error_rates` for scores that ascend and are known to be sound.

    Args:
        scores: (N,) a whole set, or those of it that lie in one window of scores.
        mated: (N,) their labels.
        mated_below: mated scores of the set below the window.
        non_mated_above: non-mated scores of the set above the window.
        totals: mated and non-mated scores of the set; None where there is nothing else.
    """
    is_first = np.empty(len(scores), np.bool_)
    is_first[0] = True
    np.not_equal(scores[1:], scores[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    up_to = np.cumsum(mated)
    below: NDArray[np.int64] = up_to[first] - mated[first]
    here = int(up_to[-1])
    above = len(scores) - here + non_mated_above - (first - below)
    count, others = totals or (here, len(scores) - here)
    return ErrorRates(scores[first].astype(np.float64), below + mated_below, above, count, others)


def _rate(counts: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    return counts / total if total else np.full(counts.shape, np.nan)


def _at_most(counts: NDArray[np.int64], target: float, total: int) -> NDArray[np.bool_]:
    return counts / max(total, 1) <= target

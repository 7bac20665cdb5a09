"""Error-versus-discard: FNMR on the pairs that are kept when the most uncertain are refused.

The grid, the percentile rule and the reading of FNMR follow the original protocol. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.error_rates import ErrorRates, OperatingPoint, rates_of_sorted

GRID = np.arange(0, 1.0, 0.01)
SHOWN = (0, 5, 10, 15, 20, 25, 30)  # indices of the printed rows: discard 0, .05, ..., .30


@dataclass(frozen=True)
class KeptSets:
    """Which pairs are kept at each discard fraction: those with uncertainty <= the threshold.

    Pairs fall into levels (the number of distinct thresholds below their uncertainty), so what is
    kept at fraction f is every level up to `level_of[f]`, and counts are cumulative sums.

    Attributes:
        fractions: (F,) discard fractions asked for.
        thresholds: (F,) float64 uncertainty thresholds; ties keep more than 1 - fraction.
        level: (N,) of each pair.
        level_of: (F,) highest level that is kept.
    """

    fractions: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    level: NDArray[np.intp]
    level_of: NDArray[np.intp]

    def counts(self, chosen: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """(F,) kept pairs, of all pairs or of those chosen by an (N,) mask."""
        level = self.level if chosen is None else self.level[chosen]
        per_level = np.bincount(level, minlength=int(self.level_of.max()) + 1)
        counts: NDArray[np.int64] = np.cumsum(per_level)[self.level_of]
        return counts

    def rows(self, index: int) -> NDArray[np.bool_]:
        """(N,) mask of the pairs kept at one fraction."""
        return self.level <= self.level_of[index]


@dataclass(frozen=True)
class Edc:
    """FNMR at one FMR target against the discard fraction.

    Attributes:
        fmr_target: FMR that fixed the threshold.
        fractions: (F,) discard fractions.
        score_threshold: (F,) score at which the errors were counted.
        false_non_matches: (F,) kept mated pairs below it.
        mated: (F,) kept mated pairs.
        false_matches: (F,) kept non-mated pairs at or above it.
        non_mated: (F,) kept non-mated pairs.
        fnmr: (F,) rate; where no mated pair is kept, the last value before holds.
    """

    fmr_target: float
    fractions: NDArray[np.float64]
    score_threshold: NDArray[np.float64]
    false_non_matches: NDArray[np.int64]
    mated: NDArray[np.int64]
    false_matches: NDArray[np.int64]
    non_mated: NDArray[np.int64]
    fnmr: NDArray[np.float64]


@dataclass(frozen=True)
class Areas:
    """Areas under a curve on the original grid; lower is better.

    Attributes:
        auerc: trapezoids over 0..0.99.
        auerc30: the same over the first 30 points, 0..0.29.
        auc: auerc - e^2 / 2 with e = FNMR without discard (the original's name).
        auc30: auerc30 - e * min(e, 0.3) / 2 (the original's name).
        mean: plain mean of the FNMR values.
    """

    auerc: float
    auerc30: float
    auc: float
    auc30: float
    mean: float


def percentiles(ordered: NDArray[Any], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentiles by linear interpolation, bit for bit as `numpy.percentile` of NumPy 2.

    Written out because kept sets hang on the last bit: differences are taken in the array's own
    type, the rest in float64.

    Args:
        ordered: (N,) ascending.
        shares: (F,) percentages / 100.
    """
    position = (len(ordered) - 1) * shares
    lower = np.minimum(np.floor(position), len(ordered) - 1).astype(np.intp)
    upper = np.minimum(lower + 1, len(ordered) - 1)
    low, high = ordered[lower], ordered[upper]
    step, weight = high - low, position - lower
    return np.where(weight < 0.5, low + step * weight, high - step * (1 - weight))


def kept_sets(uncertainty: NDArray[Any], fractions: NDArray[np.float64] = GRID) -> KeptSets:
    """Find the kept pairs at every discard fraction.

    Args:
        uncertainty: (N,) finite, larger = discarded earlier.
        fractions: (F,) in [0, 1).
    """
    # 36 of the 100 percentages are not whole in floating point; the product is part of the protocol
    thresholds = percentiles(np.sort(uncertainty), (1 - fractions) * 100 / 100)
    levels, level_of = np.unique(thresholds, return_inverse=True)
    level = np.searchsorted(levels, uncertainty.astype(np.float64), side="left")
    return KeptSets(fractions, thresholds, level, level_of)


def fixed_threshold_edc(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    kept: KeptSets,
    point: OperatingPoint,
    fmr_target: float,
) -> Edc:
    """Curve with one threshold, found on all pairs, for every discard fraction.

    FNMR is read at the kept score nearest to the threshold (the lower one of two equally near), as
    the original does, so it can lie one pair below the count at the threshold itself.
    """
    read_at = _nearest_kept_score(scores, kept, point.threshold)
    misses = np.empty(len(read_at), np.int64)
    false_matches = np.empty(len(read_at), np.int64)
    for value in np.unique(read_at):
        here = read_at == value
        below = scores < value
        misses[here] = kept.counts(mated & below)[here]
        false_matches[here] = kept.counts(~(mated | below))[here]
    counts = kept.counts(mated), kept.counts(~mated)
    fnmr = _held_rate(misses, counts[0])
    return Edc(
        fmr_target, kept.fractions, read_at, misses, counts[0], false_matches, counts[1], fnmr
    )


def rates_of_kept(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    kept: KeptSets,
    indices: Sequence[int],
) -> list[ErrorRates]:
    """Error rates of the kept pairs alone at some of the discard fractions."""
    order = np.argsort(scores)
    scores, mated, level = scores[order], mated[order], kept.level[order]
    by_level: dict[int, ErrorRates] = {}
    for top in {int(kept.level_of[index]) for index in indices}:
        rows = np.flatnonzero(level <= top)
        by_level[top] = rates_of_sorted(scores[rows], mated[rows])
    return [by_level[int(kept.level_of[index])] for index in indices]


def recomputed_threshold_edc(
    rates: Sequence[ErrorRates], fractions: NDArray[np.float64], fmr_target: float
) -> Edc:
    """Curve whose threshold is found again on the kept pairs at every discard fraction.

    Args:
        rates: one per fraction, of `rates_of_kept`.
        fractions: (F,) discard fractions.
        fmr_target: the FMR to come nearest to.
    """
    points = [one.at_nearest_fmr(fmr_target) for one in rates]
    threshold, misses, mated, false_matches, non_mated = (
        np.array(column) for column in zip(*points, strict=True)
    )
    fnmr = _held_rate(misses, mated)
    return Edc(fmr_target, fractions, threshold, misses, mated, false_matches, non_mated, fnmr)


def areas(edc: Edc) -> Areas:
    """Areas of a curve on `GRID`, under the original's names."""
    x, y = edc.fractions, edc.fnmr
    start = float(y[0])
    auerc, auerc30 = float(np.trapezoid(y, x)), float(np.trapezoid(y[:30], x[:30]))
    best, best30 = start * start / 2, start * min(start, 0.3) / 2
    return Areas(auerc, auerc30, auerc - best, auerc30 - best30, float(np.mean(y)))


def optimum(edc: Edc, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    """FNMR of the best possible order: every false non-match is discarded first.

    Args:
        edc: its counts without discard are used.
        fractions: (F,) shares of all pairs.
    """
    discarded = fractions * (edc.mated[0] + edc.non_mated[0])
    errors = np.maximum(edc.false_non_matches[0] - discarded, 0)
    left = np.maximum(edc.mated[0] - discarded, 1)
    best: NDArray[np.float64] = errors / left
    return best


def _nearest_kept_score(
    scores: NDArray[np.floating], kept: KeptSets, threshold: float
) -> NDArray[np.float64]:
    """(F,) kept score nearest to the threshold, by running extremes over the levels."""
    values = scores.astype(np.float64)
    count = int(max(kept.level_of.max(), kept.level.max())) + 1
    under, over = np.full(count, -np.inf), np.full(count, np.inf)
    is_under = values <= threshold
    np.maximum.at(under, kept.level[is_under], values[is_under])
    np.minimum.at(over, kept.level[~is_under], values[~is_under])
    under = np.maximum.accumulate(under)[kept.level_of]
    over = np.minimum.accumulate(over)[kept.level_of]
    return np.where(threshold - under <= over - threshold, under, over)


def _held_rate(errors: NDArray[np.int64], total: NDArray[np.int64]) -> NDArray[np.float64]:
    rate = errors / np.maximum(total, 1)
    last = np.maximum.accumulate(np.where(total > 0, np.arange(len(total)), 0))
    held: NDArray[np.float64] = rate[last]
    return held

"""Error-versus-discard: FNMR on the pairs that are kept when the most uncertain are refused.

The grid, the percentile rule and the reading of FNMR follow the original protocol. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.curve import Edc, held_rate
from evaluation.metrics.error_rates import ErrorRates
from evaluation.metrics.kept import KeptSets
from evaluation.metrics.thresholds import OperatingPoint


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
    near = _near_threshold(scores, kept, point.threshold)
    read_at = _nearest_kept_score(scores[near], kept, kept.level[near], point.threshold)
    below = scores < point.threshold
    kind = kept.level * 4 + (2 * mated.view(np.uint8) + below.view(np.uint8))
    size = int(max(kept.level_of.max(), kept.level.max())) + 1
    per_level = np.bincount(kind, minlength=4 * size).reshape(size, 2, 2)
    totals = np.cumsum(per_level, axis=0)[
        kept.level_of
    ]  # (F, non-mated | mated, at or above | below)
    moved = _between(scores[near], mated[near], kept, kept.level[near], point.threshold, read_at)
    misses, false_matches = totals[:, 1, 1] + moved[:, 1], totals[:, 0, 0] - moved[:, 0]
    non_mated_kept, mated_kept = totals.sum(axis=2).T
    return Edc(
        fmr_target,
        kept.fractions,
        read_at,
        misses,
        mated_kept,
        false_matches,
        non_mated_kept,
        held_rate(misses, mated_kept),
    )


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
    fnmr = held_rate(misses, mated)
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


def _near_threshold(
    scores: NDArray[np.floating], kept: KeptSets, threshold: float
) -> NDArray[np.intp]:
    """Rows with scores around the threshold; the smallest kept set has one of them at least."""
    widest = max(abs(float(scores.max()) - threshold), abs(float(scores.min()) - threshold))
    width = widest / 1024
    while width < widest:
        rows = np.flatnonzero(np.abs(scores - np.float64(threshold)) <= width)
        if (kept.level[rows] <= kept.level_of.min()).any():
            return rows
        width *= 8
    return np.arange(len(scores))


def _nearest_kept_score(
    scores: NDArray[np.floating], kept: KeptSets, level: NDArray[np.intp], threshold: float
) -> NDArray[np.float64]:
    """(F,) kept score nearest to the threshold, by running extremes over the levels."""
    values = scores.astype(np.float64)
    count = int(max(kept.level_of.max(), level.max())) + 1
    under, over = np.full(count, -np.inf), np.full(count, np.inf)
    is_under = values <= threshold
    np.maximum.at(under, level[is_under], values[is_under])
    np.minimum.at(over, level[~is_under], values[~is_under])
    under = np.maximum.accumulate(under)[kept.level_of]
    over = np.minimum.accumulate(over)[kept.level_of]
    return np.where(threshold - under <= over - threshold, under, over)


def _between(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    kept: KeptSets,
    level: NDArray[np.intp],
    threshold: float,
    read_at: NDArray[np.float64],
) -> NDArray[np.int64]:
    """(F, 2) kept non-mated and mated pairs that fall below when a threshold moves to `read_at`.

    Negative where it moves down.
    """
    moved = np.zeros((len(read_at), 2), np.int64)
    for value in np.unique(read_at):
        if value == threshold:
            continue
        low, high = sorted((value, threshold))
        inside = (scores >= low) & (scores < high)
        sign = 1 if value > threshold else -1
        here = read_at == value
        for column, rows in enumerate((inside & ~mated, inside & mated)):
            at_most = np.searchsorted(np.sort(level[rows]), kept.level_of[here], side="right")
            moved[here, column] = sign * at_most
    return moved

"""False match and false non-match rates over all thresholds, and where they meet.

Counts are kept as whole numbers, so a rate can always be shown as k / N. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.engine import Kept


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
    return _rates_of_window(scores, mated, 0, 0, int(mated.sum()), int((~mated).sum()))


def equal_error_rates(
    scores: NDArray[np.floating], mated: NDArray[np.bool_], kept: Kept, indices: Sequence[int]
) -> list[EqualErrorRate]:
    """EER of the kept comparisons at some of the discard fractions, without sorting all scores.

    A histogram tells between which scores FMR and FNMR meet; only those are sorted.

    Args:
        scores: (N,) of all listed comparisons.
        mated: (N,) their kind.
        kept: which of them are kept.
        indices: of its discard fractions, ascending.
    """
    cells = min(max(len(scores) // 16, 64), 65_536)
    low, high = float(scores.min()), float(scores.max())
    scale = cells / (high - low) if high > low else 0.0
    cell = ((scores - np.float64(low)) * scale).astype(np.intp)
    times = kept.times_kept(indices)
    kind = (times.astype(np.intp) * 2 + mated) * (cells + 1) + cell
    counts = np.bincount(kind, minlength=2 * (len(indices) + 1) * (cells + 1))
    counts = np.cumsum(counts.reshape(-1, 2, cells + 1)[:0:-1], axis=0)[::-1]
    return [
        _near_crossing(scores, mated, times > place, cell, *counts[place])
        for place in range(len(indices))
    ]


def _near_crossing(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    is_kept: NDArray[np.bool_],
    cell: NDArray[np.intp],
    others: NDArray[np.int64],
    own: NDArray[np.int64],
) -> EqualErrorRate:
    """EER of the kept pairs, given how many of both kinds are in each cell of scores."""
    total, total_others = int(own.sum()), int(others.sum())
    filled = np.flatnonzero(own + others)
    fnmr = (np.cumsum(own) - own)[filled] / max(total, 1)
    fmr = (total_others - (np.cumsum(others) - others))[filled] / max(total_others, 1)
    crossed = np.flatnonzero(fmr <= fnmr)
    place = int(crossed[0]) if crossed.size else len(filled) - 1
    first, last = filled[max(place - 1, 0)], filled[place]
    rows = np.flatnonzero(is_kept & (cell >= first) & (cell <= last))
    below, above = int(own[:first].sum()), int(others[last + 1 :].sum())
    window = _rates_of_window(scores[rows], mated[rows], below, above, total, total_others)
    eer = window.equal_error_rate()
    if window.crossing() is None:  # the lowest threshold of all, not of the window
        return eer._replace(threshold=float(scores[is_kept].min()))
    return eer


def _rates_of_window(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    mated_below: int,
    non_mated_above: int,
    mated_total: int,
    non_mated_total: int,
) -> ErrorRates:
    """Error rates at the scores of a window, given what lies below and above it."""
    order = np.argsort(scores)
    scores, mated = scores[order], mated[order]
    first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1]))
    up_to = np.cumsum(mated)
    below: NDArray[np.int64] = up_to[first] - mated[first]
    above = len(scores) - int(up_to[-1]) + non_mated_above - (first - below)
    return ErrorRates(
        scores[first].astype(np.float64), below + mated_below, above, mated_total, non_mated_total
    )


def _rate(counts: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    return counts / total if total else np.full(counts.shape, np.nan)

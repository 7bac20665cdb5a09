"""The score threshold of one bootstrap replicate, as `thresholds.operating_point` finds it.

The threshold is part of what is uncertain, so each replicate finds its own. NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence._resample import Counts, Resampling, Sample

if TYPE_CHECKING:
    from evaluation.metrics.protocols import Rule


class ThresholdSearch:
    """Finds thresholds under the weights of a replicate, as if its rows had been repeated.

    Args:
        resampling: the draws.
        rule: how the threshold follows from the scores; see `Protocol`.
        target: FMR, or FNMR for the rule "starting_error"; in (0, 1).

    Attributes:
        beyond_list: replicates whose threshold lay below all listed scores, of a set that lists
            only the high end; the end of the list was taken for it.
    """

    def __init__(self, resampling: Resampling, rule: Rule, target: float) -> None:
        self.beyond_list = 0
        self._resampling, self._rule, self._target = resampling, rule, target
        scores = resampling.comparisons.scores
        self._tail = _Descending(scores[resampling.tail_rows])
        self._whole: tuple[NDArray[np.intp], _Descending] | None = None
        mated = scores[resampling.mated_rows]
        self._mated_order = np.argsort(-mated, kind="stable")
        self._mated = _Descending(mated[self._mated_order])

    def find(self, sample: Sample, replicate: int) -> float:
        """Threshold of one replicate that has mated comparisons: those below it are errors."""
        mated = sample.mated[self._mated_order]
        if self._rule == "starting_error":
            return self._start(mated)
        if not sample.total:
            return self._mated.lowest(mated)
        found = self._of_fmr(self._tail, sample.tail, sample.total, mated)
        if found is None and len(self._tail.scores) < self._resampling.non_mated_rows.size:
            rows, every = self._every_score()
            weights = self._resampling.row_weights(replicate)[rows]
            found = self._of_fmr(every, weights, sample.total, mated)
        if found is not None:
            return found
        if self._resampling.comparisons.unlisted:
            self.beyond_list += 1
            return self._resampling.comparisons.listed_from
        return self._lowest(replicate, mated)

    def _lowest(self, replicate: int, mated: Counts) -> float:
        rows, every = self._every_score()
        weights = self._resampling.row_weights(replicate)[rows]
        return min(every.lowest(weights), self._mated.lowest(mated))

    def _every_score(self) -> tuple[NDArray[np.intp], _Descending]:
        if self._whole is None:
            rows = self._resampling.non_mated_rows
            scores = self._resampling.comparisons.scores[rows]
            order = np.argsort(-scores, kind="stable")
            self._whole = rows[order], _Descending(scores[order])
        return self._whole

    def _of_fmr(
        self, non_mated: _Descending, weights: Counts, total: float, mated: Counts
    ) -> float | None:
        """Threshold by one of the rules that take an FMR; None where the scores end above it."""
        up_to = np.cumsum(weights)
        if not up_to[-1] / total > self._target:
            return None
        place = int(np.argmax(up_to / total > self._target))
        barred = non_mated.scores[place]
        if self._rule == "conservative":
            return _just_above(barred)
        few = up_to[non_mated.start[place] - 1] if non_mated.start[place] else 0
        many = up_to[non_mated.end[place] - 1]
        if self._rule == "interpolated":
            over = non_mated.next_above(barred, weights)
            if over is None:
                return _just_above(barred)
            share = (self._target * total - few) / (many - few)
            return float(over - share * (over - float(barred)))
        above = _lower(non_mated.next_above(barred, weights), self._mated.next_above(barred, mated))
        if above is not None and abs(few / total - self._target) < abs(many / total - self._target):
            return above
        lower = int(np.searchsorted(up_to, many, side="right"))
        if lower == len(up_to):
            return None
        below = non_mated.scores[lower]
        return _lower(float(barred), self._mated.next_above(below, mated))

    def _start(self, mated: Counts) -> float:
        scores, weights = self._mated.scores[::-1], mated[::-1]
        up_to = np.cumsum(weights)
        total = int(up_to[-1])
        rank = min(int(self._target * total), total - 1)
        score = scores[int(np.searchsorted(up_to, rank, side="right"))]
        few = int(weights[: np.searchsorted(scores, score, side="left")].sum())
        many = int(weights[: np.searchsorted(scores, score, side="right")].sum())
        near = abs(many / total - self._target) <= abs(few / total - self._target)
        higher = self._mated.next_above(score, mated) if many < total and near else None
        return float(score) if higher is None else higher


class _Descending:
    """(K,) descending scores, and where each group of equal ones starts and ends."""

    def __init__(self, scores: NDArray[Any]) -> None:
        self.scores = scores
        self._ascending = -scores
        self.start = np.searchsorted(self._ascending, self._ascending, side="left")
        self.end = np.searchsorted(self._ascending, self._ascending, side="right")

    def next_above(self, score: Any, weights: Counts) -> float | None:
        """The lowest score above another one that has a weight."""
        end = int(np.searchsorted(self._ascending, -score, side="left"))
        step = 16
        while end > 0:
            start = max(end - step, 0)
            present = np.flatnonzero(weights[start:end])
            if present.size:
                return float(self.scores[start + int(present[-1])])
            end, step = start, step * 4
        return None

    def lowest(self, weights: Counts) -> float:
        """The lowest score that has a weight."""
        return float(self.scores[int(np.flatnonzero(weights)[-1])])


def _lower(first: float | None, second: float | None) -> float | None:
    return min((value for value in (first, second) if value is not None), default=None)


def _just_above(score: Any) -> float:
    return float(np.nextafter(score, score.dtype.type(np.inf)))

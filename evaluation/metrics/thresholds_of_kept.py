"""A threshold of its own for the kept pairs at each discard fraction, without a sort for each.

Only the high end of the non-mated scores, and the mated scores among them, are looked at; the rest
is counted once. NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.error_rates import OperatingPoint
from evaluation.metrics.thresholds import find_threshold, operating_point

if TYPE_CHECKING:
    from evaluation.metrics.kept import KeptSets
    from evaluation.metrics.protocols import Rule


def points_of_kept(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    kept: KeptSets,
    rule: Rule,
    fmr_target: float,
    strict: bool,
) -> list[OperatingPoint]:
    """Operating point of the kept pairs at each discard fraction.

    Args:
        scores: (N,) of all pairs.
        mated: (N,) their kind.
        kept: what is kept at each fraction.
        rule: one that aims at an FMR.
        fmr_target: that FMR.
        strict: count mated scores that equal the threshold as errors.

    Returns:
        One per fraction. Where no mated pair is kept, the threshold is the one before, and nothing
        is counted; without a non-mated pair, the lowest mated score, where FNMR is 0.
    """
    search = _Search(scores, mated, kept, rule, fmr_target, strict)
    by_level: dict[int, OperatingPoint] = {}
    points: list[OperatingPoint] = []
    for level in map(int, kept.level_of):
        if level not in by_level:
            found = search.at(level)
            by_level[level] = found or points[-1]._replace(
                false_non_matches=0,
                mated=0,
                false_matches=0,
                non_mated=search.non_mated_kept(level),
            )
        points.append(by_level[level])
    return points


class _Search:
    """The scores of both kinds with their levels, and the window of them that decides."""

    def __init__(
        self,
        scores: NDArray[np.floating],
        mated: NDArray[np.bool_],
        kept: KeptSets,
        rule: Rule,
        target: float,
        strict: bool,
    ) -> None:
        self._rule, self._target, self._strict = rule, target, strict
        self._own, self._own_level = scores[mated], kept.level[mated]
        self._others, self._others_level = scores[~mated], kept.level[~mated]
        levels = int(max(kept.level_of.max(), kept.level.max())) + 1
        self._own_up_to = _up_to(self._own_level, levels)
        self._others_up_to = _up_to(self._others_level, levels)
        # four times as many as the target allows on all pairs, in case the surest score highest
        wanted = 4 * int(target * len(self._others)) + 64
        self._low = -np.inf
        if wanted < len(self._others):
            place = len(self._others) - wanted
            self._low = float(np.partition(self._others, place)[place])
            self._choose_window(levels)

    def non_mated_kept(self, level: int) -> int:
        """Number of non-mated pairs up to a level."""
        return int(self._others_up_to[level])

    def at(self, level: int) -> OperatingPoint | None:
        """Operating point of the pairs up to a level; None without a mated one."""
        if not self._own_up_to[level]:
            return None
        found = self._in_window(level) if self._low > -np.inf else None
        if found is not None:
            return found
        own = self._own[self._own_level <= level]
        others = self._others[self._others_level <= level]
        point = operating_point(own, others, self._rule, self._target)
        if self._strict and len(others):
            point = point._replace(false_non_matches=self._misses(own, point.threshold))
        return point

    def _choose_window(self, levels: int) -> None:
        inside = self._others >= self._low
        self._near_others = self._others[inside]
        self._near_others_level = self._others_level[inside]
        high = self._near_others.max()
        inside = (self._own >= self._low) & (self._own <= high)
        self._near_own, self._near_own_level = self._own[inside], self._own_level[inside]
        self._below_up_to = _up_to(self._own_level[self._own < self._low], levels)
        next_above = np.full(levels, np.inf)
        above = self._own > high
        np.minimum.at(next_above, self._own_level[above], self._own[above])
        self._next_above = np.minimum.accumulate(next_above)

    def _in_window(self, level: int) -> OperatingPoint | None:
        """The same from the window alone; None where it does not hold all that matters."""
        own = self._near_own[self._near_own_level <= level]
        others = self._near_others[self._near_others_level <= level]
        total = self.non_mated_kept(level)
        if not total or not len(others):
            return None
        candidates = np.append(own, self._next_above[level].astype(own.dtype))
        threshold = find_threshold(
            candidates, others, self._rule, self._target, total, complete=False
        )
        if threshold is None or threshold > others.max():
            return None
        misses = int(self._below_up_to[level]) + self._misses(own, threshold)
        matches = int(np.count_nonzero(others >= np.float64(threshold)))
        return OperatingPoint(threshold, misses, int(self._own_up_to[level]), matches, total)

    def _misses(self, own: NDArray[Any], threshold: float) -> int:
        level = np.float64(threshold)
        return int(np.count_nonzero(own <= level if self._strict else own < level))


def _up_to(level: NDArray[np.intp], levels: int) -> NDArray[np.int64]:
    """(L,) how many lie at or below each level."""
    counts: NDArray[np.int64] = np.cumsum(np.bincount(level, minlength=levels))
    return counts

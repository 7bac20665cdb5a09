"""Which comparisons are kept at each discard fraction, by the original's percentile rule.

Kept sets are levels, so that every count on them is a cumulative sum. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRID = np.arange(0, 1.0, 0.01)
SHOWN = (0, 5, 10, 15, 20, 25, 30)  # indices of the printed rows: discard 0, .05, ..., .30
ROWS_AT_ONCE = 262_144  # bounds the memory of one step


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
    return KeptSets(fractions, thresholds, count_below(levels, uncertainty), level_of)


def count_below(bounds: NDArray[np.float64], values: NDArray[Any]) -> NDArray[np.intp]:
    """Return `numpy.searchsorted(bounds, values)`, faster for few bounds and many values.

    Values fall into equal cells; in a cell without a bound the answer is the cell's.

    Args:
        bounds: (K,) ascending.
        values: (N,) finite.
    """
    found = np.empty(len(values), np.intp)
    cells = cells_for(len(values))
    low, high = float(values.min()), float(values.max())
    scale = cells / (high - low) if high > low else 0.0
    place = np.clip((bounds - low) * scale, -1, cells + 1).astype(np.intp)
    before = np.searchsorted(place, np.arange(cells + 1))
    unclear = np.searchsorted(place, np.arange(cells + 1), side="right") > before
    for start in range(0, len(values), ROWS_AT_ONCE):
        part = values[start : start + ROWS_AT_ONCE].astype(np.float64)
        cell = ((part - low) * scale).astype(np.intp)
        here = before[cell]
        rows = np.flatnonzero(unclear[cell])
        here[rows] = np.searchsorted(bounds, part[rows])
        found[start : start + len(part)] = here
    return found


def cells_for(count: int) -> int:
    """Cells of a histogram that narrows a search; results do not depend on it."""
    return min(max(count // 16, 64), 65_536)

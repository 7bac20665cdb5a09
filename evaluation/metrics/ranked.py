"""Values in ascending order under whole-number weights: what every threshold and curve counts on.

Without weights each value counts once: the set itself. A bootstrap gives counts instead, and gets
what it would get if each comparison were repeated as often. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Counts = NDArray[np.int64]
Places = NDArray[np.intp]
Weigh = Callable[[slice], NDArray[np.integer] | NDArray[np.bool_]]

WIDENED = 10_000  # values that NumPy may widen for a bound of a wider type; results are the same
FIRST_STEP = 16  # places looked at first when the next value with a weight is sought


class Ranked:
    """(n,) ascending values and how often each counts.

    Args:
        values: (n,) ascending.
        rows: (n,) where each stands in the array that was sorted; None where only values are known.
        weigh: slice of the places -> weights of the values there; None where each counts once.
    """

    def __init__(
        self,
        values: NDArray[np.floating],
        rows: Places | None = None,
        weigh: Weigh | None = None,
    ) -> None:
        self.values, self.rows, self._weigh = values, rows, weigh

    @classmethod
    def of(cls, values: NDArray[np.floating], *, keep_rows: bool = False) -> Ranked:
        """Sort; weights need the rows, which cost about eight times the sort of values alone."""
        if not keep_rows:
            return cls(np.sort(values))
        rows = np.argsort(values)
        return cls(values[rows], rows)

    def weighted(self, weights: Counts | None) -> Ranked:
        """Return the same values under (n,) weights, which are in the order before the sort."""
        rows = self.rows
        if weights is None or rows is None:
            return self
        return Ranked(self.values, rows, lambda part: weights[rows[part]])

    @cached_property
    def sums(self) -> Counts:
        """(n + 1,) weight of the first 0, 1, ..., n values."""
        if self._weigh is None:
            return np.arange(len(self.values) + 1)
        sums = np.zeros(len(self.values) + 1, np.int64)
        np.cumsum(self._weigh(slice(None)), out=sums[1:])
        return sums

    @property
    def total(self) -> int:
        """Weight of all values."""
        return len(self.values) if self._weigh is None else int(self.sums[-1])

    def at(self, ranks: Places) -> NDArray[np.floating]:
        """Values at ranks 0, 1, ..., `total` - 1, as if each were repeated by its weight."""
        if self._weigh is not None:
            ranks = np.searchsorted(self.sums[1:], ranks, side="right")
        return self.values[ranks]

    def places_below(self, bounds: ArrayLike) -> Places:
        """How many values lie below each of some bounds."""
        if len(self.values) > WIDENED:
            bounds = at_least(bounds, self.values.dtype)
        return np.asarray(np.searchsorted(self.values, bounds))

    def places_up_to(self, bounds: ArrayLike) -> Places:
        """How many values lie at or below each of some bounds."""
        if len(self.values) > WIDENED:
            bounds = at_most(bounds, self.values.dtype)
        return np.asarray(np.searchsorted(self.values, bounds, side="right"))

    def rows_within(self, low: float, high: float) -> Places:
        """Rows of the values from one bound to another, in ascending order of value."""
        assert self.rows is not None
        return self.rows[int(self.places_below(low)) : int(self.places_up_to(high))]

    def weight_of_first(self, places: Places) -> Counts:
        """Weight of the first so many values."""
        return places if self._weigh is None else self.sums[places]

    def weight_up_to(self, bounds: NDArray[np.floating]) -> Counts:
        """Weight of the values at or below each of some bounds."""
        return self.weight_of_first(self.places_up_to(bounds))

    def count_below(self, bound: float) -> int:
        """Weight of the values below one bound."""
        return self._count_first(int(self.places_below(bound)))

    def count_up_to(self, bound: float) -> int:
        """Weight of the values at or below one bound."""
        return self._count_first(int(self.places_up_to(bound)))

    def next_above(self, bound: float) -> float | None:
        """The lowest value above a bound that has a weight."""
        start, step, count = int(self.places_up_to(bound)), FIRST_STEP, len(self.values)
        while start < count:
            end = min(start + step, count)
            present = self._present(start, end)
            if present.size:
                return float(self.values[start + int(present[0])])
            start, step = end, step * 4
        return None

    def next_below(self, bound: float) -> float | None:
        """The highest value below a bound that has a weight."""
        end, step = int(self.places_below(bound)), FIRST_STEP
        while end > 0:
            start = max(end - step, 0)
            present = self._present(start, end)
            if present.size:
                return float(self.values[start + int(present[-1])])
            end, step = start, step * 4
        return None

    def highest_over(self, share: float, total: float) -> np.floating | None:
        """The highest value v for which (weight at or above v) / total exceeds a share.

        Args:
            share: within 0 to 1.
            total: weight of a larger set, of which these are the highest values.

        Returns:
            None where all values together do not exceed it.
        """
        if self._weigh is not None:
            over = int(np.count_nonzero((self.sums[-1] - self.sums[:-1]) / total > share))
            return self.values[over - 1] if over else None
        allowed = int(share * total)  # the product may be a hair off a whole number
        allowed += (allowed + 1) / total <= share
        allowed -= allowed / total > share
        return self.values[-1 - allowed] if allowed < len(self.values) else None

    def _count_first(self, place: int) -> int:
        if self._weigh is None:
            return place
        if "sums" in self.__dict__:
            return int(self.sums[place])
        return int(np.sum(self._weigh(slice(0, place)), dtype=np.int64))

    def _present(self, start: int, end: int) -> Places:
        if self._weigh is None:
            return np.arange(end - start)
        return np.flatnonzero(self._weigh(slice(start, end)))


def at_least(bounds: ArrayLike, dtype: DTypeLike) -> NDArray[np.floating]:
    """The lowest numbers of a type that are not below the bounds.

    A bound of a wider type would make NumPy widen everything that is compared with it.
    """
    exact = np.asarray(bounds)
    if exact.dtype == dtype:
        return exact
    near = exact.astype(dtype)
    return np.where(near < exact, np.nextafter(near, np.inf, dtype=near.dtype), near)


def at_most(bounds: ArrayLike, dtype: DTypeLike) -> NDArray[np.floating]:
    """The highest numbers of a type that are not above the bounds."""
    return -at_least(-np.asarray(bounds), dtype)

"""Bootstrap draws of identities, images or pairs, as weights of comparisons.

Nothing is copied: a replicate is one whole number per comparison. NumPy and SciPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from evaluation.metrics.comparisons import Comparisons, Unit

Counts = NDArray[np.int64]

TAIL_FACTOR = 8  # non-mated scores kept: so many times the false matches expected at the target
TAIL_LEAST = 2000


@dataclass(frozen=True)
class Sample:
    """One replicate.

    Attributes:
        mated: (P,) weights of the mated comparisons, in the order of `Resampling.mated_rows`.
        tail: (K,) weights of the highest non-mated scores, as `Resampling.tail_rows`.
        total: weight of all non-mated comparisons, those beyond the tail and unlisted ones too.
    """

    mated: Counts
    tail: Counts
    total: float


class _Sides:
    """Weights of some comparisons between drawn units."""

    def __init__(self, first: Counts, second: Counts) -> None:
        self.first = first
        inside = first == second
        self.second = None if inside.all() else second
        self.inside = np.flatnonzero(inside)

    def weights(self, counts: Counts) -> Counts:
        """A comparison of two units counts once per pair of their copies.

        Within one unit it counts once per copy: copies of one person are two persons, and no
        comparison between them was ever made.
        """
        if self.second is None:
            return counts[self.first]
        weights = counts[self.first] * counts[self.second]
        weights[self.inside] = counts[self.first[self.inside]]
        return weights


class Resampling:
    """Reproducible draws of one unit from a set of comparisons.

    Replicate r depends on the seed and r alone, so any two methods see the same draws.

    Args:
        comparisons: what was measured.
        unit: "identity" or "image": units are drawn with replacement, and a comparison of two
            different units weighs the product of their counts. "pair": mated and non-mated
            comparisons are drawn separately, each as many as there are.
        fmr_target: decides how much of the high end of the non-mated scores is kept.
        seed: of all draws.

    Raises:
        ValueError: the set does not know the unit, or lacks one kind of comparison.
    """

    def __init__(
        self, comparisons: Comparisons, unit: Unit, fmr_target: float, seed: int = 0
    ) -> None:
        self.comparisons, self.unit, self.seed = comparisons, unit, seed
        self.mated_rows = np.flatnonzero(comparisons.mated)
        self.non_mated_rows = np.flatnonzero(~comparisons.mated)
        if not (self.mated_rows.size and self.non_mated_rows.size):
            raise ValueError(
                f"{comparisons.name}: a bootstrap needs comparisons of both kinds, there are "
                f"{self.mated_rows.size} mated and {self.non_mated_rows.size} non-mated ones"
            )
        self.tail_rows = self._highest(fmr_target)
        self.approximate_total = False
        if unit == "pair":
            self.units = self.mated_rows.size
            return
        ids = unit_numbers(comparisons, unit)
        self.units = int(ids.max()) + 1
        self._ids = ids
        self._mated_sides = self._sides(self.mated_rows)
        self._tail_sides = self._sides(self.tail_rows)
        self._total = self._closed_form() if comparisons.unlisted else self._listed()

    def sample(self, replicate: int) -> Sample:
        """Weights of one replicate."""
        rng = self._generator(replicate)
        if self.unit == "pair":
            mated, tail, _ = self._drawn_pairs(rng)
            return Sample(mated, tail, self.comparisons.non_mated_total)
        counts = _draw(rng, self.units, self.units)
        return Sample(
            self._mated_sides.weights(counts),
            self._tail_sides.weights(counts),
            self._total.weight(counts),
        )

    def row_weights(self, replicate: int) -> Counts:
        """(N,) weights of all listed comparisons in the same replicate."""
        rng = self._generator(replicate)
        pairs = self.comparisons.pairs
        if self.unit != "pair":
            counts = _draw(rng, self.units, self.units)
            return _Sides(self._ids[pairs[:, 0]], self._ids[pairs[:, 1]]).weights(counts)
        mated, tail, outside = self._drawn_pairs(rng)
        weights = np.zeros(len(pairs), np.int64)
        weights[self.mated_rows], weights[self.tail_rows] = mated, tail
        others = self._below_tail
        places = others.size + self.comparisons.unlisted
        if places:
            weights[others] = _draw(rng, places, outside)[: others.size]
        return weights

    @cached_property
    def _below_tail(self) -> NDArray[np.intp]:
        return np.setdiff1d(self.non_mated_rows, self.tail_rows, assume_unique=True)

    def sources(self, threshold: float) -> int:
        """How many units have a mated comparison below a threshold."""
        rows = self.mated_rows[self.comparisons.scores[self.mated_rows] < np.float64(threshold)]
        if self.unit == "pair":
            return len(rows)
        return len(np.unique(self._ids[self.comparisons.pairs[rows]]))

    def _drawn_pairs(self, rng: np.random.Generator) -> tuple[Counts, Counts, int]:
        mated = _draw(rng, self.mated_rows.size, self.mated_rows.size)
        total, kept = self.comparisons.non_mated_total, self.tail_rows.size
        inside = int(rng.binomial(total, kept / total))
        return mated, _draw(rng, kept, inside), total - inside

    def _generator(self, replicate: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, replicate])

    def _highest(self, fmr_target: float) -> NDArray[np.intp]:
        """(K,) rows of the highest non-mated scores, descending."""
        scores = self.comparisons.scores[self.non_mated_rows]
        size = TAIL_FACTOR * fmr_target * self.comparisons.non_mated_total
        count = min(len(scores), max(int(np.ceil(size)), TAIL_LEAST))
        place = len(scores) - count
        chosen = np.argpartition(scores, place)[place:] if place else np.arange(count)
        rows: NDArray[np.intp] = self.non_mated_rows[
            chosen[np.argsort(-scores[chosen], kind="stable")]
        ]
        return rows

    def _sides(self, rows: NDArray[np.intp]) -> _Sides:
        pairs = self.comparisons.pairs[rows]
        return _Sides(self._ids[pairs[:, 0]], self._ids[pairs[:, 1]])

    def _listed(self) -> _Listed:
        pairs = self.comparisons.pairs[self.non_mated_rows]
        return _Listed(self._ids[pairs[:, 0]], self._ids[pairs[:, 1]], self.units)

    def _closed_form(self) -> _AllPairs:
        """Weights over the unlisted comparisons, which are taken for all that exist."""
        identity = self.comparisons.identity
        people = self._ids if identity is None else np.unique(identity, return_inverse=True)[1]
        person = np.zeros(self.units, np.int64)
        person[self._ids] = people
        every = _AllPairs(np.bincount(self._ids, minlength=self.units), person)
        possible, counted = every.weight(np.ones(self.units, np.int64)), every
        total = self.comparisons.non_mated_total
        self.approximate_total = possible != total
        return _AllPairs(counted.rows, counted.person, total / possible)


class _Listed:
    """Weight of a listed sample: one number for each pair of units that it joins."""

    def __init__(self, first: Counts, second: Counts, units: int) -> None:
        low, high = np.minimum(first, second), np.maximum(first, second)
        across = low != high
        self.within = np.bincount(low[~across], minlength=units)
        ones = np.ones(int(np.count_nonzero(across)))
        self.across = csr_array((ones, (low[across], high[across])), shape=(units, units))

    def weight(self, counts: Counts) -> float:
        return float(counts @ (self.across @ counts) + counts @ self.within)


@dataclass(frozen=True)
class _AllPairs:
    """Weight of every pair of images of two people, without a list of them."""

    rows: Counts
    person: Counts
    factor: float = 1.0

    def weight(self, counts: Counts) -> float:
        drawn = np.bincount(self.person, weights=counts * self.rows)
        return self.factor * float(drawn.sum() ** 2 - (drawn**2).sum()) / 2


def unit_numbers(comparisons: Comparisons, unit: Unit) -> Counts:
    """(M,) numbers 0, 1, ... of the unit that each image belongs to.

    Raises:
        ValueError: the set does not know it.
    """
    ids = comparisons.identity if unit == "identity" else comparisons.image
    if ids is None:
        raise ValueError(
            f"{comparisons.name}: cannot draw by {unit}, the set does not say which {unit} each "
            f"row is; draw by {comparisons.best_unit}"
        )
    numbers: Counts = np.unique(ids, return_inverse=True)[1]
    return numbers


def _draw(rng: np.random.Generator, places: int, draws: int) -> Counts:
    """(places,) how often each place is drawn, with replacement."""
    return np.bincount(rng.integers(places, size=draws), minlength=places)

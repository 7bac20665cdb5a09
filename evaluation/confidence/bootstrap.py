"""Bootstrap intervals for discard curves and their areas, and paired differences of methods.

Identities, images or pairs are drawn; the score threshold is found again in every replicate.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from evaluation.confidence.intervals import Interval
from evaluation.metrics.comparisons import Comparisons, Unit, unit_numbers
from evaluation.metrics.curve import (
    EPSILON,
    GRID,
    GRIDS,
    CurveEngine,
    ProtocolCurve,
    Start,
    Weights,
    area_at,
    check_listed,
    held_rate,
    is_missed,
    protocol_curve,
)
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.thresholds import FEWEST_ERRORS, Caution, Ranked, find_threshold
from utils.long_work import prefetch

Floats = NDArray[np.float64]
Progress = Callable[[Iterable[int]], Iterable[int]]

FEWEST_UNITS = 20
THREADS, LARGE = (
    4,
    200_000,
)  # draws at once, from so many comparisons on: NumPy takes most of a draw


class Bands(NamedTuple):
    """Pointwise interval of FNMR at each discard fraction.

    Attributes:
        low: (F,) lower ends.
        high: (F,) upper ends.
    """

    low: Floats
    high: Floats


class Paired(NamedTuple):
    """Difference of two methods on the same draws; below 0 the first is better.

    Attributes:
        difference: of the areas on the set itself.
        interval: of it.
        relative_difference: the same of the areas relative to random discard.
        relative_interval: of it.
    """

    difference: float
    interval: Interval
    relative_difference: float
    relative_interval: Interval


@dataclass(frozen=True)
class Bootstrap:
    """Replicates of several methods on the same draws.

    Attributes:
        unit: what was drawn: "identity", "image" or "pair".
        units: how many there are; for "pair", mated pairs.
        replicates: number of draws.
        confidence: of every interval.
        limit: discard fraction up to which areas are taken.
        fractions: (F,) discard fractions of the bands.
        curves: name -> curve on the set itself.
        fnmr: name -> (R, F) replicates; NaN where no mated comparison was drawn.
        areas: name -> (R,) replicates of the area.
        relatives: name -> (R,) replicates of area / area of random discard; NaN where the draw has
            no false non-match.
        cautions: what makes the intervals uncertain.
    """

    unit: Unit
    units: int
    replicates: int
    confidence: float
    limit: float
    fractions: Floats
    curves: dict[str, ProtocolCurve]
    fnmr: dict[str, Floats]
    areas: dict[str, Floats]
    relatives: dict[str, Floats]
    cautions: tuple[Caution, ...]

    def bands(self, name: str) -> Bands:
        """Pointwise intervals of a method's curve."""
        fnmr = self.fnmr[name]
        low, high = np.nanquantile(fnmr, self._tails(), axis=0)
        return Bands(low, high)

    def area(self, name: str) -> tuple[float, Interval]:
        """AUERC up to the limit, as the protocol defines it, and its interval."""
        return self.curves[name].areas[self.limit], self.interval(self.areas[name])

    def relative(self, name: str) -> tuple[float, Interval]:
        """The area relative to random discard (1 = no better than chance), and its interval."""
        return self.curves[name].relative[self.limit], self.interval(self.relatives[name])

    def compare(self, first: str, second: str) -> Paired:
        """Compare two methods draw by draw.

        The interval is for this pair of methods alone: among many pairs some will look different
        by chance (`evaluation.comparison` corrects its verdicts for that).
        """
        curve, other = self.curves[first], self.curves[second]
        difference = curve.areas[self.limit] - other.areas[self.limit]
        interval = self.interval(self.areas[first] - self.areas[second])
        return Paired(
            difference,
            interval,
            curve.relative[self.limit] - other.relative[self.limit],
            self.interval(self.relatives[first] - self.relatives[second]),
        )

    def rank_shares(self) -> dict[str, Floats]:
        """Share of the draws in which each method takes each rank, the lowest area first.

        Returns:
            Name -> (number of methods,) shares. Methods with equal areas share their ranks equally.
        """
        areas = np.stack(list(self.areas.values()))
        areas = areas[:, ~np.isnan(areas).any(axis=0)]
        shares = {}
        for name, own in zip(self.areas, areas, strict=True):
            ahead = (areas < own).sum(axis=0)
            equal = (areas == own).sum(axis=0)
            ranks = np.arange(len(self.areas))[:, None]
            here = (ranks >= ahead) & (ranks < ahead + equal)
            shares[name] = (here / equal).mean(axis=1)
        return shares

    def _tails(self) -> tuple[float, float]:
        tail = (1 - self.confidence) / 2
        return tail, 1 - tail

    def interval(self, values: Floats) -> Interval:
        """Interval of a number from its (R,) replicates; those that are NaN are left out."""
        valid = values[~np.isnan(values)]
        if not valid.size:
            return Interval(float("nan"), float("nan"))
        low, high = np.quantile(valid, self._tails())
        return Interval(float(low), float(high))


def p_value(values: Floats) -> float:
    """Two-sided p-value of a difference from its (R,) replicates; those that are NaN are left out.

    2 (1 + n) / (1 + R), at most 1, where n counts the replicates on the rarer side of 0, with those
    at 0 (Davison and Hinkley 1997, 4.2: a p-value is never 0). It agrees with the interval: small
    where that excludes 0.
    """
    valid = values[~np.isnan(values)]
    rarer = min(np.count_nonzero(valid <= 0), np.count_nonzero(valid >= 0))
    return min(1.0, 2 * (1 + int(rarer)) / (1 + valid.size))


def bootstrap(
    comparisons: Comparisons,
    uncertainties: Mapping[str, NDArray[np.float32]],
    protocol: Protocol,
    fmr_target: float,
    *,
    unit: Unit | None = None,
    replicates: int = 1000,
    confidence: float = 0.95,
    limit: float = 0.3,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bootstrap:
    """Draw the units of a set with replacement, and measure every method on every draw.

    A comparison of two different drawn units weighs the product of how often each was drawn; one
    within a unit, how often that was drawn. "pair" draws mated and non-mated comparisons
    separately. Intervals are percentiles of the replicates.

    Args:
        comparisons: scored, of both kinds.
        uncertainties: name -> (M,) of the images; all methods see the same draws.
        protocol: the switches of the curve.
        fmr_target: FMR of the threshold.
        unit: what to draw; None for the best one that the set knows.
        replicates: number of draws. Where the threshold is fixed each costs a few passes over the
            mated comparisons and the high end of the non-mated ones; under "per_subset" it costs a
            whole evaluation.
        confidence: of the intervals, in (0, 1).
        limit: discard fraction up to which areas are taken, in (0, 1].
        seed: of the draws.
        progress: wraps the loop over the draws, as `tqdm` does.

    Raises:
        ValueError: a unit that the set does not know, no method, impossible arguments, one kind of
            comparison missing, a protocol that discards images, or one that needs the non-mated
            comparisons that are not listed.
    """
    _check(uncertainties, replicates, confidence, limit)
    protocol = dataclasses.replace(protocol, limits=(limit,))
    check_listed(comparisons, protocol)
    methods = {name: comparisons.with_uncertainty(values) for name, values in uncertainties.items()}
    curves = {
        name: protocol_curve(method, protocol, fmr_target) for name, method in methods.items()
    }
    resampling = Resampling(comparisons, unit or comparisons.best_unit, fmr_target, seed)
    measure = Measure(resampling, list(methods.values()), protocol, fmr_target)
    fractions = GRIDS.get(protocol.grid, GRID)
    fnmr = np.full((len(methods), replicates, len(fractions)), np.nan)
    areas, relatives = np.full((2, len(methods), replicates), np.nan)
    draws: Iterable[int] = range(replicates)
    draws = progress(draws) if progress else draws
    threads = min(THREADS, os.cpu_count() or 1)
    is_large = threads > 1 and len(comparisons.scores) >= LARGE
    measured = (
        prefetch(measure.draw, draws, threads, 2 * threads)
        if is_large
        else map(measure.draw, draws)
    )
    for draw, of_methods in enumerate(measured):
        for row, values in enumerate(of_methods):
            fnmr[row, draw], areas[row, draw], relatives[row, draw] = values
    return Bootstrap(
        resampling.unit,
        resampling.units,
        replicates,
        confidence,
        limit,
        fractions,
        curves,
        dict(zip(methods, fnmr, strict=True)),
        dict(zip(methods, areas, strict=True)),
        dict(zip(methods, relatives, strict=True)),
        _cautions(
            resampling, next(iter(curves.values())), areas[0], relatives[0], measure.beyond_list
        ),
    )


class CurveValues(NamedTuple):
    """What a replicate contributes.

    Attributes:
        fnmr: (F,) at the fractions of the bands.
        area: up to the one limit of the protocol, as the protocol defines it.
        relative: area / area of random discard; NaN without any false non-match.
    """

    fnmr: Floats
    area: float
    relative: float


class Measure:
    """Draws replicates and measures all methods on each, as if rows had been repeated.

    Args:
        resampling: the draws.
        methods: the same comparisons under each method's uncertainties.
        protocol: with one limit.
        fmr_target: of the threshold.

    Attributes:
        beyond_list: number of replicates whose threshold lay below all listed scores, of a set that
            lists only the high end; the end of the list was taken for it.

    Raises:
        ValueError: the protocol discards images.
    """

    def __init__(
        self,
        resampling: Resampling,
        methods: Sequence[Comparisons],
        protocol: Protocol,
        fmr_target: float,
    ) -> None:
        if protocol.discard_over == "images":
            raise ValueError(
                f"protocol {protocol.name} discards images, and no interval is known for that: "
                "discard over 'all', 'mated' or 'each_kind'"
            )
        self._beyond_list: list[int] = []
        self._resampling, self._protocol, self._fmr_target = resampling, protocol, fmr_target
        self._bands = GRIDS.get(protocol.grid, GRID) + EPSILON
        self._engines = [CurveEngine(method, protocol, resampled=True) for method in methods]
        per_subset = protocol.threshold == "per_subset"
        self._needs_others = per_subset or protocol.discard_over == "each_kind"
        self._needs_rows = (
            self._needs_others or protocol.discard_over == "all" or protocol.read_at == "kept_score"
        )
        scores = resampling.comparisons.scores
        self._scores = scores[resampling.mated_rows]
        if not per_subset:
            self._own = Ranked.of(self._scores, keep_rows=True)
            tail = resampling.tail_rows[::-1]
            self._tail = Ranked(scores[tail], np.arange(len(tail))[::-1])
            self._whole: Ranked | None = None

    @property
    def beyond_list(self) -> int:
        """How many replicates took the end of the list."""
        return len(self._beyond_list)

    def draw(self, replicate: int) -> list[CurveValues]:
        """Each method's values; none where a kind of comparison was not drawn at all."""
        drawn = self.drawn(replicate)
        return [self._values(engine, *drawn) for engine in self._engines] if drawn else []

    def drawn(self, replicate: int) -> tuple[float | None, Weights] | None:
        """Threshold (None under "per_subset") and weights; None where a kind was not drawn."""
        resampling, rows, others = self._resampling, None, None
        sample = resampling.sample(replicate)
        if self._needs_rows:
            rows = resampling.row_weights(replicate)
        if rows is not None and self._needs_others:
            others = rows[resampling.non_mated_rows]
        if not (sample.mated.any() and sample.total):
            return None
        threshold, errors = None, sample.mated
        if self._protocol.threshold == "fixed":
            threshold = self.threshold(sample, replicate)
            errors = sample.mated * is_missed(self._scores, threshold, self._protocol)
        return threshold, Weights(sample.mated, errors, others, rows)

    def threshold(self, sample: Sample, replicate: int) -> float:
        """Score threshold of one replicate, which is part of what is uncertain."""
        resampling, protocol = self._resampling, self._protocol
        starting = protocol.rule == "starting_error"
        target = protocol.start_fnmr if starting else self._fmr_target
        own, listed = self._own.weighted(sample.mated), len(resampling.non_mated_rows)
        unlisted = resampling.comparisons.unlisted
        complete = len(self._tail.values) == listed
        others = self._tail.weighted(sample.tail)
        threshold = find_threshold(
            own, others, protocol.rule, target, sample.total, complete=complete and not unlisted
        )
        if threshold is None and not complete:
            if self._whole is None:
                scores = resampling.comparisons.scores[resampling.non_mated_rows]
                self._whole = Ranked.of(scores, keep_rows=True)
            weights = resampling.row_weights(replicate)[resampling.non_mated_rows]
            others = self._whole.weighted(weights)
            threshold = find_threshold(
                own, others, protocol.rule, target, sample.total, complete=not unlisted
            )
        if threshold is None:
            self._beyond_list.append(replicate)
            return resampling.comparisons.listed_from
        return threshold

    def _values(
        self, engine: CurveEngine, threshold: float | None, weights: Weights
    ) -> CurveValues:
        cuts = engine.cuts(weights)
        if threshold is None:
            points = engine.points(self._fmr_target, cuts, weights)
            misses, mated = np.array([point[1:3] for point in points], np.int64).T
        else:
            _, misses, mated, _ = engine.fixed(threshold, cuts, weights)
        (limit,) = self._protocol.limits
        fractions, fnmr = cuts.fractions, held_rate(misses, mated)
        start = Start(int(misses[0]), int(mated[0]), cuts.total)
        places = np.searchsorted(fractions, self._bands, side="right") - 1
        return CurveValues(fnmr[places], *area_at(limit, fractions, fnmr, start, self._protocol))


def _cautions(
    resampling: Resampling,
    curve: ProtocolCurve,
    areas: Floats,
    relatives: Floats,
    beyond_list: int,
) -> tuple[Caution, ...]:
    """What makes the intervals uncertain.

    Args:
        resampling: the draws.
        curve: on the set itself.
        areas: (R,) of one method; NaN where no curve could be drawn.
        relatives: (R,) of the same; NaN there, and where a draw had no false non-match.
        beyond_list: draws whose threshold lay below the listed scores.
    """
    comparisons, unit, units = resampling.comparisons, resampling.unit, resampling.units
    best, errors = comparisons.best_unit, curve.start.errors
    sources = resampling.sources(float(curve.edc.score_threshold[0]))
    drawn = {"units_drawn": units, "unit": unit}
    total, lost = len(areas), int(np.isnan(areas).sum())
    without = int(np.isnan(relatives).sum()) - lost
    beyond = {"draws": beyond_list, "total": total, "listed_from": comparisons.listed_from}
    cautions = (
        (unit != best, Caution("coarse_unit", {"unit": unit, "best": best})),
        (units < FEWEST_UNITS, Caution("few_units", drawn)),
        (errors < FEWEST_ERRORS, Caution("few_errors", {"errors": errors})),
        (
            sources < FEWEST_ERRORS <= errors,
            Caution("few_sources", {"errors": errors, "sources": sources, **drawn}),
        ),
        (without > 0, Caution("draws_without_errors", {"draws": without, "total": total})),
        (lost > 0, Caution("draws_lost", {"draws": lost, "total": total})),
        (beyond_list > 0, Caution("beyond_list", beyond)),
        (resampling.approximate_total, Caution("approximate_total", {})),
    )
    return tuple(caution for applies, caution in cautions if applies)


def _check(
    uncertainties: Mapping[str, NDArray[np.float32]],
    replicates: int,
    confidence: float,
    limit: float,
) -> None:
    if not uncertainties:
        raise ValueError("bootstrap: no method: give at least one name with its uncertainties")
    if replicates < 2:
        raise ValueError(f"bootstrap: {replicates} replicates: an interval needs 2 or more")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} must lie between 0 and 1, as in 0.95")
    if not 0 < limit <= 1:
        raise ValueError(f"limit {limit} must be a discard fraction above 0, up to 1")


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
        self._total = (
            self._closed_form() if comparisons.unlisted else self._listed(self.non_mated_rows)
        )

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
        """(N,) weights of all listed comparisons in the same replicate, in the smallest type."""
        rng = self._generator(replicate)
        if self.unit != "pair":
            counts = _draw(rng, self.units, self.units)
            smallest = np.min_scalar_type(int(counts.max()) ** 2)  # millions are gathered at random
            return self._row_sides.weights(counts.astype(smallest))
        mated, tail, outside = self._drawn_pairs(rng)
        weights = np.zeros(len(self.comparisons.pairs), np.int64)
        weights[self.mated_rows], weights[self.tail_rows] = mated, tail
        others = self._below_tail
        places = others.size + self.comparisons.unlisted
        if places:
            weights[others] = _draw(rng, places, outside)[: others.size]
        return weights

    def counts(self, replicate: int) -> Counts:
        """(units,) how often each unit is drawn in the same replicate; not for "pair"."""
        return _draw(self._generator(replicate), self.units, self.units)

    def weights_of(self, rows: NDArray[np.intp], counts: Counts) -> Counts:
        """(n,) weights of some comparisons in a draw of so many of each unit."""
        return self._sides(rows).weights(counts)

    def total_within(self, images: NDArray[np.bool_]) -> Callable[[Counts], float]:
        """Weight of the non-mated comparisons between some of the (M,) images, from a draw."""
        if self.comparisons.unlisted:
            return self._closed_form(images).weight
        inside = images[self.comparisons.pairs[self.non_mated_rows]].all(axis=1)
        return self._listed(self.non_mated_rows[inside]).weight

    @cached_property
    def _row_sides(self) -> _Sides:
        return self._sides(slice(None))

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

    def _sides(self, rows: NDArray[np.intp] | slice) -> _Sides:
        pairs = self.comparisons.pairs[rows]
        return _Sides(self._ids[pairs[:, 0]], self._ids[pairs[:, 1]])

    def _listed(self, rows: NDArray[np.intp]) -> _Listed:
        pairs = self.comparisons.pairs[rows]
        return _Listed(self._ids[pairs[:, 0]], self._ids[pairs[:, 1]], self.units)

    def _closed_form(self, images: NDArray[np.bool_] | None = None) -> _AllPairs:
        """Weights over the unlisted comparisons (of images), which are taken for all that exist."""
        identity = self.comparisons.identity
        people = self._ids if identity is None else np.unique(identity, return_inverse=True)[1]
        person = np.zeros(self.units, np.int64)
        person[self._ids] = people
        every = _AllPairs(np.bincount(self._ids, minlength=self.units), person)
        possible = every.weight(np.ones(self.units, np.int64))
        total = self.comparisons.non_mated_total
        self.approximate_total = possible != total
        rows = (
            every.rows if images is None else np.bincount(self._ids[images], minlength=self.units)
        )
        return _AllPairs(rows, every.person, total / possible)


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


def _draw(rng: np.random.Generator, places: int, draws: int) -> Counts:
    """(places,) how often each place is drawn, with replacement."""
    return np.bincount(rng.integers(places, size=draws), minlength=places)

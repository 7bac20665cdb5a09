"""Bootstrap intervals for discard curves and their areas, and paired differences of methods.

Identities, images or pairs are drawn; the score threshold is found again in every replicate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.intervals import Interval
from evaluation.confidence.resample import Resampling, Sample
from evaluation.metrics.areas import Start, area_at
from evaluation.metrics.comparisons import Comparisons, Unit
from evaluation.metrics.curve import ProtocolCurve, held_rate, protocol_curve
from evaluation.metrics.engine import (
    EPSILON,
    GRID,
    GRIDS,
    CurveEngine,
    Weights,
    check_listed,
    is_missed,
)
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.ranked import Ranked
from evaluation.metrics.thresholds import FEWEST_ERRORS, Caution, find_threshold

Floats = NDArray[np.float64]
Progress = Callable[[Iterable[int]], Iterable[int]]

FEWEST_UNITS = 20


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
        by chance.
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

    def rank_shares(self, names: Iterable[str] | None = None) -> dict[str, Floats]:
        """Share of the draws in which each method takes each rank, the lowest area first.

        Args:
            names: of the methods to rank; None for all.

        Returns:
            Name -> (number of methods,) shares. Methods with equal areas share their ranks equally.
        """
        chosen = list(self.areas) if names is None else list(names)
        areas = np.stack([self.areas[name] for name in chosen])
        areas = areas[:, ~np.isnan(areas).any(axis=0)]
        shares = {}
        for name, own in zip(chosen, areas, strict=True):
            ahead = (areas < own).sum(axis=0)
            equal = (areas == own).sum(axis=0)
            ranks = np.arange(len(chosen))[:, None]
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
    draws = range(replicates)
    for draw in progress(draws) if progress else draws:
        for row, values in enumerate(measure.draw(draw)):
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
        beyond_list: replicates whose threshold lay below all listed scores, of a set that lists
            only the high end; the end of the list was taken for it.

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
        self.beyond_list = 0
        self._resampling, self._protocol, self._fmr_target = resampling, protocol, fmr_target
        self._bands = GRIDS.get(protocol.grid, GRID) + EPSILON
        self._engines = [CurveEngine(method, protocol, resampled=True) for method in methods]
        per_subset = protocol.threshold == "per_subset"
        self._needs_others = (
            per_subset or protocol.discard_over == "all" or protocol.read_at == "kept_score"
        )
        scores = resampling.comparisons.scores
        self._scores = scores[resampling.mated_rows]
        if not per_subset:
            self._own = Ranked.of(self._scores, keep_rows=True)
            tail = resampling.tail_rows[::-1]
            self._tail = Ranked(scores[tail], np.arange(len(tail))[::-1])
            self._whole: Ranked | None = None

    def draw(self, replicate: int) -> list[CurveValues]:
        """Each method's values; none where a kind of comparison was not drawn at all."""
        resampling, rows, others = self._resampling, None, None
        if self._needs_others:
            rows = resampling.row_weights(replicate)
            others = rows[resampling.non_mated_rows]
            total = float(others.sum())
            if resampling.comparisons.unlisted:
                total = resampling.sample(replicate).total
            sample = Sample(rows[resampling.mated_rows], rows[resampling.tail_rows], total)
        else:
            sample = resampling.sample(replicate)
        if not (sample.mated.any() and sample.total):
            return []
        threshold, errors = None, sample.mated
        if self._protocol.threshold == "fixed":
            threshold = self.threshold(sample, replicate)
            errors = sample.mated * is_missed(self._scores, threshold, self._protocol)
        weights = Weights(sample.mated, errors, others, rows)
        return [self._values(engine, threshold, weights) for engine in self._engines]

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
            self.beyond_list += 1
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

"""Error rates and refusals by group at the one threshold, and how far apart the groups are.

The threshold is that of all comparisons, and a comparison belongs to a group where both of its
sides do. How far apart: the highest rate over the geometric mean of all, and over the lowest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.bootstrap import FEWEST_UNITS, Measure, Progress, Resampling
from evaluation.confidence.intervals import Count, Interval
from evaluation.metrics.comparisons import Comparisons, Unit, fuse_sides, unit_numbers
from evaluation.metrics.curve import EPSILON, CurveEngine, Cuts, Weights, is_missed
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.thresholds import FEWEST_ERRORS, OperatingPoint, Ranked
from evaluation.sets.groups import Grouping

Kind = Literal["fnmr", "fmr", "refused"]
KINDS: tuple[Kind, ...] = ("fnmr", "fmr", "refused")
SHARES = tuple(percent / 100 for percent in range(0, 51, 5))  # refused of all, on a group's curve
REFUSED = 0.1  # that share where a group's own share is read
NONE = Interval(math.nan, math.nan)

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class GroupRates:
    """One group at the one threshold.

    Attributes:
        group: its name.
        people: in it, as far as the set knows people, else images.
        counts: of "fnmr" (missed among mated comparisons), of "fmr" (matched among non-mated ones)
            and of "refused" (mated comparisons above the uncertainty up to which 1 - `REFUSED` of
            all are kept).
        refused_images: images above that uncertainty, of all that are in it.
        intervals: of those rates, each for itself; empty without draws.
        kept: at each of `SHARES` of all comparisons refused: missed among those of the group that
            are kept.
        too_small: rates for which the group is too small to be compared with others.
    """

    group: str
    people: int
    counts: Mapping[Kind, Count]
    refused_images: Count
    intervals: Mapping[Kind, Interval]
    kept: tuple[Count, ...]
    too_small: tuple[Kind, ...]

    @property
    def after(self) -> Count:
        """Missed among the kept where `REFUSED` of all are refused."""
        return self.kept[SHARES.index(REFUSED)]


@dataclass(frozen=True)
class Differential:
    """How far apart one rate is over the groups that are not too small for it.

    Attributes:
        kind: of the rate.
        worst: group with the highest rate; "" where fewer than two groups are compared.
        ratio: highest rate / geometric mean of all; NaN where a rate is 0 or nothing is compared.
        interval: of the ratio; NaN without draws.
        to_best: highest / lowest rate.
        to_best_interval: of that.
        at_least: where a rate is 0, the ratio if it were at the upper end of what zero errors leave
            open (the rule of three), else NaN.
        relative: group -> rate / geometric mean with an interval; all of them hold at once.
    """

    kind: Kind
    worst: str
    ratio: float
    interval: Interval
    to_best: float
    to_best_interval: Interval
    at_least: float
    relative: Mapping[str, tuple[float, Interval]]


@dataclass(frozen=True)
class GroupResult:
    """One grouping at one FMR target.

    Attributes:
        grouping: which group each image is in.
        fmr_target: of the threshold; the realised one where a starting error fixed it.
        score_threshold: found on all comparisons.
        shares: `SHARES`.
        refused: `REFUSED`.
        uncertainty_threshold: above it a mated comparison is among those of all.
        rows: one per group.
        across: (mated, non-mated) comparisons of two groups, and false matches among the latter.
        unknown: (mated, non-mated) comparisons with a side whose group is unknown, and the same.
        differentials: of each kind of rate.
        unit: what was drawn.
        units: how many of them.
        replicates: number of draws; 0 without intervals.
        confidence: of the intervals.
    """

    grouping: Grouping
    fmr_target: float
    score_threshold: float
    shares: tuple[float, ...]
    refused: float
    uncertainty_threshold: float
    rows: tuple[GroupRates, ...]
    across: tuple[int, Count]
    unknown: tuple[int, Count]
    differentials: tuple[Differential, ...]
    unit: Unit
    units: int
    replicates: int
    confidence: float


def group_results(
    comparisons: Comparisons,
    groupings: Sequence[Grouping],
    protocol: Protocol,
    fmr_target: float,
    *,
    unit: Unit | None = None,
    replicates: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[GroupResult, ...]:
    """Measure groups at the one threshold, and draw the units for intervals.

    Intervals of a group's own rates are percentiles of the draws. Those of ratios come from a
    region that holds all groups' log(rate / geometric mean) at once: estimate +- c s, with s the
    standard deviation over the draws, and c the quantile of the largest deviation in units of s
    (the bootstrap's max-t). The highest of several rates lies above their mean by chance alone, so
    percentiles of the ratio itself would never hold 1.

    Args:
        comparisons: of the set.
        groupings: of its images.
        protocol: of the threshold and of what is refused.
        fmr_target: of the threshold.
        unit: what to draw; None for the best one that the set knows.
        replicates: number of draws; 0 for none.
        confidence: of the intervals.
        seed: of the draws.
        progress: wraps the loop over the draws.

    Raises:
        ValueError: a threshold that moves, a protocol that discards images, or pairs as unit.
    """
    unit = unit or comparisons.best_unit
    if protocol.threshold != "fixed" or protocol.discard_over == "images":
        raise ValueError(
            f"protocol {protocol.name} has no one threshold for all groups, or discards images: "
            "compare groups under another, such as iso29794"
        )
    if unit == "pair":
        raise ValueError(
            f"{comparisons.name}: a pair is drawn of no group: compare groups by identity or image"
        )
    if protocol.read_at == "kept_score":  # of all comparisons, not of a group's
        protocol = dataclasses.replace(protocol, read_at="threshold")
    resampling = Resampling(comparisons, unit, fmr_target, seed)
    engine = CurveEngine(comparisons, protocol, resampled=True)
    counters = [_Counter(engine, resampling, grouping) for grouping in groupings]
    point = engine.point(fmr_target)
    missed = is_missed(comparisons.scores[resampling.mated_rows], point.threshold, protocol)
    once = Weights(np.ones(len(missed), np.int64), missed.astype(np.int64))
    cuts, ones = _at_shares(engine.cuts()), np.ones(resampling.units, np.int64)
    own = [counter.tally(cuts, point.threshold, once, ones) for counter in counters]
    drawn: list[list[_Tally]] = []
    measure = Measure(resampling, [comparisons], protocol, fmr_target)
    for draw in progress(range(replicates)) if progress else range(replicates):
        if (sample := measure.drawn(draw)) is not None:
            threshold, weights = sample
            assert threshold is not None  # it is fixed
            cuts_drawn, counts = _at_shares(engine.cuts(weights)), resampling.counts(draw)
            drawn.append([c.tally(cuts_drawn, threshold, weights, counts) for c in counters])
    aim = point.fmr if protocol.rule == "starting_error" else fmr_target
    limit = float(cuts.thresholds[SHARES.index(REFUSED)])
    draws = list(zip(*drawn, strict=True)) or [()] * len(counters)
    return tuple(
        counter.result(tally, of_draws, point, aim, limit, confidence)
        for counter, tally, of_draws in zip(counters, own, draws, strict=True)
    )


def _at_shares(cuts: Cuts) -> Cuts:
    """Where `SHARES` are discarded: at the last fraction not above each."""
    at = np.searchsorted(cuts.fractions, np.array(SHARES) + EPSILON, side="right") - 1
    fractions, thresholds = cuts.fractions[at], cuts.thresholds[at]
    return Cuts(fractions, thresholds, cuts.places[at], cuts.kept[at], cuts.total)


class _Tally(NamedTuple):
    """Counts of G groups under some weights.

    Attributes:
        missed: (G, F) false non-matches that are kept at each of `SHARES`.
        mated: (G, F) mated comparisons.
        matched: (G,) false matches.
        non_mated: (G,) non-mated comparisons.
    """

    missed: Counts
    mated: Counts
    matched: Floats
    non_mated: Floats

    def of(self, kind: Kind) -> tuple[Floats | Counts, Floats | Counts]:
        """(G,) errors and totals of a rate."""
        if kind == "fmr":
            return self.matched, self.non_mated
        all_mated = self.mated[:, 0]
        if kind == "fnmr":
            return self.missed[:, 0], all_mated
        return all_mated - self.mated[:, SHARES.index(REFUSED)], all_mated


class _Counter:
    """Counts one grouping: of the set itself, and of draws."""

    def __init__(self, engine: CurveEngine, resampling: Resampling, grouping: Grouping) -> None:
        comparisons, number = resampling.comparisons, len(grouping.groups)
        self._engine, self._resampling, self._grouping = engine, resampling, grouping
        first, second = grouping.place[comparisons.pairs].T
        self._place = np.where(first == second, first, number).astype(np.int8)  # number: across
        self._place[np.minimum(first, second) < 0] = number + 1  # unknown
        mated = self._place[resampling.mated_rows]
        self._mated = [mated == group for group in range(number)]
        self._totals = [resampling.total_within(grouping.place == g) for g in range(number)]
        self._others = resampling.non_mated_rows
        self._by_score = Ranked.of(comparisons.scores[self._others], keep_rows=True)

    def tally(self, cuts: Cuts, threshold: float, weights: Weights, counts: Counts) -> _Tally:
        """Count under the weights of a draw of so many of each unit."""
        missed, mated = (
            np.array([self._engine.kept_mated(cuts, each * own) for own in self._mated])
            for each in (weights.errors, weights.own)
        )
        totals = np.array([weigh(counts) for weigh in self._totals])
        return _Tally(missed, mated, self._matched(threshold, counts)[: len(totals)], totals)

    def _matched(self, threshold: float, counts: Counts) -> Floats:
        """(G + 2,) weight of false matches: of the groups, across them, and unknown."""
        rows = self._others[self._by_score.rows_within(threshold, np.inf)]
        weights = self._resampling.weights_of(rows, counts)
        matched = np.bincount(self._place[rows], weights, minlength=len(self._mated) + 2)
        return matched.astype(np.float64)

    def result(
        self,
        own: _Tally,
        draws: Sequence[_Tally],
        point: OperatingPoint,
        aim: float,
        limit: float,
        confidence: float,
    ) -> GroupResult:
        """Rates of the set itself, with intervals from the draws."""
        resampling, grouping = self._resampling, self._grouping
        comparisons, number = resampling.comparisons, len(grouping.groups)
        expected = {"fnmr": point.fnmr, "fmr": aim, "refused": REFUSED}
        units = unit_numbers(comparisons, resampling.unit)
        image = np.arange(len(units)) if comparisons.image is None else comparisons.image
        fuse, values = self._engine.protocol.fuse, comparisons.uncertainty
        refused = fuse_sides(values, values, fuse) > limit  # as if compared with one like itself
        drawn = {kind: [draw.of(kind) for draw in draws] for kind in KINDS}
        small, rows = {}, []
        for place, group in enumerate(grouping.groups):
            inside = grouping.place == place
            compared = comparisons.pairs[resampling.mated_rows[self._mated[place]]]
            people, in_mated = (_distinct(units[some]) for some in (inside, compared))
            small[group] = tuple(
                kind
                for kind in KINDS
                if (people if kind == "fmr" else in_mated) < FEWEST_UNITS
                or expected[kind] * own.of(kind)[1][place] < FEWEST_ERRORS
            )
            images = Count(_distinct(image[inside & refused]), _distinct(image[inside]))
            counted = {kind: _count(*own.of(kind), place) for kind in KINDS}
            rows.append(
                GroupRates(
                    group,
                    people,
                    counted,
                    images,
                    {
                        kind: _percentiles(counted[kind], drawn[kind], place, confidence)
                        for kind in KINDS
                        if draws
                    },
                    tuple(map(Count, own.missed[place].tolist(), own.mated[place].tolist())),
                    small[group],
                )
            )
        differentials = []
        for kind in KINDS:
            large = [p for p, group in enumerate(grouping.groups) if kind not in small[group]]
            names = [grouping.groups[place] for place in large]
            errors, totals = (np.asarray(side, float)[large] for side in own.of(kind))
            sides = np.array(drawn[kind]).reshape(-1, 2, number)[:, :, large]
            differentials.append(differential(kind, names, errors, totals, sides, confidence))
        ones = np.ones(resampling.units, np.int64)
        matched = self._matched(point.threshold, ones)
        known = resampling.total_within(grouping.place >= 0)(ones)
        mated = np.bincount(self._place[resampling.mated_rows], minlength=number + 2)
        others = known - own.non_mated.sum(), comparisons.non_mated_total - known
        across, unknown = (
            (int(mated[place]), Count(round(matched[place]), round(total)))
            for place, total in zip((number, number + 1), others, strict=True)
        )
        return GroupResult(
            grouping, aim, point.threshold, SHARES, REFUSED, limit, tuple(rows), across, unknown,
            tuple(differentials), resampling.unit, resampling.units, len(draws), confidence,
        )  # fmt: skip


def _count(errors: Floats | Counts, totals: Floats | Counts, place: int) -> Count:
    return Count(round(errors[place]), round(totals[place]))


def _distinct(ids: NDArray[np.integer]) -> int:
    return len(np.unique(ids))


def _percentiles(
    count: Count, draws: Sequence[tuple[Floats | Counts, Floats | Counts]], place: int, level: float
) -> Interval:
    """Of a group's rate; draws without any comparison of it are left out.

    Without any error there is no spread to draw: then 0 to `upper_of_none`.
    """
    if not count.errors and count.total:
        return Interval(0.0, min(1.0, upper_of_none(level) / count.total))
    rates = [errors[place] / totals[place] for errors, totals in draws if totals[place]]
    if not rates:
        return NONE
    low, high = np.quantile(rates, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high))


def upper_of_none(confidence: float) -> float:
    """Errors to expect at most where none occurred: 3 at 95 %, the rule of three.

    -log(1 - confidence), which takes comparisons as independent.
    """
    return -math.log(1 - confidence)


def differential(
    kind: Kind,
    groups: Sequence[str],
    errors: Floats,
    totals: Floats,
    draws: Floats,
    confidence: float,
) -> Differential:
    """Compare a rate over groups; see `group_results` for the intervals.

    A rate of 0 makes the geometric mean 0 and the ratio undefined. What can be said then is
    `at_least`: 0 of n is taken as `upper_of_none` / n.

    Args:
        kind: of the rate.
        groups: (G,) names.
        errors: (G,) of the set itself.
        totals: (G,) of the same.
        draws: (R, 2, G) errors and totals of each draw.
        confidence: of the intervals.
    """
    nothing = Differential(kind, "", math.nan, NONE, math.nan, NONE, math.nan, {})
    if len(groups) < 2 or not errors.any():
        return nothing
    worst = groups[int(np.argmax(errors / totals))]
    if not errors.all():
        logs = np.log(np.where(errors > 0, errors, upper_of_none(confidence)) / totals)
        at_least = max(1.0, math.exp(np.log(errors.max() / totals[errors.argmax()]) - logs.mean()))
        return dataclasses.replace(nothing, worst=worst, at_least=at_least)
    logs = np.log(errors / totals)
    logs -= logs.mean()
    low, high = _region(logs, errors, totals, draws, confidence)
    ends = [Interval(*map(math.exp, pair)) for pair in zip(low, high, strict=True)]
    return Differential(
        kind,
        worst,
        math.exp(logs.max()),
        Interval(math.exp(np.maximum(0, low.max())), math.exp(high.max())),
        math.exp(logs.max() - logs.min()),
        Interval(math.exp(np.maximum(0, low.max() - high.min())), math.exp(high.max() - low.min())),
        math.nan,
        {g: (math.exp(v), i) for g, v, i in zip(groups, logs, ends, strict=True)},
    )


def _region(
    logs: Floats, errors: Floats, totals: Floats, draws: Floats, confidence: float
) -> tuple[Floats, Floats]:
    """(G,) ends of intervals of log(rate / geometric mean) that hold all at once.

    Half an error is added to each count for the deviations alone, so that a draw without an error
    of some group is finite.
    """
    if not len(draws):
        return logs * math.nan, logs * math.nan
    drawn = np.log((draws[:, 0] + 0.5) / (draws[:, 1] + 0.5))
    centre = np.log((errors + 0.5) / (totals + 0.5))
    away = drawn - drawn.mean(axis=1, keepdims=True) - (centre - centre.mean())
    spread = away.std(axis=0)
    largest = np.abs(away / np.where(spread > 0, spread, 1)).max(axis=1)
    reach = float(np.quantile(largest, confidence)) * spread
    return logs - reach, logs + reach

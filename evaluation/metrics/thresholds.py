"""Thresholds by each of the rules in use, and the error rates at one, some or all of them.

They count on `Ranked`: values in ascending order under whole-number weights. Without weights each
counts once (the set itself); a bootstrap gives counts, and gets what it would get if each
comparison were repeated as often. Errors stay whole numbers, so a rate can always be shown as
k / N. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

Rule = Literal["nearest", "conservative", "interpolated", "starting_error"]
Counts = NDArray[np.int64]
Places = NDArray[np.intp]
Weigh = Callable[[slice], NDArray[np.integer] | NDArray[np.bool_]]

WIDENED = 10_000  # values that NumPy may widen for a bound of a wider type; results are the same
FIRST_STEP = 16  # places looked at first when the next value with a weight is sought
FEWEST_ERRORS = 5  # expected ones, below which a threshold is too uncertain to trust
FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


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
        sums = np.empty(len(self.values) + 1, np.int64)
        sums[0] = 0
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


class Caution(NamedTuple):
    """Something that makes a number too uncertain to trust, or incomplete.

    Attributes:
        kind: what it is; `report.words` has the sentence for each.
        facts: the numbers of that sentence.
    """

    kind: str
    facts: Mapping[str, float | str]


class OperatingPoint(NamedTuple):
    """One threshold and the errors at it.

    Attributes:
        threshold: scores below it are non-matches.
        false_non_matches: mated scores below the threshold.
        mated: all mated scores.
        false_matches: non-mated scores at or above the threshold.
        non_mated: all non-mated scores.
    """

    threshold: float
    false_non_matches: int
    mated: int
    false_matches: int
    non_mated: int

    @property
    def fnmr(self) -> float:
        """False non-match rate; NaN without mated scores."""
        return self.false_non_matches / self.mated if self.mated else float("nan")

    @property
    def fmr(self) -> float:
        """False match rate; NaN without non-mated scores."""
        return self.false_matches / self.non_mated if self.non_mated else float("nan")


def operating_point(
    mated: NDArray[np.floating],
    non_mated: NDArray[np.floating],
    rule: Rule,
    target: float,
    *,
    unlisted: int = 0,
    listed_from: float = -np.inf,
) -> OperatingPoint:
    """Find a threshold and count the errors at it.

    Args:
        mated: (P,) scores.
        non_mated: (Q,) scores; the high end of them if some are `unlisted`.
        rule: "nearest", "conservative" and "interpolated" take an FMR as target, "starting_error"
            an FNMR; see `Protocol`.
        target: that rate, between 0 and 1.
        unlisted: further non-mated scores, all below `listed_from`.
        listed_from: lower end of the non-mated scores that are listed.

    Raises:
        ValueError: no mated score, a target outside (0, 1), or a threshold that would lie below
            `listed_from`.
    """
    if not 0 < target < 1:
        raise ValueError(f"target rate {target} is not between 0 and 1")
    if not len(mated):
        raise ValueError("no mated pair: there is no FNMR to measure")
    own, others = Ranked.of(mated), Ranked.of(non_mated)
    total = others.total + unlisted
    threshold = find_threshold(own, others, rule, target, total, complete=not unlisted)
    if threshold is None or (unlisted and threshold < listed_from):
        raise ValueError(
            f"the threshold for {'FNMR' if rule == 'starting_error' else 'FMR'} {target:g} lies "
            f"below {listed_from:.4f}, and of {total} non-mated scores only the {len(non_mated)} "
            "above that are kept: take a sample of the non-mated pairs (--non_mated COUNT) "
            "instead of all"
        )
    return point_at(own, others, threshold, total)


def find_threshold(
    own: Ranked, others: Ranked, rule: Rule, target: float, total: float, *, complete: bool
) -> float | None:
    """Find the threshold alone.

    Args:
        own: mated scores, one with a weight at least.
        others: non-mated scores, or the highest of them.
        rule: see `operating_point`.
        target: rate.
        total: weight of all non-mated scores.
        complete: whether `others` are all of them.

    Returns:
        The threshold; None where non-mated scores decide that are not among `others`.
    """
    if rule == "starting_error":
        return _starting_threshold(own, target)
    rejected = others.highest_over(target, total) if total else None
    if rejected is None:
        return _lowest(own.next_above(-np.inf), others.next_above(-np.inf)) if complete else None
    barred = float(rejected)  # accepting it gives too many false matches; without it, few enough
    just_above = float(np.nextafter(rejected, rejected.dtype.type(np.inf)))
    if rule == "conservative":
        return just_above
    listed = others.total
    few, many = listed - others.count_up_to(barred), listed - others.count_below(barred)
    if rule == "interpolated":
        over = others.next_above(barred)
        if over is None:
            return just_above
        return over - (target * total - few) / (many - few) * (over - barred)
    above = _lowest(own.next_above(barred), others.next_above(barred))
    if above is not None and abs(few / total - target) < abs(many / total - target):
        return above
    below = others.next_below(barred)
    if below is None:
        return _lowest(barred, own.next_above(-np.inf)) if complete else None
    return _lowest(barred, own.next_above(below))


def _starting_threshold(own: Ranked, target: float) -> float:
    """Mated score whose FNMR is nearest to the target, the higher of two equally near."""
    total = own.total
    score = float(own.at(np.array(min(int(target * total), total - 1))))
    few, many = own.count_below(score), own.count_up_to(score)
    if many < total and abs(many / total - target) <= abs(few / total - target):
        higher = own.next_above(score)
        return score if higher is None else higher
    return score


def _lowest(first: float | None, second: float | None) -> float | None:
    return min((value for value in (first, second) if value is not None), default=None)


def point_at(own: Ranked, others: Ranked, threshold: float, total: int) -> OperatingPoint:
    """Count the errors at a threshold, of `total` non-mated scores."""
    matches = others.total - others.count_below(threshold)
    return OperatingPoint(threshold, own.count_below(threshold), own.total, matches, total)


def caution_few_matches(fmr: float, non_mated: int) -> Caution | None:
    """Caution where an FMR leaves too few false matches to set a threshold by."""
    return caution_few("few_false_matches", fmr * non_mated, fmr=fmr, non_mated=non_mated)


def caution_few(kind: str, expected: float, **facts: float) -> Caution | None:
    """Caution of a kind where fewer errors are expected than a threshold needs."""
    return None if expected >= FEWEST_ERRORS else Caution(kind, {**facts, "expected": expected})


class TarAtFar(NamedTuple):
    """One operating point of a 1:1 table: the true accept rate is 1 - FNMR.

    Attributes:
        target: FMR (FAR) that was asked for.
        point: threshold and counts; `point.fmr` is the realised FMR.
        caution: why not to trust it; None where there is no reason.
    """

    target: float
    point: OperatingPoint
    caution: Caution | None

    @property
    def matches(self) -> int:
        """Mated scores at or above the threshold."""
        return self.point.mated - self.point.false_non_matches

    @property
    def tar(self) -> float:
        """True accept rate, 1 - FNMR."""
        return self.matches / self.point.mated


def tar_at_far(
    scores: NDArray[np.float32],
    mated: NDArray[np.bool_],
    targets: Sequence[float] = FARS,
    *,
    rule: Literal["nearest", "conservative"] = "nearest",
) -> list[TarAtFar]:
    """TAR at each target FMR, the numbers of IJB-B/C tables. Cost: two sorts.

    Thresholds are scores of either kind, but for one that lies just above all of them.

    Args:
        scores: (N,) comparison scores, larger = more alike.
        mated: (N,) whether both sides show one person.
        targets: FMRs within 0 to 1, any order.
        rule: "nearest" FMR (the lowest threshold among equals; may exceed the target), or
            "conservative": the lowest threshold with FMR <= target.

    Raises:
        ValueError: a kind without scores, NaN, a target outside 0 to 1, or an unknown rule.
    """
    if rule not in ("nearest", "conservative"):
        raise ValueError(f"unknown threshold rule {rule!r} (known: nearest, conservative)")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    own, others = Ranked.of(scores[mated]), Ranked.of(scores[~mated])
    if not (own.total and others.total):
        raise ValueError(
            f"TAR at FAR needs comparisons of both kinds, got {own.total} mated and "
            f"{others.total} non-mated"
        )
    rows = []
    for target in targets:
        if not 0 <= target <= 1:
            raise ValueError(f"target FMR {target}: must be within 0 to 1")
        threshold = find_threshold(own, others, rule, target, others.total, complete=True)
        assert threshold is not None
        below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        score = _lowest(own.next_above(below), others.next_above(below))
        point = point_at(own, others, threshold if score is None else score, others.total)
        few = caution_few_matches(target, others.total)
        rows.append(TarAtFar(target, point, few and few._replace(kind="uncertain_point")))
    return rows


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
    return rates_of_window(scores, mated, 0, 0, int(mated.sum()), int((~mated).sum()))


def rates_of_window(
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

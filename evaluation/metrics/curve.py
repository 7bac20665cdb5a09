"""FNMR against the discard fraction under any protocol, the areas under it, and the ideal order's.

`CurveEngine` discards the most uncertain comparisons and counts errors: of a set itself, where only
values are sorted, or under the weights of a bootstrap's draws, for which orders are found once.
`protocol_curve` turns the counts into rates, areas and cautions. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons, fuse_sides
from evaluation.metrics.protocols import Area, AreaEnds, Protocol, find_protocol
from evaluation.metrics.thresholds import (
    Caution,
    Counts,
    OperatingPoint,
    Places,
    Ranked,
    at_most,
    caution_few,
    caution_few_matches,
    find_threshold,
    operating_point,
)

Floats = NDArray[np.float64]
Cut = NDArray[np.floating]
GRID = np.arange(0, 1.0, 0.01)
GRIDS = {"percent": GRID, "by_5": np.arange(20) / 20}
EPSILON = 1e-9  # of a discard fraction: .29 * 100 is a hair below 29
FEWEST_NEAR = 256  # comparisons looked at first where the kept score nearest to another is sought
TAIL_FACTOR, TAIL_LEAST = 4, 64  # non-mated scores looked at first, by the number that may match


@dataclass(frozen=True)
class Kept:
    """Which comparisons are kept at each discard fraction: those with an uncertainty up to a cut.

    Attributes:
        fractions: (F,) discard fractions.
        uncertainty: (N,) of each listed comparison.
        mated: (N,) its kind.
        mated_cut: (F,) cuts of the mated comparisons, descending.
        non_mated_cut: (F,) of the non-mated ones; None where all of them are kept.
    """

    fractions: Floats
    uncertainty: NDArray[np.float32]
    mated: NDArray[np.bool_]
    mated_cut: Cut
    non_mated_cut: Cut | None

    @property
    def thresholds(self) -> Floats:
        """(F,) uncertainties up to which mated comparisons are kept."""
        return self.mated_cut.astype(np.float64)

    def rows(self, index: int) -> NDArray[np.bool_]:
        """(N,) mask of the comparisons kept at one fraction."""
        cut, other_cut = self.mated_cut, self.non_mated_cut
        if other_cut is cut:
            return self.uncertainty <= cut[index]
        others = True if other_cut is None else self.uncertainty <= other_cut[index]
        return np.where(self.mated, self.uncertainty <= cut[index], others)

    def times_kept(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """(N,) at how many of some fractions, in ascending order, each comparison is kept."""
        times = np.zeros(len(self.uncertainty), np.uint8)
        for index in indices:
            times += self.rows(index)
        return times


@dataclass(frozen=True)
class Cuts:
    """Where each discard fraction cuts the group that sets the fractions.

    Attributes:
        fractions: (F,) shares of the group asked for; the shares that leave, on the exact grid.
        thresholds: (F,) what is at or below is kept; descending.
        places: (F,) how many comparisons of the group lie there, whatever their weight.
        kept: (F,) their weight.
        total: weight of the group.
    """

    fractions: Floats
    thresholds: Cut
    places: Places
    kept: Counts
    total: int


@dataclass(frozen=True)
class Weights:
    """How often each comparison counts in one draw.

    Attributes:
        own: (P,) of the mated comparisons.
        errors: (P,) the same, but 0 where a fixed threshold makes no false non-match.
        others: (Q,) of the listed non-mated ones; None where a protocol does not look at them.
        rows: (N,) of both in the set's order; None there too.
    """

    own: Counts
    errors: Counts
    others: Counts | None = None
    rows: Counts | None = None


class _Kind:
    """The mated or the non-mated comparisons: scores, uncertainties, and both orders."""

    def __init__(
        self,
        scores: NDArray[np.float32],
        uncertainty: Callable[[], NDArray[np.float32]],
        resampled: bool,
    ) -> None:
        self.scores, self._read, self._resampled = scores, uncertainty, resampled

    @cached_property
    def uncertainty(self) -> NDArray[np.float32]:
        return self._read()

    @cached_property
    def by_uncertainty(self) -> Ranked:
        return Ranked.of(self.uncertainty, keep_rows=self._resampled)

    @cached_property
    def by_score(self) -> Ranked:
        return Ranked.of(self.scores, keep_rows=True)

    @cached_property
    def uncertainty_by_score(self) -> NDArray[np.float32]:
        return self.uncertainty[self.by_score.rows]

    def kept(self, cut: Cut, weights: Counts | None) -> Counts:
        """(F,) weight of those at or below each cut."""
        return self.by_uncertainty.weighted(weights).weight_up_to(cut)


class CurveEngine:
    """Discards from one set by one protocol, and counts errors, under any weights.

    Args:
        comparisons: scored, of both kinds.
        protocol: its switches.
        resampled: whether weights will be given; orders are then kept for all draws.

    Raises:
        ValueError: no mated pair, a rule that needs non-mated pairs which are not listed, or images
            that are not known.
    """

    def __init__(
        self, comparisons: Comparisons, protocol: Protocol, *, resampled: bool = False
    ) -> None:
        check_listed(comparisons, protocol)
        if not comparisons.mated.any():
            raise ValueError(f"{comparisons.name}: no mated pair: there is no FNMR to measure")
        self.comparisons, self.protocol, self._resampled = comparisons, protocol, resampled
        self._own = self._kind(comparisons.mated)
        self._tail: tuple[Ranked, NDArray[np.float32]] | None = None

    @cached_property
    def _others(self) -> _Kind:
        return self._kind(~self.comparisons.mated)

    def _kind(self, chosen: NDArray[np.bool_]) -> _Kind:
        comparisons, fuse = self.comparisons, self.protocol.fuse
        scores = comparisons.scores[chosen]
        if self.protocol.discard_over in ("all", "images"):
            values = self._uncertainty
            return _Kind(scores, lambda: values[chosen], self._resampled)

        def fused() -> NDArray[np.float32]:  # without `self`: a cycle would keep arrays alive
            first, second = comparisons.pairs[chosen].T
            return fuse_sides(comparisons.uncertainty[first], comparisons.uncertainty[second], fuse)

        return _Kind(scores, fused, self._resampled)

    @cached_property
    def _uncertainty(self) -> NDArray[np.float32]:
        """(N,) of each comparison; under "images" by the largest value of each distinct image."""
        comparisons = self.comparisons
        if self.protocol.discard_over == "images":
            values, image = self._images
            comparisons = comparisons.with_uncertainty(values[image])
        return comparisons.pair_uncertainty(self.protocol.fuse)

    @cached_property
    def _images(self) -> tuple[NDArray[np.float32], Places]:
        return image_values(self.comparisons)

    @cached_property
    def _group(self) -> Ranked:
        """Uncertainties of what is discarded from."""
        match self.protocol.discard_over:
            case "all":
                return Ranked.of(self._uncertainty, keep_rows=self._resampled)
            case "images":
                return Ranked.of(self._images[0])
            case _:
                return self._own.by_uncertainty

    @cached_property
    def _steps(self) -> tuple[Places, Cut]:
        """(D,) places and values of the exact grid's cuts, one for each distinct value."""
        values = self._group.values
        ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))[::-1]
        return ends, values[ends - 1]

    def cuts(self, weights: Weights | None = None) -> Cuts:
        """Where each discard fraction cuts the group."""
        if weights is None:
            return self._cuts(self._group, None)
        every = self.protocol.discard_over == "all"
        return self._cuts(self._group, weights.rows if every else weights.own)

    def kept(self) -> Kept:
        """Which comparisons are kept, as cuts and as masks."""
        cuts, mated = self.cuts(), self.comparisons.mated
        other_cut = self._other_cut(cuts, None)
        return Kept(cuts.fractions, self._uncertainty, mated, cuts.thresholds, other_cut)

    def point(self, fmr_target: float) -> OperatingPoint:
        """Threshold on all comparisons of the set itself, and the errors at it.

        Raises:
            ValueError: a target outside (0, 1), or a threshold below the listed non-mated scores.
        """
        comparisons, protocol = self.comparisons, self.protocol
        try:
            return operating_point(
                self._own.scores,
                self._others.scores,
                protocol.rule,
                protocol.start_fnmr if protocol.rule == "starting_error" else fmr_target,
                unlisted=comparisons.unlisted,
                listed_from=comparisons.listed_from,
            )
        except ValueError as error:
            raise ValueError(f"{comparisons.name}: {error}") from error

    def fixed(
        self, threshold: float, cuts: Cuts, weights: Weights | None = None
    ) -> tuple[Floats | np.float64, Counts, Counts, Counts | np.int64]:
        """Count false non-matches with one threshold for all discard fractions.

        Under "kept_score" the errors are those below the kept score nearest to the threshold.
        Between the two no score is kept, so only scores equal to a lower one change sides.

        Returns:
            (F,) scores at which the errors were counted (one number where it is the threshold),
            false non-matches, mated comparisons, and the non-mated ones that change sides.
        """
        own, by_group = self._own, self._group is self._own.by_uncertainty
        if weights is None:
            wrong = own.uncertainty[is_missed(own.scores, threshold, self.protocol)]
            misses = Ranked.of(wrong).weight_up_to(cuts.thresholds)
            mated = cuts.kept if by_group else own.kept(cuts.thresholds, None)
        else:
            misses = self.kept_mated(cuts, weights.errors)
            mated = cuts.kept if by_group else self.kept_mated(cuts, weights.own)
        if self.protocol.read_at == "kept_score":
            read_at, own_equal, others_equal = self._nearest_kept_score(threshold, cuts, weights)
            return read_at, misses - own_equal, mated, others_equal
        return np.float64(threshold), misses, mated, np.int64(0)

    def kept_mated(self, cuts: Cuts, weights: Counts) -> Counts:
        """(F,) weight of the mated comparisons that are kept, under any (P,) weights of them."""
        order = self._own.by_uncertainty
        by_group = self._group is order
        places = cuts.places if by_group else order.places_up_to(cuts.thresholds)
        return order.weighted(weights).weight_of_first(places)

    def non_mated(self, threshold: float, cuts: Cuts, mated: Counts) -> tuple[Counts, Counts]:
        """(F,) false matches at a threshold, and kept non-mated comparisons, of the set itself.

        Args:
            threshold: the same for all discard fractions.
            cuts: of the set itself.
            mated: (F,) kept mated comparisons.
        """
        others, cut = self._others, self._other_cut(cuts, None)
        accepted = others.scores >= np.float64(threshold)
        if cut is None:
            counts = np.count_nonzero(accepted), len(accepted)
            matches, total = (np.broadcast_to(np.int64(count), mated.shape) for count in counts)
        else:
            matches = Ranked.of(others.uncertainty[accepted]).weight_up_to(cut)
            together = self.protocol.discard_over == "all"
            total = cuts.kept - mated if together else others.kept(cut, None)
        unlisted = self.comparisons.unlisted
        return matches, total + unlisted if unlisted else total

    def points(
        self, fmr_target: float, cuts: Cuts, weights: Weights | None = None
    ) -> list[OperatingPoint]:
        """Operating point of the kept pairs alone at each discard fraction.

        Where no mated pair is kept, the threshold is the one before and nothing is counted; without
        a non-mated pair it is the lowest mated score, where FNMR is 0.
        """
        own_weights = None if weights is None else weights.own
        other_weights = None if weights is None else weights.others
        other_cut = self._other_cut(cuts, weights)
        kept = self._own.kept(cuts.thresholds, own_weights)
        if other_cut is None:
            count = len(self._others.scores) if other_weights is None else other_weights.sum()
            others_kept = np.full(kept.shape, count)
        else:
            others_kept = self._others.kept(other_cut, other_weights)
        points: list[OperatingPoint] = []
        totals = zip(kept.tolist(), others_kept.tolist(), strict=True)
        for place, (mated, non_mated) in enumerate(totals):
            if not mated:
                points.append(OperatingPoint(points[-1].threshold, 0, 0, 0, non_mated))
                continue
            bounds = cuts.thresholds[place], None if other_cut is None else other_cut[place]
            before = cuts.thresholds[place - 1], None if other_cut is None else other_cut[place - 1]
            if place and bounds == before:
                points.append(points[-1])
                continue
            own = _up_to(self._own.by_score, self._own.uncertainty_by_score, bounds[0], own_weights)
            points.append(self._point(own, bounds[1], other_weights, fmr_target, mated, non_mated))
        return points

    def _point(
        self,
        own: Ranked,
        bound: np.floating | None,
        weights: Counts | None,
        target: float,
        mated: int,
        non_mated: int,
    ) -> OperatingPoint:
        for tail, values in self._tails(target):
            others = _up_to(tail, values, bound, weights)
            complete = len(values) == len(self._others.scores)
            threshold = find_threshold(
                own, others, self.protocol.rule, target, non_mated, complete=complete
            )
            if threshold is not None:
                break
        assert threshold is not None
        strict = self.protocol.read_at == "above_threshold" and non_mated
        misses = own.count_up_to(threshold) if strict else own.count_below(threshold)
        matches = others.total - others.count_below(threshold)
        return OperatingPoint(threshold, misses, mated, matches, non_mated)

    def _tails(self, target: float) -> Iterator[tuple[Ranked, NDArray[np.float32]]]:
        """The high end of the non-mated scores, which nearly always decides; then all of them."""
        others = self._others
        count = len(others.scores)
        size = TAIL_FACTOR * int(target * count) + TAIL_LEAST
        if size < count:
            if self._tail is None or len(self._tail[1]) < size:
                low = np.partition(others.scores, count - size)[count - size]
                rows = np.flatnonzero(others.scores >= low)
                rows = rows[np.argsort(others.scores[rows])]
                self._tail = Ranked(others.scores[rows], rows), others.uncertainty[rows]
            yield self._tail
        yield others.by_score, others.uncertainty_by_score

    def _cuts(self, group: Ranked, weights: Counts | None, fractions: Floats | None = None) -> Cuts:
        protocol, ranked = self.protocol, group.weighted(weights)
        total = ranked.total
        if fractions is None and protocol.grid == "exact":
            places, thresholds = self._steps
            kept = ranked.weight_of_first(places)
            return Cuts((total - kept) / total, thresholds, places, kept, total)
        fractions = GRIDS[protocol.grid] if fractions is None else fractions
        if protocol.ties == "keep":
            # the product is part of the original protocol: 36 of its 100 values are not whole
            thresholds = percentiles(ranked, (1 - fractions) * 100 / 100)
        else:
            leaving = np.floor(fractions * total + EPSILON).astype(np.intp)
            thresholds = ranked.at(total - 1 - leaving)
        places = group.places_up_to(thresholds)
        return Cuts(fractions, thresholds, places, ranked.weight_of_first(places), total)

    def _other_cut(self, cuts: Cuts, weights: Weights | None) -> Cut | None:
        """(F,) cuts of the non-mated comparisons; None where all of them are kept."""
        over = self.protocol.discard_over
        if over == "mated" or (over == "each_kind" and not len(self._others.scores)):
            return None
        if over != "each_kind":
            return cuts.thresholds
        others = None if weights is None else weights.others
        return self._cuts(self._others.by_uncertainty, others, cuts.fractions).thresholds

    def _nearest_kept_score(
        self, threshold: float, cuts: Cuts, weights: Weights | None
    ) -> tuple[Floats, Counts, Counts]:
        """(F,) kept score of either kind nearest to a threshold, the lower of two equally near.

        And (F,) how many kept mated and non-mated comparisons have just that score, where it lies
        below the threshold.
        """
        lowest, highest = self._score_range
        widest = max(abs(highest - threshold), abs(lowest - threshold))
        width = widest * min(1, max(FEWEST_NEAR / len(self.comparisons.scores), 1 / 1024))
        places = np.arange(len(cuts.fractions))
        while True:
            near = self._near(threshold, width, cuts, weights)
            middle = int(np.searchsorted(near.scores, threshold, side="right"))
            under = -_first_deeper(-near.scores[:middle][::-1], near.depth[:middle][::-1], places)
            over = _first_deeper(near.scores[middle:], near.depth[middle:], places)
            if width >= widest or (np.isfinite(under) | np.isfinite(over)).all():
                break
            width *= 8
        read_at = np.where(threshold - under <= over - threshold, under, over)
        lower = read_at < threshold
        own, others = near.equal_and_deeper(read_at[lower], places[lower])
        counts = np.zeros((2, len(places)), np.int64)
        counts[:, lower] = own, others
        return read_at, counts[0], counts[1]

    def _near(self, score: float, width: float, cuts: Cuts, weights: Weights | None) -> _Near:
        """Comparisons of both kinds with scores within a distance of another one."""
        scores, total = self.comparisons.scores, len(cuts.fractions)
        if self._resampled:
            rows = self._by_score.rows_within(score - width, score + width)
        else:
            rows = np.flatnonzero(np.abs(scores - np.float64(score)) <= width)
            rows = rows[np.argsort(scores[rows])]
        times = np.ones(len(rows), np.int64)
        if weights is not None:
            assert weights.rows is not None
            rows = rows[weights.rows[rows] > 0]
            times = weights.rows[rows].astype(np.int64)
        is_own, values = self.comparisons.mated[rows], self._uncertainty[rows]
        depth = np.searchsorted(-cuts.thresholds, -values, side="right")
        if self.protocol.discard_over in ("mated", "each_kind"):
            cut = self._other_cut(cuts, weights)
            others = total if cut is None else np.searchsorted(-cut, -values, side="right")
            depth = np.where(is_own, depth, others)
        return _Near(scores[rows].astype(np.float64), depth, times * is_own, times * ~is_own)

    @cached_property
    def _by_score(self) -> Ranked:
        return Ranked.of(self.comparisons.scores, keep_rows=True)

    @cached_property
    def _score_range(self) -> tuple[float, float]:
        scores = self.comparisons.scores
        return float(scores.min()), float(scores.max())


class _Near(NamedTuple):
    """Comparisons of both kinds with scores around a threshold, in ascending order of score.

    Attributes:
        scores: (n,).
        depth: (n,) number of discard fractions at which each is kept: the first so many.
        own: (n,) weights of the mated ones; 0 for the others.
        others: (n,) weights of the non-mated ones.
    """

    scores: Floats
    depth: Places
    own: Counts
    others: Counts

    def equal_and_deeper(self, scores: Floats, depth: Places) -> tuple[Counts, Counts]:
        """(G,) weights of both kinds with just such a score, kept at more than so many fractions.

        Args:
            scores: (G,) some of `scores`.
            depth: (G,) numbers of fractions.
        """
        base = int(self.depth.max(initial=0)) + 1
        key = np.searchsorted(self.scores, self.scores) * base + self.depth
        order = np.argsort(key)
        key, start = key[order], np.searchsorted(self.scores, scores) * base
        low = np.searchsorted(key, start + np.minimum(depth, base - 1), side="right")
        high = np.searchsorted(key, start + base)
        own, others = (np.append(0, np.cumsum(kind[order])) for kind in (self.own, self.others))
        return own[high] - own[low], others[high] - others[low]


def _first_deeper(scores: Floats, depth: Places, places: Places) -> Floats:
    """(F,) the first score that is still kept at each discard fraction; inf where none is."""
    deepest = np.maximum.accumulate(depth)
    return np.append(scores, np.inf)[np.searchsorted(deepest, places, side="right")]


def _up_to(
    order: Ranked,
    values: NDArray[np.float32],
    bound: np.floating | None,
    weights: Counts | None,
) -> Ranked:
    """Scores in ascending order, weighted by whether their uncertainty is kept."""
    if bound is None:
        return order.weighted(weights)
    rows, limit = order.rows, at_most(bound, values.dtype)[()]
    if weights is None or rows is None:
        return Ranked(order.values, rows, lambda part: values[part] <= limit)
    return Ranked(order.values, rows, lambda part: weights[rows[part]] * (values[part] <= limit))


def is_missed(
    scores: NDArray[np.float32], threshold: float, protocol: Protocol
) -> NDArray[np.bool_]:
    """(P,) whether mated scores are false non-matches at a fixed threshold."""
    level = np.float64(threshold)
    return scores <= level if protocol.read_at == "above_threshold" else scores < level


def percentiles(ordered: Ranked, shares: Floats) -> Floats:
    """Percentiles by linear interpolation, bit for bit as `numpy.percentile` of NumPy 2.

    Written out because kept sets depend on the last bit: differences are taken in the values' own
    type, the rest in float64.

    Args:
        ordered: what to take them of.
        shares: (F,) percentages / 100.
    """
    count = ordered.total
    position = (count - 1) * shares
    lower = np.minimum(np.floor(position), count - 1).astype(np.intp)
    low, high = ordered.at(lower), ordered.at(np.minimum(lower + 1, count - 1))
    step, weight = high - low, position - lower
    return np.where(weight < 0.5, low + step * weight, high - step * (1 - weight))


def image_values(comparisons: Comparisons) -> tuple[NDArray[np.float32], Places]:
    """(I,) uncertainty of each distinct image, the largest of its rows', and (M,) image of a row.

    Raises:
        ValueError: it is not known which row shows which image.
    """
    if comparisons.image is None:
        raise ValueError(
            f"{comparisons.name}: it is not known which comparisons share an image, so images "
            "cannot be discarded: discard over 'all', 'mated' or 'each_kind'"
        )
    ids, row = np.unique(comparisons.image, return_inverse=True)
    values = np.full(len(ids), -np.inf, np.float32)
    np.maximum.at(values, row, comparisons.uncertainty)
    return values, row


def check_listed(comparisons: Comparisons, protocol: Protocol) -> None:
    """Refuse what needs every non-mated pair where only their high end is listed.

    Raises:
        ValueError: that is the case.
    """
    if not comparisons.unlisted:
        return
    switches = {
        "discard_over": (protocol.discard_over, "mated"),
        "threshold": (protocol.threshold, "fixed"),
    }
    for name, (value, fine) in switches.items():
        if value != fine:
            raise ValueError(
                f"{comparisons.name}: protocol {protocol.name} has {name} {value!r}, which needs "
                f"every non-mated pair, but {comparisons.unlisted} of "
                f"{comparisons.non_mated_total} are only counted: take a sample of them "
                "(--non_mated COUNT) instead of all"
            )


class Span(NamedTuple):
    """An area and the range it covers.

    Attributes:
        area: under the curve.
        width: of the range; random discard has FNMR(0) * width.
    """

    area: float
    width: float


class Start(NamedTuple):
    """What the ideal order depends on.

    Attributes:
        errors: false non-matches without discard.
        mated: mated pairs.
        units: what is discarded from: mated pairs alone, or pairs of both kinds.
    """

    errors: int
    mated: int
    units: int


def area_under(
    fractions: NDArray[np.float64],
    fnmr: NDArray[np.float64],
    limit: float,
    how: Area,
    ends: AreaEnds,
) -> Span:
    """Area under a curve from 0 to a limit.

    Args:
        fractions: (F,) ascending from 0.
        fnmr: (F,) value at each.
        limit: of the range.
        how: "trapezoid", or "step": a value holds from its fraction to the next.
        ends: "at_limit", where the last value holds on if the curve ends before, or "before_limit",
            at the last point below it (the original's AUERC30 covers 0 to .29).
    """
    inside = int(np.searchsorted(fractions, limit - EPSILON))
    x, y = fractions[:inside], fnmr[:inside]
    if ends == "at_limit":
        at_limit = y[-1] if how == "step" else np.interp(limit, fractions, fnmr)
        x, y = np.append(x, limit), np.append(y, at_limit)
    if how == "step":
        return Span(float(np.diff(x) @ y[:-1]), float(x[-1]))
    return Span(float(np.trapezoid(y, x)), float(x[-1]))


def best_fnmr(start: Start, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) FNMR of the ideal order: every false non-match is discarded first.

    With e = FNMR without discard it is (e - x) / (1 - x) up to x = e over mated pairs, and zero
    from x = p e on where a share p of the pairs is mated.
    """
    discarded = fractions * start.units
    errors = np.maximum(start.errors - discarded, 0)
    best: NDArray[np.float64] = errors / np.maximum(start.mated - discarded, 1)
    return best


def area_at(
    limit: float,
    fractions: NDArray[np.float64],
    fnmr: NDArray[np.float64],
    start: Start,
    protocol: Protocol,
) -> tuple[float, float]:
    """Area up to a limit as the protocol reports it, and relative to random discard.

    NaN where an area is divided by FNMR without discard and that is 0.
    """
    span = area_under(fractions, fnmr, limit, protocol.area, protocol.area_ends)
    rate, area = start.errors / start.mated, span.area
    if protocol.subtract == "half_square":
        area -= rate * min(rate, limit) / 2
    elif protocol.subtract == "optimum":
        area -= _best_span(start, fractions, protocol, limit).area
    divisor = {"nothing": 1.0, "start": rate, "random": rate * span.width}[protocol.divide]
    return area / divisor if divisor else float("nan"), _relative(span, start)


def best_relative(
    start: Start, fractions: NDArray[np.float64], protocol: Protocol, limit: float
) -> float:
    """Area of the ideal order relative to random discard."""
    return _relative(_best_span(start, fractions, protocol, limit), start)


def _relative(span: Span, start: Start) -> float:
    random = start.errors / start.mated * span.width
    return span.area / random if random else float("nan")


def _best_span(
    start: Start, fractions: NDArray[np.float64], protocol: Protocol, limit: float
) -> Span:
    """Area of the ideal order under the same rule.

    On the exact grid it has one step per unit, whatever ties the uncertainties have; else it is
    taken at the curve's own fractions.
    """
    if protocol.grid == "exact":
        turns = min(start.errors + 1, start.units - 1)
        fractions = np.arange(turns + 1) / start.units
    best = best_fnmr(start, fractions)
    return area_under(fractions, best, limit, protocol.area, protocol.area_ends)


@dataclass(frozen=True)
class Edc:
    """FNMR at one FMR target against the discard fraction.

    Attributes:
        fmr_target: FMR that fixed the threshold; the realised one where a starting error did.
        fractions: (F,) discard fractions.
        score_threshold: (F,) score at which the errors were counted.
        false_non_matches: (F,) kept mated pairs below it.
        mated: (F,) kept mated pairs.
        false_matches: (F,) kept non-mated pairs at or above it.
        non_mated: (F,) kept non-mated pairs.
        fnmr: (F,) rate; where no mated pair is kept, the last value before holds.
    """

    fmr_target: float
    fractions: Floats
    score_threshold: Floats
    false_non_matches: Counts
    mated: Counts
    false_matches: Counts
    non_mated: Counts
    fnmr: Floats


@dataclass(frozen=True)
class ProtocolCurve:
    """FNMR against the discard fraction under one protocol.

    Attributes:
        name: of the set.
        protocol: its switches.
        edc: the curve with its counts.
        start: errors, mated pairs and units of discard.
        areas: limit -> area as the protocol defines it (after subtraction and division); NaN if
            it is divided by FNMR without discard and that is 0.
        relative: limit -> area under the curve (nothing subtracted) / area of random discard over
            the same range: 1 = no better than chance; NaN without any false non-match.
        best_relative: limit -> the same ratio for the ideal order.
        cautions: what makes these numbers uncertain or incomplete.
    """

    name: str
    protocol: Protocol
    edc: Edc
    start: Start
    areas: dict[float, float]
    relative: dict[float, float]
    best_relative: dict[float, float]
    cautions: tuple[Caution, ...]

    @cached_property
    def optimum(self) -> Floats:
        """(F,) FNMR of the ideal order at each fraction of the curve."""
        return self.optimum_at(self.edc.fractions)

    def optimum_at(self, fractions: Floats) -> Floats:
        """(F,) FNMR of the ideal order at any fractions.

        NaN where images are discarded, since an image takes several pairs with it.
        """
        if self.protocol.discard_over == "images":
            return np.full(fractions.shape, np.nan)
        return best_fnmr(self.start, fractions)

    def efficiencies(self, shares: Sequence[float]) -> dict[float, float]:
        """NIST's efficiency at each share above 0: relative cut of FNMR / the share discarded.

        Random discard has 0 on average, the ideal order 1 / share once no error is left; NaN
        without any false non-match. Empty under protocols that do not report it.
        """
        if not self.protocol.reports_efficiency:
            return {}
        start = self.edc.fnmr[0] or np.nan
        cuts = {share: 1 - self.edc.fnmr[self.index_at(share)] / start for share in shares if share}
        return {share: float(cut / share) for share, cut in cuts.items()}

    def index_at(self, fraction: float) -> int:
        """Index of the curve's point that holds at a discard fraction: the last one not above."""
        return int(np.searchsorted(self.edc.fractions, fraction + EPSILON, side="right")) - 1


def protocol_curve(
    comparisons: Comparisons, protocol: str | Protocol = "original", fmr_target: float = 1e-3
) -> ProtocolCurve:
    """Discard the most uncertain comparisons and count what errors are left.

    Args:
        comparisons: scored, of both kinds.
        protocol: a preset's name or the switches themselves.
        fmr_target: FMR that the threshold aims at; a starting error takes its own.

    Raises:
        ValueError: no mated pair, no non-mated pair where an FMR is asked for, an unknown protocol,
            a target outside (0, 1), non-mated pairs that are needed but not listed, or images that
            are not known.
    """
    chosen = find_protocol(protocol) if isinstance(protocol, str) else protocol
    return curve_of(CurveEngine(comparisons, chosen), fmr_target)


def curve_of(engine: CurveEngine, fmr_target: float) -> ProtocolCurve:
    """The same with an engine, which serves any number of targets.

    Raises:
        ValueError: see `protocol_curve`.
    """
    comparisons, chosen = engine.comparisons, engine.protocol
    if chosen.rule != "starting_error" and not comparisons.non_mated_total:
        raise ValueError(f"{comparisons.name}: no non-mated pair: there is no FMR to aim at")
    cuts = engine.cuts()
    edc = edc_of(engine, cuts, fmr_target)
    start = Start(int(edc.false_non_matches[0]), int(edc.mated[0]), cuts.total)
    areas = {
        limit: area_at(limit, edc.fractions, edc.fnmr, start, chosen) for limit in chosen.limits
    }
    by_images = chosen.discard_over == "images"
    return ProtocolCurve(
        comparisons.name,
        chosen,
        edc,
        start,
        {limit: area for limit, (area, _) in areas.items()},
        {limit: relative for limit, (_, relative) in areas.items()},
        {
            limit: float("nan") if by_images else best_relative(start, edc.fractions, chosen, limit)
            for limit in chosen.limits
        },
        _cautions(edc, chosen),
    )


def edc_of(engine: CurveEngine, cuts: Cuts, fmr_target: float) -> Edc:
    """Curve of a set itself at one FMR target, given its cuts."""
    if engine.protocol.threshold == "per_subset":
        points = engine.points(fmr_target, cuts)
        read_at = np.array([point.threshold for point in points])
        misses, mated, matches, others = np.array([point[1:] for point in points], np.int64).T
    else:
        point = engine.point(fmr_target)
        if engine.protocol.rule == "starting_error":
            fmr_target = point.fmr
        scores, misses, mated, moved = engine.fixed(point.threshold, cuts)
        matches, others = engine.non_mated(point.threshold, cuts, mated)
        read_at, matches = np.broadcast_to(scores, misses.shape), matches + moved
    rate = held_rate(misses, mated)
    return Edc(fmr_target, cuts.fractions, read_at, misses, mated, matches, others, rate)


def held_rate(errors: Counts, total: Counts) -> Floats:
    """(F,) errors / total; where nothing is left, the last rate before holds."""
    rate = errors / np.maximum(total, 1)
    last = np.maximum.accumulate(np.where(total > 0, np.arange(len(total)), 0))
    held: Floats = rate[last]
    return held


def _cautions(edc: Edc, protocol: Protocol) -> tuple[Caution, ...]:
    if protocol.rule != "starting_error":
        few = caution_few_matches(edc.fmr_target, int(edc.non_mated[0]))
    else:
        fnmr, mated = protocol.start_fnmr, int(edc.mated[0])
        few = caution_few("few_starting_errors", fnmr * mated, fnmr=fnmr, mated=mated)
    cautions = [few] if few else []
    for kind, counts in (("no_mated_kept", edc.mated), ("no_non_mated_kept", edc.non_mated)):
        without = np.flatnonzero(counts == 0)
        if without.size:
            facts = {"fraction": float(edc.fractions[without[0]]), "threshold": protocol.threshold}
            cautions.append(Caution(kind, facts))
    if not edc.false_non_matches[0]:
        upper = 1 - 0.025 ** (1 / int(edc.mated[0]))  # Clopper-Pearson of no error
        cautions.append(Caution("no_errors", {"upper": upper}))
    return tuple(cautions)

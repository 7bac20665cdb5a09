"""The discard curve of one bootstrap replicate, as `protocol_curve` would draw it.

Two paths with one result: weights and cumulative sums for a fixed threshold, repeated rows for all
other protocols. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence._resample import Counts
from evaluation.metrics.areas import Start, area_under, best_span, final_area
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.discard import EPSILON, GRIDS
from evaluation.metrics.edc import held_rate
from evaluation.metrics.kept import GRID, percentiles
from evaluation.metrics.protocol_curve import protocol_curve
from evaluation.metrics.protocols import Protocol

Floats = NDArray[np.float64]
WINDOW = 256  # scores looked at first when the nearest kept one is sought


class CurveValues(NamedTuple):
    """What a replicate contributes.

    Attributes:
        fnmr: (F,) at `band_fractions`.
        area: up to the one limit of the protocol, as the protocol defines it.
        relative: area / area of random discard; NaN without any false non-match.
    """

    fnmr: Floats
    area: float
    relative: float


@dataclass(frozen=True)
class Replicate:
    """What all methods share in one replicate.

    Attributes:
        weights: of what is discarded from: mated comparisons, or all listed ones.
        mated: weights of the mated ones among them, 0 elsewhere.
        errors: weights of the false non-matches among them, 0 elsewhere.
        threshold: score threshold.
    """

    weights: Counts
    mated: Counts
    errors: Counts
    threshold: float


def band_fractions(protocol: Protocol) -> Floats:
    """Discard fractions at which bands are given: the grid's own, by .01 for the exact grid."""
    return GRIDS.get(protocol.grid, GRID)


def has_weighted_path(protocol: Protocol) -> bool:
    """Whether cumulative weights suffice."""
    fixed = protocol.threshold == "fixed" and protocol.discard_over != "images"
    return fixed and (protocol.discard_over == "all" or protocol.read_at != "kept_score")


class WeightedCurve:
    """One method's order of discard, for any number of replicates.

    Args:
        uncertainty: (N,) of each comparison that can be discarded.
        scores: (N,) of the same.
        protocol: with one limit.
    """

    def __init__(self, uncertainty: NDArray[Any], scores: NDArray[Any], protocol: Protocol) -> None:
        self._protocol = protocol
        self._order = np.argsort(uncertainty, kind="stable")
        self._values = uncertainty[self._order]
        self._scores = scores
        is_last = np.append(self._values[1:] != self._values[:-1], True)
        self._ends = np.flatnonzero(is_last) + 1
        self._rank = np.empty(0, np.intp)
        if protocol.read_at == "kept_score":
            self._rank = np.empty_like(self._order)
            self._rank[self._order] = np.arange(len(self._order))
            self._by_score = np.argsort(scores, kind="stable")
            self._ascending = scores[self._by_score].astype(np.float64)

    def values(self, replicate: Replicate) -> CurveValues:
        """Curve and area under the weights of a replicate."""
        up_to = _from_zero(replicate.weights[self._order])
        only_mated = replicate.mated is replicate.weights
        mated = up_to if only_mated else _from_zero(replicate.mated[self._order])
        errors = _from_zero(replicate.errors[self._order])
        if self._protocol.grid == "exact":
            kept = self._ends[::-1]
            fractions = (up_to[-1] - up_to[kept]) / up_to[-1]
        else:
            fractions = GRIDS[self._protocol.grid]
            kept = self._kept(up_to, fractions)
        misses = errors[kept]
        if self._protocol.read_at == "kept_score":
            misses = misses - self._moved(replicate, kept)
        fnmr = held_rate(misses, mated[kept])
        start = Start(int(misses[0]), int(mated[-1]), int(up_to[-1]))
        return _finish(fractions, fnmr, start, self._protocol)

    def _kept(self, up_to: Counts, fractions: Floats) -> NDArray[np.intp]:
        """(F,) how many comparisons, in order of uncertainty, lie at or below each threshold."""
        repeated = _Repeated(self._values, up_to[1:])
        count = len(repeated)
        if self._protocol.ties == "keep":
            thresholds = percentiles(cast(Any, repeated), (1 - fractions) * 100 / 100)
        else:
            leaving = np.floor(fractions * count + EPSILON).astype(np.intp)
            thresholds = repeated[count - 1 - leaving]
        return np.searchsorted(self._values, thresholds, side="right")

    def _moved(self, replicate: Replicate, kept: NDArray[np.intp]) -> Counts:
        """(F,) errors that are none at the kept score nearest to the threshold.

        Between the two no score is kept, so only errors with that very score count.
        """
        middle = int(np.searchsorted(self._ascending, replicate.threshold, side="right"))
        under = self._nearest(replicate.weights, kept, middle, -1)
        over = self._nearest(replicate.weights, kept, middle, 1)
        threshold = replicate.threshold
        read_at = np.where(threshold - under <= over - threshold, under, over)
        moved = np.zeros(len(kept), np.int64)
        for score in np.unique(read_at[read_at < threshold]):
            first, last = np.searchsorted(self._ascending, (score, np.nextafter(score, np.inf)))
            rows = self._by_score[first:last]
            here = read_at == score
            inside = self._rank[rows] < kept[here, None]
            moved[here] = inside @ replicate.errors[rows]
        return moved

    def _nearest(self, weights: Counts, kept: NDArray[np.intp], middle: int, step: int) -> Floats:
        """(F,) nearest kept score from a place on, downwards or upwards; infinite if none is."""
        available = middle if step < 0 else len(self._by_score) - middle
        width = WINDOW
        while True:
            width = min(width, available)
            part = slice(middle - width, middle) if step < 0 else slice(middle, middle + width)
            rows = self._by_score[part][::step]
            rank = np.where(weights[rows] > 0, self._rank[rows], len(weights))
            lowest = np.minimum.accumulate(rank)
            if width == available or lowest[-1] < kept.min():
                break
            width *= 8
        place = np.searchsorted(-lowest, -kept, side="right")
        scores = np.append(self._ascending[part][::step], step * np.inf)
        return scores[place]


def repeated_curve(
    comparisons: Comparisons, weights: Counts, protocol: Protocol, fmr_target: float
) -> CurveValues:
    """Curve and area of a replicate whose rows are repeated: any protocol, without short cuts.

    Args:
        comparisons: all of them listed.
        weights: (N,) how often each row occurs.
        protocol: with one limit.
        fmr_target: of the threshold.
    """
    rows = np.repeat(np.arange(len(weights)), weights)
    curve = protocol_curve(
        Comparisons(
            comparisons.name,
            comparisons.scores[rows],
            comparisons.mated[rows],
            comparisons.pairs[rows],
            comparisons.uncertainty,
        ),
        protocol,
        fmr_target,
    )
    (limit,) = protocol.limits
    fnmr = _at(band_fractions(protocol), curve.edc.fractions, curve.edc.fnmr)
    return CurveValues(fnmr, curve.areas[limit], curve.relative[limit])


class _Repeated:
    """Sorted values as if each were repeated by its weight."""

    def __init__(self, values: NDArray[Any], up_to: Counts) -> None:
        self._values, self._up_to = values, up_to

    def __len__(self) -> int:
        return int(self._up_to[-1])

    def __getitem__(self, places: NDArray[np.intp]) -> NDArray[Any]:
        return self._values[np.searchsorted(self._up_to, places, side="right")]


def _finish(fractions: Floats, fnmr: Floats, start: Start, protocol: Protocol) -> CurveValues:
    (limit,) = protocol.limits
    span = area_under(fractions, fnmr, limit, protocol.area, protocol.area_ends)
    best = None
    if protocol.subtract == "optimum":
        best = best_span(start, fractions, protocol, limit)
    random = start.errors / start.mated * span.width
    return CurveValues(
        _at(band_fractions(protocol), fractions, fnmr),
        final_area(span, best, start, protocol, limit),
        span.area / random if random else float("nan"),
    )


def _at(wanted: Floats, fractions: Floats, fnmr: Floats) -> Floats:
    return fnmr[np.searchsorted(fractions, wanted + EPSILON, side="right") - 1]


def _from_zero(weights: Counts) -> Counts:
    sums = np.zeros(len(weights) + 1, np.int64)
    np.cumsum(weights, out=sums[1:])
    return sums

"""Bootstrap intervals for discard curves and their areas, and paired differences of methods.

Identities, images or pairs are drawn; the score threshold is found again in every replicate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence._resample import Resampling
from evaluation.confidence._resample_curve import band_fractions
from evaluation.confidence._resample_methods import Measure
from evaluation.confidence._resample_words import PLURAL, area_name, verdict, warnings_of
from evaluation.confidence.intervals import Interval
from evaluation.metrics.comparisons import Comparisons, Unit
from evaluation.metrics.discard import check_listed
from evaluation.metrics.protocol_curve import ProtocolCurve, protocol_curve
from evaluation.metrics.protocols import Protocol

Floats = NDArray[np.float64]
Progress = Callable[[Iterable[int]], Iterable[int]]


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
        verdict: one sentence.
    """

    difference: float
    interval: Interval
    relative_difference: float
    relative_interval: Interval
    verdict: str


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
        warnings: one line each, for people.
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
    warnings: tuple[str, ...]

    @property
    def drawn(self) -> str:
        """What was drawn in each replicate, such as "1457 identities"."""
        return f"{self.units} {PLURAL[self.unit]}"

    def bands(self, name: str) -> Bands:
        """Pointwise intervals of a method's curve."""
        fnmr = self.fnmr[name]
        low, high = np.nanquantile(fnmr, self._tails(), axis=0)
        return Bands(low, high)

    def area(self, name: str) -> tuple[float, Interval]:
        """AUERC up to the limit, as the protocol defines it, and its interval."""
        return self.curves[name].areas[self.limit], self._interval(self.areas[name])

    def relative(self, name: str) -> tuple[float, Interval]:
        """The area relative to random discard (1 = no better than chance), and its interval."""
        return self.curves[name].relative[self.limit], self._interval(self.relatives[name])

    def compare(self, first: str, second: str) -> Paired:
        """Compare two methods draw by draw.

        The interval is for this pair of methods alone: among many pairs some will look different
        by chance.
        """
        one, other = self.curves[first], self.curves[second]
        difference = one.areas[self.limit] - other.areas[self.limit]
        interval = self._interval(self.areas[first] - self.areas[second])
        return Paired(
            difference,
            interval,
            one.relative[self.limit] - other.relative[self.limit],
            self._interval(self.relatives[first] - self.relatives[second]),
            verdict(first, second, area_name(self.limit), difference, interval),
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

    def _interval(self, values: Floats) -> Interval:
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
    methods = {name: comparisons.with_uncertainty(one) for name, one in uncertainties.items()}
    curves = {name: protocol_curve(one, protocol, fmr_target) for name, one in methods.items()}
    resampling = Resampling(comparisons, unit or comparisons.best_unit, fmr_target, seed)
    measure = Measure(resampling, methods, protocol, fmr_target)
    fractions = band_fractions(protocol)
    draws = range(replicates)
    fnmr, areas, relatives = _measured(
        measure, len(methods), replicates, len(fractions), progress(draws) if progress else draws
    )
    curve = next(iter(curves.values()))
    sources = resampling.sources(float(curve.edc.score_threshold[0]))
    shaky = warnings_of(
        resampling, curve.start.errors, sources, areas[0], relatives[0], measure.beyond_list
    )
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
        shaky,
    )


def _measured(
    measure: Measure, methods: int, replicates: int, fractions: int, draws: Iterable[int]
) -> tuple[Floats, Floats, Floats]:
    """Replicates of the curves, areas and relative areas; NaN where nothing could be measured."""
    fnmr = np.full((methods, replicates, fractions), np.nan)
    areas, relatives = np.full((2, methods, replicates), np.nan)
    for replicate in draws:
        for row, values in enumerate(measure.draw(replicate) or ()):
            fnmr[row, replicate], areas[row, replicate], relatives[row, replicate] = values
    return fnmr, areas, relatives


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

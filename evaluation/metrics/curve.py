"""FNMR against the discard fraction of one set under one protocol, with its areas and cautions.

`CurveEngine` counts; here counts become rates. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.metrics.areas import Start, area_at, best_fnmr, best_relative
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.engine import EPSILON, CurveEngine, Cuts, Floats
from evaluation.metrics.protocols import Protocol, find_protocol
from evaluation.metrics.ranked import Counts
from evaluation.metrics.thresholds import FEWEST_ERRORS, Caution, caution_few_matches


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
        optimum: (F,) FNMR of the ideal order at each fraction; NaN where images are discarded,
            since an image takes several pairs with it.
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
    optimum: Floats
    areas: dict[float, float]
    relative: dict[float, float]
    best_relative: dict[float, float]
    cautions: tuple[Caution, ...]

    def optimum_at(self, fractions: Floats) -> Floats:
        """(F,) FNMR of the ideal order at any fractions; NaN where images are discarded."""
        if self.protocol.discard_over == "images":
            return np.full(fractions.shape, np.nan)
        return best_fnmr(self.start, fractions)

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
    if chosen.rule != "starting_error" and not comparisons.non_mated_total:
        raise ValueError(f"{comparisons.name}: no non-mated pair: there is no FMR to aim at")
    engine = CurveEngine(comparisons, chosen)
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
        np.full(edc.fnmr.shape, np.nan) if by_images else best_fnmr(start, edc.fractions),
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
        return _per_subset(engine, cuts, fmr_target)
    point = engine.point(fmr_target)
    starting = engine.protocol.rule == "starting_error"
    read_at, misses, mated, moved = engine.fixed(point.threshold, cuts)
    matches, others = engine.non_mated(point.threshold, cuts, mated)
    return Edc(
        point.fmr if starting else fmr_target,
        cuts.fractions,
        np.broadcast_to(read_at, misses.shape),
        misses,
        mated,
        matches if isinstance(moved, np.int64) else matches + moved,
        others,
        held_rate(misses, mated),
    )


def held_rate(errors: Counts, total: Counts) -> Floats:
    """(F,) errors / total; where nothing is left, the last rate before holds."""
    rate = errors / np.maximum(total, 1)
    last = np.maximum.accumulate(np.where(total > 0, np.arange(len(total)), 0))
    held: Floats = rate[last]
    return held


def _per_subset(engine: CurveEngine, cuts: Cuts, fmr_target: float) -> Edc:
    points = engine.points(fmr_target, cuts)
    threshold = np.array([point.threshold for point in points])
    misses, mated, matches, others = np.array([point[1:] for point in points], np.int64).T
    rate = held_rate(misses, mated)
    return Edc(fmr_target, cuts.fractions, threshold, misses, mated, matches, others, rate)


def _cautions(edc: Edc, protocol: Protocol) -> tuple[Caution, ...]:
    if protocol.rule != "starting_error":
        few = caution_few_matches(edc.fmr_target, int(edc.non_mated[0]))
    else:
        few = _few_starting_errors(protocol.start_fnmr, int(edc.mated[0]))
    cautions = [few] if few else []
    for kind, counts in (("no_mated_kept", edc.mated), ("no_non_mated_kept", edc.non_mated)):
        without = np.flatnonzero(counts == 0)
        if without.size:
            facts = {"fraction": float(edc.fractions[without[0]]), "threshold": protocol.threshold}
            cautions.append(Caution(kind, facts))
    if not edc.false_non_matches[0]:
        cautions.append(Caution("no_errors", {}))
    return tuple(cautions)


def _few_starting_errors(fnmr: float, mated: int) -> Caution | None:
    if fnmr * mated >= FEWEST_ERRORS:
        return None
    return Caution("few_starting_errors", {"fnmr": fnmr, "mated": mated, "expected": fnmr * mated})

"""The discard curve of any scored comparisons under any protocol, with its areas and warnings.

Only the mated pairs are sorted where only they are discarded. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.areas import Span, Start, area_under, best_fnmr, best_span, final_area
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.discard import Discard, count_up_to, find_discard, kept_of
from evaluation.metrics.edc import Edc, fixed_threshold_edc, held_rate
from evaluation.metrics.error_rates import OperatingPoint
from evaluation.metrics.protocols import Protocol, find_protocol
from evaluation.metrics.thresholds import few_false_matches, operating_point
from evaluation.metrics.thresholds_of_kept import points_of_kept

FEWEST_ERRORS = 5


@dataclass(frozen=True)
class ProtocolCurve:
    """FNMR against the discard fraction under one protocol.

    Attributes:
        name: of the set.
        protocol: its switches.
        edc: the curve with its counts. Its `fmr_target` is the target, or the realised FMR where
            the threshold comes from a starting error.
        start: errors, mated pairs and units of discard.
        optimum: (F,) FNMR of the best possible order at each fraction; NaN where images are
            discarded, since an image takes several pairs with it.
        areas: limit -> area as the protocol defines it (after subtraction and division); NaN if
            it is divided by FNMR without discard and that is 0.
        relative: limit -> area under the curve (nothing subtracted) / area of random discard over
            the same range: 1 = no better than chance; NaN without any false non-match.
        best_relative: limit -> the same ratio for the best possible order.
        warnings: one line each, for people.
    """

    name: str
    protocol: Protocol
    edc: Edc
    start: Start
    optimum: NDArray[np.float64]
    areas: dict[float, float]
    relative: dict[float, float]
    best_relative: dict[float, float]
    warnings: tuple[str, ...]

    def optimum_at(self, fractions: NDArray[np.float64]) -> NDArray[np.float64]:
        """(F,) FNMR of the best possible order at any fractions; NaN where images are discarded."""
        if self.protocol.discard_over == "images":
            return np.full(fractions.shape, np.nan)
        return best_fnmr(self.start, fractions)

    def index_at(self, fraction: float) -> int:
        """Index of the curve's point that holds at a discard fraction: the last one not above."""
        return int(np.searchsorted(self.edc.fractions, fraction + 1e-9, side="right")) - 1


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
    discard = find_discard(comparisons, chosen)
    if chosen.threshold == "fixed":
        edc = _fixed(comparisons, discard, chosen, fmr_target)
    else:
        edc = _per_subset(comparisons, discard, chosen, fmr_target)
    return _finish(comparisons, chosen, edc, discard.units)


def fixed_point(comparisons: Comparisons, protocol: Protocol, fmr_target: float) -> OperatingPoint:
    """Threshold of a protocol on all pairs, and the errors at it.

    Raises:
        ValueError: as `protocol_curve`.
    """
    mated = comparisons.mated
    starting = protocol.rule == "starting_error"
    try:
        return operating_point(
            comparisons.scores[mated],
            comparisons.scores[~mated],
            protocol.rule,
            protocol.start_fnmr if starting else fmr_target,
            unlisted=comparisons.unlisted,
            listed_from=comparisons.listed_from,
        )
    except ValueError as error:
        raise ValueError(f"{comparisons.name}: {error}") from error


def _fixed(
    comparisons: Comparisons, discard: Discard, protocol: Protocol, fmr_target: float
) -> Edc:
    point = fixed_point(comparisons, protocol, fmr_target)
    target = point.fmr if protocol.rule == "starting_error" else fmr_target
    scores, mated = comparisons.scores, comparisons.mated
    if protocol.read_at == "kept_score":
        kept = kept_of(discard, mated)
        return _with_unlisted(
            fixed_threshold_edc(scores, mated, kept, point, target), comparisons.unlisted
        )
    own = scores[mated]
    level = np.float64(point.threshold)
    wrong = own <= level if protocol.read_at == "above_threshold" else own < level
    misses = count_up_to(discard.mated[wrong], discard.mated_cut)
    total = discard.mated_kept
    if total is None:
        total = count_up_to(discard.mated, discard.mated_cut)
    if discard.non_mated is None or discard.non_mated_cut is None:
        matches = np.broadcast_to(np.int64(point.false_matches), total.shape)
        others = np.broadcast_to(np.int64(point.non_mated), total.shape)
    else:
        accepted = scores[~mated] >= level
        matches = count_up_to(discard.non_mated[accepted], discard.non_mated_cut)
        others = count_up_to(discard.non_mated, discard.non_mated_cut)
    threshold = np.broadcast_to(level, total.shape)
    rate = held_rate(misses, total)
    return Edc(target, discard.fractions, threshold, misses, total, matches, others, rate)


def _per_subset(
    comparisons: Comparisons, discard: Discard, protocol: Protocol, fmr_target: float
) -> Edc:
    """Curve whose threshold is found again on the kept pairs; the last one holds without any."""
    kept = kept_of(discard, comparisons.mated)
    strict = protocol.read_at == "above_threshold"
    points = points_of_kept(
        comparisons.scores, comparisons.mated, kept, protocol.rule, fmr_target, strict
    )
    threshold = np.array([point.threshold for point in points])
    misses, mated, matches, others = np.array([point[1:] for point in points], np.int64).T
    rate = held_rate(misses, mated)
    return Edc(fmr_target, kept.fractions, threshold, misses, mated, matches, others, rate)


def _finish(comparisons: Comparisons, protocol: Protocol, edc: Edc, units: int) -> ProtocolCurve:
    start = Start(int(edc.false_non_matches[0]), int(edc.mated[0]), units)
    by_images = protocol.discard_over == "images"
    areas, relative, best_relative = {}, {}, {}
    for limit in protocol.limits:
        span = area_under(edc.fractions, edc.fnmr, limit, protocol.area, protocol.area_ends)
        best = None if by_images else best_span(start, edc.fractions, protocol, limit)
        areas[limit] = final_area(span, best, start, protocol, limit)
        relative[limit] = _relative(span, start)
        best_relative[limit] = float("nan") if best is None else _relative(best, start)
    optimum = np.full(edc.fnmr.shape, np.nan) if by_images else best_fnmr(start, edc.fractions)
    return ProtocolCurve(
        comparisons.name,
        protocol,
        edc,
        start,
        optimum,
        areas,
        relative,
        best_relative,
        _warnings(edc, protocol),
    )


def _relative(span: Span, start: Start) -> float:
    random = start.errors / start.mated * span.width
    return span.area / random if random else float("nan")


def _warnings(edc: Edc, protocol: Protocol) -> tuple[str, ...]:
    lines = [_few_errors(edc, protocol)]
    for kind, counts, fate in (
        ("mated", edc.mated, "FNMR stays at its last value"),
        (
            "non-mated",
            edc.non_mated,
            "FNMR is 0" if protocol.threshold == "per_subset" else "the threshold stays",
        ),
    ):
        without = np.flatnonzero(counts == 0)
        if without.size:
            lines.append(
                f"no {kind} pair is kept from discard fraction "
                f"{edc.fractions[without[0]]:.2f} on: {fate}"
            )
    if not edc.false_non_matches[0]:
        lines.append("no false non-match without discard: there is nothing to lower")
    return tuple(line for line in lines if line)


def _few_errors(edc: Edc, protocol: Protocol) -> str:
    """Line where the threshold rests on fewer false matches, or errors, than can be trusted."""
    if protocol.rule != "starting_error":
        return few_false_matches(edc.fmr_target, int(edc.non_mated[0]))
    mated = int(edc.mated[0])
    expected = protocol.start_fnmr * mated
    if expected >= FEWEST_ERRORS:
        return ""
    return (
        f"at FNMR {protocol.start_fnmr:g}, {mated} mated pairs leave {expected:.2g} expected false "
        f"non-matches (fewer than {FEWEST_ERRORS}): the threshold, and FNMR with it, rests on "
        "chance"
    )


def _with_unlisted(edc: Edc, unlisted: int) -> Edc:
    if not unlisted:
        return edc
    return Edc(
        edc.fmr_target,
        edc.fractions,
        edc.score_threshold,
        edc.false_non_matches,
        edc.mated,
        edc.false_matches,
        edc.non_mated + unlisted,
        edc.fnmr,
    )

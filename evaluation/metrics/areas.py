"""Areas under an error-versus-discard curve, and the curve of the ideal order.

Every convention in use: trapezoids or steps, up to a limit, less something, divided by something.
NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from evaluation.metrics.protocols import Area, AreaEnds, Protocol

EPSILON = 1e-9  # of a discard fraction


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

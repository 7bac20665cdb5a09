"""One score threshold from the scores of both kinds, by each of the rules in use.

Works by partition: nothing is sorted but the few scores near the threshold. NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.error_rates import OperatingPoint

if TYPE_CHECKING:
    from evaluation.metrics.protocols import Rule

FEWEST_FALSE_MATCHES = 5  # expected ones, below which a threshold rests on chance


def few_false_matches(fmr: float, non_mated: int) -> str:
    """Line to warn with where an FMR leaves too few false matches to set a threshold by; or ""."""
    expected = fmr * non_mated
    if expected >= FEWEST_FALSE_MATCHES:
        return ""
    return (
        f"at FMR {fmr:g}, {non_mated} non-mated pairs leave {expected:.2g} expected false matches "
        f"(fewer than {FEWEST_FALSE_MATCHES}): the threshold, and FNMR with it, rests on chance"
    )


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
    total = len(non_mated) + unlisted
    threshold = find_threshold(mated, non_mated, rule, target, total, complete=not unlisted)
    if threshold is None or (unlisted and threshold < listed_from):
        raise ValueError(
            f"the threshold for {'FNMR' if rule == 'starting_error' else 'FMR'} {target:g} lies "
            f"below {listed_from:.4f}, and of {total} non-mated scores only the {len(non_mated)} "
            "above that are kept: take a sample of the non-mated pairs (--non_mated COUNT) "
            "instead of all"
        )
    return point_at(mated, non_mated, threshold, total)


def find_threshold(
    mated: NDArray[np.floating],
    non_mated: NDArray[np.floating],
    rule: Rule,
    target: float,
    total: int,
    *,
    complete: bool,
) -> float | None:
    """Find the threshold alone, from all scores or from a window of them.

    Args:
        mated: (P,) one score at least; those in the window, if the scores are not `complete`.
        non_mated: (Q,) scores in the window, which ends above with the highest of them.
        rule: see `operating_point`.
        target: rate.
        total: of all non-mated scores.
        complete: whether there are no others. If not, all that matters must lie in the window.

    Returns:
        The threshold; None where scores that are not in the window decide.
    """
    if rule == "starting_error":
        return _start(mated, target)
    if not total:
        return float(mated.min())
    allowed = int(target * total)
    if allowed + 1 < total and (allowed + 1) / total <= target:
        allowed += 1
    if allowed >= len(non_mated):
        return None
    place = len(non_mated) - 1 - allowed
    barred = np.partition(non_mated, place)[place]
    if rule == "conservative":
        return _just_above(barred)
    if rule == "interpolated":
        return _between(non_mated, barred, target * total)
    return _nearest(mated, non_mated, barred, target, total, complete)


def point_at(
    mated: NDArray[np.floating], non_mated: NDArray[np.floating], threshold: float, total: int
) -> OperatingPoint:
    """Count the errors at a threshold, of `total` non-mated scores."""
    level = np.float64(threshold)
    misses, matches = np.count_nonzero(mated < level), np.count_nonzero(non_mated >= level)
    return OperatingPoint(threshold, int(misses), len(mated), int(matches), total)


def _between(non_mated: NDArray[Any], barred: Any, allowed: float) -> float:
    """Point of the line between `barred` and the next score above, by their false matches."""
    over = non_mated[non_mated > barred]
    if not len(over):
        return _just_above(barred)
    many = np.count_nonzero(non_mated >= barred)
    weight = (allowed - len(over)) / (many - len(over))
    return float(over.min()) - weight * (float(over.min()) - float(barred))


def _nearest(
    mated: NDArray[Any],
    non_mated: NDArray[Any],
    barred: Any,
    target: float,
    total: int,
    complete: bool,
) -> float | None:
    """Lowest score of either kind whose FMR is one of the two that enclose the target, the nearer.

    With `barred` accepted there are too many false matches, without it few enough.
    """
    many = np.count_nonzero(non_mated >= barred)
    few = np.count_nonzero(non_mated > barred)
    above = _lowest_above(mated, non_mated, barred)
    if above is not None and abs(few / total - target) < abs(many / total - target):
        return above
    below = non_mated[non_mated < barred]
    if len(below):
        return _lowest_above(mated, non_mated, below.max())
    return float(min(barred, mated.min())) if complete else None


def _lowest_above(mated: NDArray[Any], non_mated: NDArray[Any], score: Any) -> float | None:
    lowest = np.inf
    for values in (mated, non_mated):
        above = values[values > score]
        if len(above):
            lowest = min(lowest, float(above.min()))
    return None if lowest == np.inf else lowest


def _start(mated: NDArray[Any], target: float) -> float:
    """Mated score whose FNMR is nearest to the target, the higher of two equally near."""
    rank = min(int(target * len(mated)), len(mated) - 1)
    score = np.partition(mated, rank)[rank]
    few, many = np.count_nonzero(mated < score), np.count_nonzero(mated <= score)
    low, high = few / len(mated), many / len(mated)
    if many < len(mated) and abs(high - target) <= abs(low - target):
        return float(mated[mated > score].min())
    return float(score)


def _just_above(score: Any) -> float:
    return float(np.nextafter(score, score.dtype.type(np.inf)))

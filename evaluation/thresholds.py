"""One score threshold from the scores of both kinds, by each of the rules in use.

Works by partition: nothing is sorted but the few scores near the threshold. NumPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.error_rates import OperatingPoint

if TYPE_CHECKING:
    from evaluation.protocols import Rule


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
    if rule == "starting_error":
        threshold = _start(mated, target)
    elif not total:
        threshold = float(mated.min())
    else:
        try:
            threshold = _of_fmr(mated, non_mated, rule, target, total)
        except _NotListedError:
            threshold = -np.inf
    if unlisted and threshold < listed_from:
        raise ValueError(
            f"the threshold for {'FNMR' if rule == 'starting_error' else 'FMR'} {target:g} lies "
            f"below {listed_from:.4f}, and of {total} non-mated scores only the {len(non_mated)} "
            "above that are kept: take a sample of the non-mated pairs (--non_mated COUNT) "
            "instead of all"
        )
    return point_at(mated, non_mated, threshold, total)


def point_at(
    mated: NDArray[np.floating], non_mated: NDArray[np.floating], threshold: float, total: int
) -> OperatingPoint:
    """Count the errors at a threshold, of `total` non-mated scores."""
    level = np.float64(threshold)
    misses, matches = np.count_nonzero(mated < level), np.count_nonzero(non_mated >= level)
    return OperatingPoint(threshold, int(misses), len(mated), int(matches), total)


class _NotListedError(Exception):
    """The scores that decide are not listed."""


def _of_fmr(
    mated: NDArray[Any], non_mated: NDArray[Any], rule: Rule, target: float, total: int
) -> float:
    """Threshold from the first non-mated score, from above, that may not match at the target."""
    allowed = int(target * total)
    if allowed + 1 < total and (allowed + 1) / total <= target:
        allowed += 1
    barred = _from_top(non_mated, allowed)
    if rule == "conservative":
        return _just_above(barred)
    over = non_mated[non_mated > barred]
    if rule == "interpolated":
        if not len(over):
            return _just_above(barred)
        many = np.count_nonzero(non_mated >= barred)
        weight = (target * total - len(over)) / (many - len(over))
        return float(over.min()) - weight * (float(over.min()) - float(barred))
    return _nearest(mated, non_mated, barred, target, total)


def _nearest(
    mated: NDArray[Any], non_mated: NDArray[Any], barred: Any, target: float, total: int
) -> float:
    """Lowest score of either kind whose FMR is one of the two that enclose the target, the nearer.

    With `barred` accepted there are too many false matches, without it few enough.
    """
    many = np.count_nonzero(non_mated >= barred)
    few = np.count_nonzero(non_mated > barred)
    above = _lowest_above(mated, non_mated, barred)
    if above is not None and abs(few / total - target) < abs(many / total - target):
        return above
    below = non_mated[non_mated < barred]
    if not len(below):
        if len(non_mated) < total:
            raise _NotListedError
        lowest = min(barred, mated.min())
        return float(lowest)
    found = _lowest_above(mated, non_mated, below.max())
    assert found is not None
    return found


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


def _from_top(values: NDArray[Any], rank: int) -> Any:
    """Score with `rank` scores above it."""
    place = len(values) - 1 - rank
    if place < 0:
        raise _NotListedError
    return np.partition(values, place)[place]


def _just_above(score: Any) -> float:
    return float(np.nextafter(score, score.dtype.type(np.inf)))

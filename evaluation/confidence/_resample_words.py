"""What a bootstrap says in words: the name of an area, a verdict, and what is shaky."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence._resample import Resampling
from evaluation.confidence.intervals import Interval

FEWEST_UNITS = 20
FEWEST_ERRORS = 5
PLURAL = {"identity": "identities", "image": "images", "pair": "pairs"}


def area_name(limit: float) -> str:
    """Name of the area up to a limit: AUERC30 for .3, AUERC for 1."""
    return "AUERC" if limit == 1 else f"AUERC{limit * 100:.3g}"


def verdict(first: str, second: str, what: str, difference: float, interval: Interval) -> str:
    """Say which of two methods is better, or that the interval of their difference holds 0."""
    if interval.low > 0:
        first, second, difference = second, first, -difference
        interval = Interval(-interval.high, -interval.low)
    numbers = signed(difference, interval)
    if interval.high < 0:
        return f"{first} is better than {second} at {what}: {numbers}"
    return f"{first} and {second} cannot be told apart on this set: {what} differs by {numbers}"


def signed(value: float, interval: Interval) -> str:
    """Write `-.012 [-.020, -.005]` with as many digits as the width of the interval deserves."""
    width = interval.high - interval.low
    digits = 3
    if np.isfinite(width) and width > 0:
        digits = max(3, 1 - int(np.floor(np.log10(width))))
    ends = [end for end in interval if 1e-8 < abs(end) < np.inf]
    while any(round(end, digits) == 0 for end in ends):  # a sign without a digit says nothing
        digits += 1
    texts = [f"{one:+.{digits}f}" for one in (value, *interval)]
    texts = [text[0] + text[2:] if text[1:3] == "0." else text for text in texts]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def warnings_of(
    resampling: Resampling,
    errors: int,
    sources: int,
    areas: NDArray[np.float64],
    relatives: NDArray[np.float64],
    beyond_list: int,
) -> tuple[str, ...]:
    """Lines about what makes the intervals shaky.

    Args:
        resampling: the draws.
        errors: false non-matches without discard on the set itself.
        sources: how many units those errors come from.
        areas: (R,) of one method; NaN where no curve could be drawn.
        relatives: (R,) of the same; NaN there, and where a draw had no false non-match.
        beyond_list: draws whose threshold lay below the listed scores.
    """
    comparisons, unit, total = resampling.comparisons, resampling.unit, len(areas)
    lost = int(np.isnan(areas).sum())
    without = int(np.isnan(relatives).sum()) - lost
    best = comparisons.best_unit
    lines = (
        (
            unit != best,
            f"drawn by {unit}, but this set knows its {PLURAL[best]}: comparisons that share one "
            "are taken for independent, so the intervals may be too narrow",
        ),
        (
            resampling.units < FEWEST_UNITS,
            f"only {resampling.units} {PLURAL[unit]} to draw from: fewer than {FEWEST_UNITS} make "
            "the intervals unreliable",
        ),
        (
            errors < FEWEST_ERRORS,
            f"{errors} false non-matches without discard: fewer than {FEWEST_ERRORS}, so the "
            "intervals say little",
        ),
        (
            sources < FEWEST_ERRORS <= errors,
            f"all {errors} false non-matches come from {sources} of {resampling.units} "
            f"{PLURAL[unit]}: the intervals rest on those few",
        ),
        (
            without > 0,
            f"{without} of {total} draws have no false non-match: the area relative to random is "
            "undefined there, and its interval is that of the other draws",
        ),
        (
            lost > 0,
            f"{lost} of {total} draws lack mated or non-mated comparisons and are left out",
        ),
        (
            beyond_list > 0,
            f"in {beyond_list} of {total} draws the score threshold lies below the listed "
            f"non-mated scores; {comparisons.listed_from:.4f} was taken for it, which makes the "
            "upper ends too high: list more of them, or take a sample (--non_mated COUNT)",
        ),
        (
            resampling.approximate_total,
            "the weight of the unlisted non-mated comparisons is taken in proportion to that of "
            "all possible ones, as for a sample",
        ),
    )
    return tuple(text for applies, text in lines if applies)

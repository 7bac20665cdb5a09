"""What a bootstrap says in words: the name of an area, a verdict, and what is shaky."""

from __future__ import annotations

import numpy as np

from evaluation.confidence.intervals import Interval

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

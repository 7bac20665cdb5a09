"""Learn-then-Test with an exact binomial p-value and fixed-sequence testing over thresholds.

Angelopoulos et al., arXiv 2110.01052, section 3. Pure functions of arrays; NumPy and SciPy only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

STEPS = 100  # thresholds that are tested
SPARE_ERRORS = 3  # the first of them can bear so many errors, where `START` of all suffice
START = 1 / 2


class Count(NamedTuple):
    """Errors among so many comparisons."""

    errors: int
    total: int

    def __str__(self) -> str:
        rate = f" = {self.errors / self.total:.4g}" if self.total else ""
        return f"{self.errors}/{self.total}{rate}"


def fewest_without_error(target_risk: float, confidence: float) -> int:
    """Fewest comparisons, all without error, that certify a risk: ln(1 - c) / ln(1 - risk)."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-target_risk) - 1e-9)


def most_errors(count: int, target_risk: float, confidence: float) -> int:
    """Most errors among so many comparisons that still certify a risk; -1: not even none."""
    errors = np.arange(count + 1)
    return int(np.count_nonzero(bdtr(errors, count, target_risk) <= 1 - confidence)) - 1


def fixed_sequence(
    uncertainty: NDArray[np.float32], error: NDArray[np.bool_], target: float, delta: float
) -> tuple[float | None, Count]:
    """Test thresholds from strict to lax, each at level delta, and stop at the first that fails.

    The p-value of "the risk is above the target" with k errors among n accepted is
    P(Bin(n, target) <= k) (arXiv 2110.01052, section 3). Which thresholds are tested hangs on the
    uncertainties and on numbers of comparisons alone.

    Returns:
        The last threshold that passed and its counts; None and the first one's counts, if none did.
    """
    if not len(uncertainty):
        return None, Count(0, 0)
    order = np.argsort(uncertainty, kind="stable")
    ordered, errors = uncertainty[order], np.cumsum(error[order])
    places = np.linspace(_start(len(ordered), target, delta), len(ordered), STEPS)
    limits = np.unique(ordered[places.astype(np.intp) - 1])
    accepted = np.searchsorted(ordered, limits, side="right")
    passes = bdtr(errors[accepted - 1], accepted, target) <= delta
    tested = len(passes) if passes.all() else int(np.argmin(passes))
    last = max(tested - 1, 0)
    seen = Count(int(errors[accepted[last] - 1]), int(accepted[last]))
    return (float(limits[last]) if tested else None), seen


def _start(count: int, target: float, delta: float) -> int:
    """Accepted comparisons at the first threshold that is tested.

    With the fewest that can pass at all, one error there ends the search. So the first threshold
    accepts enough to bear up to `SPARE_ERRORS`, as long as `START` of all comparisons are enough.
    """
    start = fewest_without_error(target, 1 - delta)
    for spare in range(1, SPARE_ERRORS + 1):
        sizes = np.arange(start, int(count * START) + 1)
        able = np.flatnonzero(bdtr(spare, sizes, target) <= delta)
        if not able.size:
            break
        start = int(sizes[able[0]])
    return min(start, count)

"""TAR at fixed FAR, the numbers of IJB-B/C tables: 1 - FNMR at the threshold of each FMR.

Needs two sorts, whatever the number of targets. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.error_rates import OperatingPoint
from evaluation.metrics.thresholds import FEWEST_FALSE_MATCHES

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class TarAtFar(NamedTuple):
    """One operating point of a 1:1 table.

    Attributes:
        target: FMR (FAR) that was asked for.
        point: threshold and counts; `point.fmr` is the realised FMR.
        warning: "" or why not to trust it.
    """

    target: float
    point: OperatingPoint
    warning: str

    @property
    def matches(self) -> int:
        """Mated scores at or above the threshold."""
        return self.point.mated - self.point.false_non_matches

    @property
    def tar(self) -> float:
        """True accept rate, 1 - FNMR."""
        return self.matches / self.point.mated


def tar_at_far(
    scores: NDArray[np.float32],
    mated: NDArray[np.bool_],
    targets: Sequence[float] = FARS,
    *,
    rule: Literal["nearest", "conservative"] = "nearest",
) -> list[TarAtFar]:
    """TAR at each target FMR. Cost: sorting the scores; 1.5 s for 15.7 M.

    Thresholds are scores of either class, as in `ErrorRates`.

    Args:
        scores: (N,) comparison scores, larger = more alike.
        mated: (N,) whether both sides show one person.
        targets: FMRs within 0 to 1, any order.
        rule: "nearest" FMR (the lowest threshold among equals; may exceed the target), or
            "conservative": the lowest threshold with FMR <= target.

    Raises:
        ValueError: a class without scores, NaN, a target outside 0 to 1, or an unknown rule.
    """
    if rule not in ("nearest", "conservative"):
        raise ValueError(f"unknown threshold rule {rule!r} (known: nearest, conservative)")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    classes = _Classes(np.sort(scores[mated]), np.sort(scores[~mated]))
    if not (len(classes.mated) and len(classes.non_mated)):
        raise ValueError(
            f"TAR at FAR needs comparisons of both kinds, got {len(classes.mated)} mated and "
            f"{len(classes.non_mated)} non-mated"
        )
    return [_row(classes, target, nearest=rule == "nearest") for target in targets]


class _Classes(NamedTuple):
    """Scores of both classes, ascending."""

    mated: NDArray[np.float32]
    non_mated: NDArray[np.float32]

    def steps_around(self, target: float) -> tuple[int, int]:
        """The largest attainable number of false matches with FMR <= target, and the next one."""
        total = len(self.non_mated)
        allowed = int(target * total)
        while allowed < total and (allowed + 1) / total <= target:
            allowed += 1
        while allowed / total > target:
            allowed -= 1
        if allowed == total:
            return total, total
        first_refused = self.non_mated[total - allowed - 1]
        below, up_to = (np.searchsorted(self.non_mated, first_refused, s) for s in _SIDES)
        return total - int(up_to), total - int(below)

    def lowest_threshold(self, false_matches: int) -> float:
        """The lowest score of either class that so many non-mated ones reach; else inf."""
        refused = len(self.non_mated) - false_matches
        if refused == 0:
            return float(min(self.mated[0], self.non_mated[0]))
        highest = self.non_mated[refused - 1]
        above = [
            scores[place]
            for scores in self
            if (place := int(np.searchsorted(scores, highest, "right"))) < len(scores)
        ]
        return float(min(above, default=np.inf))

    def at(self, threshold: float) -> OperatingPoint:
        """The errors at a threshold."""
        missed, refused = (int(np.searchsorted(s, np.float32(threshold))) for s in self)
        total = len(self.non_mated)
        return OperatingPoint(threshold, missed, len(self.mated), total - refused, total)


_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def _row(classes: _Classes, target: float, *, nearest: bool) -> TarAtFar:
    if not 0 <= target <= 1:
        raise ValueError(f"target FMR {target}: must be within 0 to 1")
    total = len(classes.non_mated)
    below, above = classes.steps_around(target)
    threshold = classes.lowest_threshold(below)
    if nearest and (
        np.isinf(threshold) or abs(above / total - target) <= abs(below / total - target)
    ):
        threshold = classes.lowest_threshold(above)
    if np.isinf(threshold):  # a non-mated score is on top: nothing may pass
        threshold = float(np.nextafter(classes.non_mated[-1], np.float32(np.inf)))
    warning = ""
    if target * total < FEWEST_FALSE_MATCHES:
        warning = (
            f"FMR {target:g} of {total} non-mated comparisons is {target * total:.2g} false "
            "matches: this operating point is mostly chance"
        )
    return TarAtFar(target, classes.at(threshold), warning)

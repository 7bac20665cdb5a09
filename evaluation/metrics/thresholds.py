"""One score threshold from the scores of both kinds, by each of the rules in use; TAR at FAR.

The scores can be a set's own or weighted ones: see `evaluation.metrics.ranked`. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.protocols import Rule
from evaluation.metrics.ranked import Ranked

FEWEST_ERRORS = 5  # expected ones, below which a threshold is too uncertain to trust
FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


class Caution(NamedTuple):
    """Something that makes a number too uncertain to trust, or incomplete.

    Attributes:
        kind: what it is; `report.words` has the sentence for each.
        facts: the numbers of that sentence.
    """

    kind: str
    facts: Mapping[str, float | str]


class OperatingPoint(NamedTuple):
    """One threshold and the errors at it.

    Attributes:
        threshold: scores below it are non-matches.
        false_non_matches: mated scores below the threshold.
        mated: all mated scores.
        false_matches: non-mated scores at or above the threshold.
        non_mated: all non-mated scores.
    """

    threshold: float
    false_non_matches: int
    mated: int
    false_matches: int
    non_mated: int

    @property
    def fnmr(self) -> float:
        """False non-match rate; NaN without mated scores."""
        return self.false_non_matches / self.mated if self.mated else float("nan")

    @property
    def fmr(self) -> float:
        """False match rate; NaN without non-mated scores."""
        return self.false_matches / self.non_mated if self.non_mated else float("nan")


class TarAtFar(NamedTuple):
    """One operating point of a 1:1 table: the true accept rate is 1 - FNMR.

    Attributes:
        target: FMR (FAR) that was asked for.
        point: threshold and counts; `point.fmr` is the realised FMR.
        caution: why not to trust it; None where there is no reason.
    """

    target: float
    point: OperatingPoint
    caution: Caution | None

    @property
    def matches(self) -> int:
        """Mated scores at or above the threshold."""
        return self.point.mated - self.point.false_non_matches

    @property
    def tar(self) -> float:
        """True accept rate, 1 - FNMR."""
        return self.matches / self.point.mated


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
    own, others = Ranked.of(mated), Ranked.of(non_mated)
    total = others.total + unlisted
    threshold = find_threshold(own, others, rule, target, total, complete=not unlisted)
    if threshold is None or (unlisted and threshold < listed_from):
        raise ValueError(
            f"the threshold for {'FNMR' if rule == 'starting_error' else 'FMR'} {target:g} lies "
            f"below {listed_from:.4f}, and of {total} non-mated scores only the {len(non_mated)} "
            "above that are kept: take a sample of the non-mated pairs (--non_mated COUNT) "
            "instead of all"
        )
    return point_at(own, others, threshold, total)


def find_threshold(
    own: Ranked, others: Ranked, rule: Rule, target: float, total: float, *, complete: bool
) -> float | None:
    """Find the threshold alone.

    Args:
        own: mated scores, one with a weight at least.
        others: non-mated scores, or the highest of them.
        rule: see `operating_point`.
        target: rate.
        total: weight of all non-mated scores.
        complete: whether `others` are all of them.

    Returns:
        The threshold; None where non-mated scores decide that are not among `others`.
    """
    if rule == "starting_error":
        return _starting_threshold(own, target)
    rejected = others.highest_over(target, total) if total else None
    if rejected is None:
        return _lowest(own.next_above(-np.inf), others.next_above(-np.inf)) if complete else None
    barred = float(rejected)  # accepting it gives too many false matches; without it, few enough
    just_above = float(np.nextafter(rejected, rejected.dtype.type(np.inf)))
    if rule == "conservative":
        return just_above
    listed = others.total
    few, many = listed - others.count_up_to(barred), listed - others.count_below(barred)
    if rule == "interpolated":
        over = others.next_above(barred)
        if over is None:
            return just_above
        return over - (target * total - few) / (many - few) * (over - barred)
    above = _lowest(own.next_above(barred), others.next_above(barred))
    if above is not None and abs(few / total - target) < abs(many / total - target):
        return above
    below = others.next_below(barred)
    if below is None:
        return _lowest(barred, own.next_above(-np.inf)) if complete else None
    return _lowest(barred, own.next_above(below))


def caution_few_matches(fmr: float, non_mated: int) -> Caution | None:
    """Caution where an FMR leaves too few false matches to set a threshold by."""
    expected = fmr * non_mated
    if expected >= FEWEST_ERRORS:
        return None
    facts = {"fmr": fmr, "non_mated": non_mated, "expected": expected}
    return Caution("few_false_matches", facts)


def point_at(own: Ranked, others: Ranked, threshold: float, total: int) -> OperatingPoint:
    """Count the errors at a threshold, of `total` non-mated scores."""
    matches = others.total - others.count_below(threshold)
    return OperatingPoint(threshold, own.count_below(threshold), own.total, matches, total)


def tar_at_far(
    scores: NDArray[np.float32],
    mated: NDArray[np.bool_],
    targets: Sequence[float] = FARS,
    *,
    rule: Literal["nearest", "conservative"] = "nearest",
) -> list[TarAtFar]:
    """TAR at each target FMR, the numbers of IJB-B/C tables. Cost: two sorts.

    Thresholds are scores of either kind, but for one that lies just above all of them.

    Args:
        scores: (N,) comparison scores, larger = more alike.
        mated: (N,) whether both sides show one person.
        targets: FMRs within 0 to 1, any order.
        rule: "nearest" FMR (the lowest threshold among equals; may exceed the target), or
            "conservative": the lowest threshold with FMR <= target.

    Raises:
        ValueError: a kind without scores, NaN, a target outside 0 to 1, or an unknown rule.
    """
    if rule not in ("nearest", "conservative"):
        raise ValueError(f"unknown threshold rule {rule!r} (known: nearest, conservative)")
    if np.isnan(scores).any():
        raise ValueError(f"{int(np.isnan(scores).sum())} of {len(scores)} scores are NaN")
    own, others = Ranked.of(scores[mated]), Ranked.of(scores[~mated])
    if not (own.total and others.total):
        raise ValueError(
            f"TAR at FAR needs comparisons of both kinds, got {own.total} mated and "
            f"{others.total} non-mated"
        )
    rows = []
    for target in targets:
        if not 0 <= target <= 1:
            raise ValueError(f"target FMR {target}: must be within 0 to 1")
        threshold = find_threshold(own, others, rule, target, others.total, complete=True)
        assert threshold is not None
        below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))
        score = _lowest(own.next_above(below), others.next_above(below))
        point = point_at(own, others, threshold if score is None else score, others.total)
        few = caution_few_matches(target, others.total)
        rows.append(TarAtFar(target, point, few and few._replace(kind="uncertain_point")))
    return rows


def _starting_threshold(own: Ranked, target: float) -> float:
    """Mated score whose FNMR is nearest to the target, the higher of two equally near."""
    total = own.total
    score = float(own.at(np.array(min(int(target * total), total - 1))))
    few, many = own.count_below(score), own.count_up_to(score)
    if many < total and abs(many / total - target) <= abs(few / total - target):
        higher = own.next_above(score)
        return score if higher is None else higher
    return score


def _lowest(first: float | None, second: float | None) -> float | None:
    return min((value for value in (first, second) if value is not None), default=None)

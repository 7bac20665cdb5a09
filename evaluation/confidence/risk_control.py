"""The discard threshold that keeps a stated risk among accepted comparisons, with a confidence.

Learn-then-Test (Angelopoulos et al., arXiv 2110.01052, section 3): thresholds are tested in a fixed
order, with an exact binomial p-value, on comparisons that share no person; then checked on held-out
ones: `split` cuts a set into parts that share no person. NumPy and SciPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import bdtr

from evaluation.confidence.calibration import RISK_KINDS, threshold_of
from evaluation.confidence.intervals import Count, Interval, clopper_pearson
from evaluation.metrics.comparisons import Comparisons, Fuse, Unit, linked_people, unit_numbers

Risk = Literal["fnmr", "fmr", "total"]
RISKS: tuple[Risk, ...] = get_args(Risk)

HELD_OUT = 0.5  # share of the comparisons that the cut-off is checked on
TUNING = 0.25  # share of the set that the score threshold is found on, where it needs its own
ROUND_RISKS = [float(f"{step}e-{power}") for power in (4, 3, 2, 1) for step in (1, 1.5, 2, 3, 5, 7)]
STEPS = 100  # thresholds that are tested
SPARE_ERRORS = 3  # the first of them can bear so many errors, where `START` of all suffice
START = 1 / 2

LEFT_OUT = -1
LARGEST_GROUP = 0.1  # a linked group above this share of the comparisons is cut


@dataclass(frozen=True, kw_only=True)
class RiskControl:
    """Which comparisons to accept, and what was seen on comparisons that had no say in it.

    Comparisons "drawn" share no person among them (see `unit`), so that binomial bounds hold. A
    risk is that of a drawn comparison: each person weighs the same, however many images there are
    (and for "total" the two kinds weigh as in the set).

    Attributes:
        name: of the set.
        risk: "fnmr", "fmr" or "total" (errors of both kinds), among accepted comparisons.
        target_risk: to stay at or below.
        confidence: probability, over sets like this one, that the answer keeps the target.
        unit: what drawn comparisons do not share: "identity", "image", or nothing ("pair").
        fmr_target: FMR that the score threshold was found for; None where it was given.
        score_threshold: scores below it are non-matches.
        threshold_count: false matches among the non-mated comparisons it was found on; None where
            it was given.
        uncertainty_threshold: accept a comparison whose uncertainty is at or below it; None where
            the target cannot be reached.
        calibration: errors among the drawn calibration comparisons it accepts; where there is no
            threshold, among those that the first tested one accepts.
        calibration_total: drawn calibration comparisons in all.
        reachable: where the target cannot be reached, the smallest of some round risks that these
            calibration comparisons certify; None where there is none.
        needed: comparisons without any error that the target and the confidence call for.
        held_out: errors among the drawn held-out comparisons that are accepted.
        held_out_interval: exact interval of that risk, at the same confidence.
        held_out_pooled: the same counts over all held-out comparisons; they share people, so no
            interval goes with them.
        accept_all: errors among the drawn held-out comparisons when nothing is refused.
        accept_all_interval: exact interval of that risk.
        accepted: share of the held-out comparisons of the risk's kind that are accepted.
        accepted_images: share of the held-out images that are certain enough on their own.
        held_out_fmr: false matches among all held-out non-mated comparisons, nothing refused; None
            where they helped to find the score threshold, or are not all listed.
        left_out: comparisons across parts, used for nothing.
    """

    name: str
    risk: Risk
    target_risk: float
    confidence: float
    unit: Unit
    fmr_target: float | None
    score_threshold: float
    threshold_count: Count | None
    uncertainty_threshold: float | None
    calibration: Count
    calibration_total: int
    reachable: float | None
    needed: int
    held_out: Count
    held_out_interval: Interval
    held_out_pooled: Count
    accept_all: Count
    accept_all_interval: Interval
    accepted: float
    accepted_images: float
    held_out_fmr: Count | None
    left_out: int

    @property
    def most_errors(self) -> int:
        """Most errors among the calibration comparisons that would certify the target; -1: none."""
        return most_errors(self.calibration.total, self.target_risk, self.confidence)

    def to_dict(self) -> dict[str, object]:
        """Every number but `reachable`, for JSON."""
        return {
            name: value._asdict() if isinstance(value, Count | Interval) else value
            for name, value in vars(self).items()
            if name != "reachable"
        }


def control_risk(
    comparisons: Comparisons,
    *,
    target_risk: float,
    risk: Risk = "fnmr",
    confidence: float = 0.95,
    fmr_target: float | None = None,
    score_threshold: float | None = None,
    unit: Unit | None = None,
    fuse: Fuse = "max",
    seed: int = 0,
) -> RiskControl:
    """Find the laxest discard threshold whose risk is certified, and check it on held-out data.

    The set is cut by people into a calibration and a held-out part. The score threshold for an FMR
    target comes from all non-mated scores when FNMR is certified, which counts mated errors alone;
    for FMR and total error it comes from a third part, used for nothing else.

    Args:
        comparisons: the set.
        target_risk: in (0, 1).
        risk: "fnmr": false non-matches / accepted mated; "fmr": false matches / accepted non-mated;
            "total": errors of both kinds / accepted.
        confidence: in (0, 1).
        fmr_target: FMR of the score threshold (the lowest with FMR <= target).
        score_threshold: the score threshold itself, instead.
        unit: what drawn comparisons must not share; None: the best that the set knows. "pair"
            takes all comparisons to be independent: the confidence holds only if they are.
        fuse: how the uncertainties of two images become the comparison's.
        seed: of the cut and the draws.

    Raises:
        ValueError: a value outside its range, both or neither of `fmr_target` and
            `score_threshold`, only the high end of the non-mated scores listed, or a part without
            a comparison of the kind that is needed.
    """
    _check(comparisons, risk, target_risk, confidence, fmr_target, score_threshold)
    tuning = TUNING if fmr_target is not None and risk != "fnmr" else 0.0
    shares = ((1 - tuning) * (1 - HELD_OUT), (1 - tuning) * HELD_OUT, tuning)
    unit = unit or comparisons.best_unit
    cut = split(comparisons, shares, seed=seed)
    count = None
    if fmr_target is not None:
        part = select(comparisons, cut.rows(2)) if tuning else comparisons
        score_threshold, count = threshold_of(part, fmr_target, None)
    assert score_threshold is not None
    trial = _Trial(comparisons, risk, score_threshold, unit, fuse, seed)
    learned = _learn(trial, cut.rows(0), target_risk, confidence)
    return RiskControl(
        name=comparisons.name,
        risk=risk,
        target_risk=target_risk,
        confidence=confidence,
        unit=unit,
        fmr_target=fmr_target,
        score_threshold=score_threshold,
        threshold_count=count,
        needed=fewest_without_error(target_risk, confidence),
        held_out_fmr=trial.false_matches(cut.rows(1)) if tuning or count is None else None,
        left_out=cut.left_out,
        **learned,
        **_verify(trial, cut.rows(1), learned["uncertainty_threshold"], confidence),
    )


class _Learned(TypedDict):
    uncertainty_threshold: float | None
    calibration: Count
    calibration_total: int
    reachable: float | None


class _Verified(TypedDict):
    held_out: Count
    held_out_interval: Interval
    held_out_pooled: Count
    accept_all: Count
    accept_all_interval: Interval
    accepted: float
    accepted_images: float


def _learn(
    trial: _Trial, rows: NDArray[np.intp], target_risk: float, confidence: float
) -> _Learned:
    """Find the cut-off on the calibration part."""
    drawn = trial.drawn(rows)
    known = trial.uncertainty[drawn], trial.error[drawn]
    limit, seen = fixed_sequence(*known, target_risk, 1 - confidence)
    larger = (risk for risk in ROUND_RISKS if risk > target_risk) if limit is None else ()
    certified = (
        risk for risk in larger if fixed_sequence(*known, risk, 1 - confidence)[0] is not None
    )
    return {
        "uncertainty_threshold": limit,
        "calibration": seen,
        "calibration_total": len(drawn),
        "reachable": next(certified, None),
    }


def _verify(
    trial: _Trial, rows: NDArray[np.intp], limit: float | None, confidence: float
) -> _Verified:
    """Count on the held-out part what a cut-off does; None accepts nothing."""
    limit = -np.inf if limit is None else limit
    drawn, pool = trial.drawn(rows), trial.of_kind(rows)
    accepted, everything = trial.count(drawn, limit), trial.count(drawn)
    pooled = trial.count(pool, limit)
    return {
        "held_out": accepted,
        "held_out_interval": clopper_pearson(*accepted, confidence),
        "held_out_pooled": pooled,
        "accept_all": everything,
        "accept_all_interval": clopper_pearson(*everything, confidence),
        "accepted": pooled.total / len(pool),
        "accepted_images": trial.share_of_images(rows, limit),
    }


def _check(
    comparisons: Comparisons,
    risk: str,
    target_risk: float,
    confidence: float,
    fmr_target: float | None,
    score_threshold: float | None,
) -> None:
    if risk not in RISKS:
        raise ValueError(f"unknown risk {risk!r} (known: {', '.join(RISKS)})")
    for name, value in (("target_risk", target_risk), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name} = {value}: must lie between 0 and 1")
    if (fmr_target is None) == (score_threshold is None):
        raise ValueError("give either an FMR target or a score threshold")
    if not math.isfinite(score_threshold or 0):
        raise ValueError(f"score_threshold = {score_threshold}: must be a finite number")
    if comparisons.unlisted and risk != "fnmr":
        raise ValueError(
            f"{comparisons.name}: {comparisons.unlisted} non-mated comparisons are counted but not "
            "listed; sample them (--non_mated COUNT) instead of all"
        )


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
    P(Bin(n, target) <= k) (arXiv 2110.01052, section 3). Which thresholds are tested depends on the
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


class _Trial:
    """The comparisons that count for a risk, and which of them are errors.

    Args:
        comparisons: the set.
        risk: "fnmr" counts mated comparisons, "fmr" non-mated ones, "total" both.
        score_threshold: scores below it are non-matches.
        unit: what drawn comparisons must not share.
        fuse: how the uncertainties of two images become the comparison's.
        seed: of the draws.
    """

    def __init__(
        self,
        comparisons: Comparisons,
        risk: Risk,
        score_threshold: float,
        unit: Unit,
        fuse: Fuse,
        seed: int,
    ) -> None:
        self.comparisons, self.risk, self.seed = comparisons, risk, seed
        self.uncertainty = comparisons.pair_uncertainty(fuse)
        self.error = (comparisons.scores < np.float64(score_threshold)) == comparisons.mated
        self.people = people_of(comparisons, unit)

    def of_kind(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the rows whose kind counts; ValueError if there is none."""
        mated = self.comparisons.mated[rows]
        counting = rows if self.risk == "total" else rows[mated == (self.risk == "fnmr")]
        if not counting.size:
            raise ValueError(
                f"{self.comparisons.name}: a part has no {RISK_KINDS[self.risk]}comparison: the "
                "set is too small to be cut"
            )
        return counting

    def drawn(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the rows that count, share no person and were drawn."""
        rows = self.of_kind(rows)
        return self._drawn_of_both(rows) if self.risk == "total" else self._disjoint(rows)

    def _disjoint(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        return rows[draw_disjoint(self.people[rows], self.seed)]

    def _drawn_of_both(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows of both kinds, in the set's shares: mated ones first, then others of other people.

        A mated row takes one person, another one two (each row its own with unit "pair").
        """
        rng = np.random.default_rng(self.seed)
        is_mated = self.comparisons.mated
        share = float(np.mean(is_mated))
        mated, others = rows[is_mated[rows]], rows[~is_mated[rows]]
        sides = 1 + float(np.mean(np.diff(self.people[others], axis=1) != 0)) if others.size else 1
        persons = len(np.unique(self.people[rows]))
        mated_persons = persons * share / (share + (1 - share) * sides)
        first = rng.permutation(self._disjoint(mated))[: round(mated_persons)]
        free = ~np.isin(self.people[others], self.people[first]).any(axis=1)
        second = rng.permutation(self._disjoint(others[free]))
        kinds = ((first, share), (second, 1 - share))
        size = min(len(kind) / part for kind, part in kinds if part)
        return np.concatenate([kind[: round(size * part)] for kind, part in kinds])

    def count(self, rows: NDArray[np.intp], limit: float = np.inf) -> Count:
        """Errors among the rows with an uncertainty up to the limit."""
        rows = rows[self.uncertainty[rows] <= limit]
        return Count(int(np.count_nonzero(self.error[rows])), len(rows))

    def false_matches(self, rows: NDArray[np.intp]) -> Count | None:
        """False matches among the non-mated rows; None where not all are listed."""
        if self.comparisons.unlisted:
            return None
        rows = rows[~self.comparisons.mated[rows]]
        return Count(int(np.count_nonzero(self.error[rows])), len(rows))

    def share_of_images(self, rows: NDArray[np.intp], limit: float) -> float:
        """Share of the images of these rows whose own uncertainty is within the limit."""
        images = np.unique(self.comparisons.pairs[rows])
        return float(np.mean(self.comparisons.uncertainty[images] <= limit))


@dataclass(frozen=True)
class Split:
    """Which part each comparison belongs to.

    Attributes:
        part: (N,) int8 number of the part, -1 for comparisons whose sides lie in two parts.
        unit: what was kept on one side: "identity", "image" or "pair".
    """

    part: NDArray[np.int8]
    unit: Unit

    @property
    def left_out(self) -> int:
        """Comparisons across parts, which nothing may use."""
        return int(np.count_nonzero(self.part == LEFT_OUT))

    def rows(self, part: int) -> NDArray[np.intp]:
        """Rows of the comparisons of one part."""
        return np.flatnonzero(self.part == part)


def people_of(comparisons: Comparisons, unit: Unit | None = None) -> NDArray[np.int64]:
    """(N, 2) numbers, from 0, of who is on the two sides of each comparison.

    Args:
        comparisons: the set.
        unit: "identity"; "image", where images that mated comparisons link count as one person
            (two such persons can still be one, which nothing in the set tells); "pair", where
            every comparison stands alone. None: the best that the set knows.

    Raises:
        ValueError: a unit that this set does not know.
    """
    unit = unit or comparisons.best_unit
    count = len(comparisons.pairs)
    if unit == "pair":
        return np.repeat(np.arange(count)[:, None], 2, axis=1)
    ids = unit_numbers(comparisons, unit)
    return (linked_people(comparisons) if unit == "image" else ids)[comparisons.pairs]


def split(comparisons: Comparisons, shares: Sequence[float], *, seed: int = 0) -> Split:
    """Cut a set into parts of about the given shares; no person is in two.

    People that comparisons link stay together where every linked group is small: shares are then
    of comparisons, and none is lost. Otherwise shares are of people, who are dealt out one by one,
    and comparisons across parts are left out (non-mated ones, where it is known who is who).

    Args:
        comparisons: the set.
        shares: of the parts; they add up to 1.
        seed: of the draw.
    """
    people = people_of(comparisons)
    if not len(people):
        raise ValueError(f"{comparisons.name}: no comparison to split")
    number = int(people.max()) + 1
    group = _linked(people, number)
    sizes = np.bincount(group[people[:, 0]], minlength=number)
    if sizes.max() > LARGEST_GROUP * len(people):
        group, sizes = np.arange(number), np.ones(number, np.int64)
    dealt = _deal(sizes, shares, np.random.default_rng(seed))[group]
    first, second = dealt[people[:, 0]], dealt[people[:, 1]]
    part = np.where(first == second, first, LEFT_OUT).astype(np.int8)
    return Split(part, comparisons.best_unit)


def draw_disjoint(people: NDArray[np.int64], seed: int = 0) -> NDArray[np.intp]:
    """Rows of comparisons that share no person: at random, and as many as fit.

    It takes the comparisons in random order and keeps each one whose people are still unused: one
    mated comparison per person, or non-mated comparisons of separate pairs of people. The draw
    looks at neither scores nor uncertainties.

    Args:
        people: (N, 2) of `people_of`.
        seed: of the order.
    """
    count = len(people)
    rank = np.random.default_rng(seed).permutation(count)
    alive = np.arange(count)
    taken = np.zeros(int(people.max(initial=-1)) + 1, np.bool_)
    chosen: list[NDArray[np.intp]] = []
    while alive.size:
        best = np.full(len(taken), count)
        for side in (0, 1):
            np.minimum.at(best, people[alive, side], rank[alive])
        first_at_both = (best[people[alive]] == rank[alive, None]).all(axis=1)
        chosen.append(alive[first_at_both])
        taken[people[chosen[-1]]] = True
        alive = alive[~taken[people[alive]].any(axis=1)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)


def _linked(people: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """(number,) group of each person: those that comparisons link, directly or not."""
    graph = coo_array(
        (np.ones(len(people), np.bool_), (people[:, 0], people[:, 1])), shape=(number, number)
    )
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def _deal(
    sizes: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int8]:
    """Part of each group, so that the groups' sizes add up to about the shares."""
    order = rng.permutation(len(sizes))
    reached = np.cumsum(sizes[order]) - sizes[order] / 2
    edges = np.cumsum(shares)[:-1] * sizes.sum()
    dealt = np.empty(len(sizes), np.int8)
    dealt[order] = np.searchsorted(edges, reached, side="right")
    return dealt


def select(comparisons: Comparisons, rows: NDArray[np.intp]) -> Comparisons:
    """Return some of the comparisons, with all images.

    Raises:
        ValueError: a set whose low non-mated scores are not listed, unless only mated comparisons
            are taken.
    """
    if comparisons.unlisted and not comparisons.mated[rows].all():
        raise ValueError(
            f"{comparisons.name}: {comparisons.unlisted} non-mated comparisons are counted but not "
            "listed; sample them (--non_mated COUNT) instead of all"
        )
    return dataclasses.replace(
        comparisons,
        scores=comparisons.scores[rows],
        mated=comparisons.mated[rows],
        pairs=comparisons.pairs[rows],
        unlisted=0,
        listed_from=-np.inf,
    )

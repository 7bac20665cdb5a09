"""The discard threshold that keeps a stated risk among accepted comparisons, with a confidence.

Learn-then-Test (arXiv 2110.01052): thresholds are tested in a fixed order, with an exact
binomial p-value, on comparisons that share no person; then checked on held-out ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence import _split
from evaluation.confidence._fixed_sequence import (
    Count,
    fewest_without_error,
    fixed_sequence,
    most_errors,
)
from evaluation.confidence._risk_trial import KINDS, Risk, Trial
from evaluation.confidence.calibration import find_threshold
from evaluation.confidence.intervals import Interval, clopper_pearson
from evaluation.metrics.comparisons import Comparisons, Fuse, Unit
from evaluation.metrics.thresholds import FEWEST_FALSE_MATCHES

RISKS: tuple[Risk, ...] = get_args(Risk)
TUNING = 0.25  # share of the set that the score threshold is found on, where it needs its own
NAMES: dict[str, str] = {"fnmr": "FNMR", "fmr": "FMR", "total": "total error"}


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

    def describe(self) -> str:
        """Say the answer in plain words, one fact per line."""
        return "\n".join([self._answer(), *self._facts()])

    def to_dict(self) -> dict[str, Any]:
        """Every number, for JSON."""
        counts = (Count, Interval)
        return {k: v._asdict() if isinstance(v, counts) else v for k, v in vars(self).items()}

    def _answer(self) -> str:
        goal = (
            f"{self.name}: {NAMES[self.risk]} of at most {self.target_risk:g} among accepted "
            f"comparisons, confidence {self.confidence:g}"
        )
        kind, drawn = KINDS[self.risk], _split.WORDS[self.unit]
        if self.uncertainty_threshold is not None:
            return (
                f"{goal}: accept uncertainty <= {np.float32(self.uncertainty_threshold)!s} "
                f"({self.calibration} of the accepted {kind}calibration comparisons are errors, "
                f"{drawn})"
            )
        if self.calibration_total < self.needed:
            return (
                f"{goal}: cannot be reached: there are {self.calibration_total} {kind}calibration "
                f"comparisons ({drawn}); at least {self.needed} without error are needed"
            )
        able = most_errors(self.calibration.total, self.target_risk, self.confidence)
        return (
            f"{goal}: cannot be reached: even the most certain {self.calibration.total} {kind}"
            f"calibration comparisons ({drawn}) have {NAMES[self.risk]} {self.calibration}, where "
            f"{able} of {self.calibration.total} would do (at least {self.needed} without error "
            "are needed)"
        )

    def _facts(self) -> list[str]:
        kind, percent = KINDS[self.risk], f"{100 * self.confidence:g} %"
        if self.threshold_count is None or self.fmr_target is None:
            where = "as given"
        else:
            where = f"for FMR {self.fmr_target:g}: {self.threshold_count} where it was found"
            if self.fmr_target * self.threshold_count.total < FEWEST_FALSE_MATCHES:
                where += ", too few for this target: give a score threshold instead"
        lines = [f"score threshold {self.score_threshold:.6g}, {where}"]
        if self.held_out_fmr is not None:
            lines[0] += f"; FMR of all held-out comparisons {self.held_out_fmr}"
        if self.uncertainty_threshold is not None:
            low, high = self.held_out_interval
            pooled = f"; all its comparisons, which share people: {self.held_out_pooled}"
            lines.append(
                f"held-out part: {self.held_out} [{low:.4g}, {high:.4g}] ({percent} interval)"
                f"{'' if self.unit == 'pair' else pooled}; accepted {self.accepted:.1%} of {kind}"
                f"comparisons, {self.accepted_images:.1%} of images"
            )
        low, high = self.accept_all_interval
        lines.append(
            f"held-out part, accepting everything: {self.accept_all} [{low:.4g}, {high:.4g}]"
        )
        return [*lines, f"{self.left_out} comparisons between the parts were left out"]


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
    held_out: float = 0.5,
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
        held_out: share of the set for the check.
        seed: of the cut and the draws.

    Raises:
        ValueError: a value outside its range, both or neither of `fmr_target` and
            `score_threshold`, only the high end of the non-mated scores listed, or a part without
            a comparison of the kind that is needed.
    """
    _check(comparisons, risk, target_risk, confidence, held_out, fmr_target, score_threshold)
    tuning = TUNING if fmr_target is not None and risk != "fnmr" else 0.0
    shares = ((1 - tuning) * (1 - held_out), (1 - tuning) * held_out, tuning)
    unit = unit or comparisons.best_unit
    cut = _split.split(comparisons, shares, seed=seed)
    count = None
    if fmr_target is not None:
        part = _split.select(comparisons, cut.rows(2)) if tuning else comparisons
        score_threshold, count = find_threshold(part, fmr_target, None)
    assert score_threshold is not None
    trial = Trial(comparisons, risk, score_threshold, unit, fuse, seed)
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


def _learn(
    trial: Trial, rows: NDArray[np.intp], target_risk: float, confidence: float
) -> dict[str, Any]:
    """Find the cut-off on the calibration part."""
    drawn = trial.drawn(rows)
    limit, seen = fixed_sequence(
        trial.uncertainty[drawn], trial.error[drawn], target_risk, 1 - confidence
    )
    return {"uncertainty_threshold": limit, "calibration": seen, "calibration_total": len(drawn)}


def _verify(
    trial: Trial, rows: NDArray[np.intp], limit: float | None, confidence: float
) -> dict[str, Any]:
    """Count on the held-out part what a cut-off does; None accepts nothing."""
    limit = -np.inf if limit is None else limit
    drawn, pool = trial.drawn(rows), trial.of_kind(rows)
    kept, everything = trial.count(drawn, limit), trial.count(drawn)
    pooled = trial.count(pool, limit)
    return {
        "held_out": kept,
        "held_out_interval": clopper_pearson(*kept, confidence),
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
    held_out: float,
    fmr_target: float | None,
    score_threshold: float | None,
) -> None:
    if risk not in RISKS:
        raise ValueError(f"unknown risk {risk!r} (known: {', '.join(RISKS)})")
    shares = {"target_risk": target_risk, "confidence": confidence, "held_out": held_out}
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} = {value}: must lie between 0 and 1")
    if (fmr_target is None) == (score_threshold is None):
        raise ValueError("give either an FMR target or a score threshold")
    if comparisons.unlisted and risk != "fnmr":
        raise ValueError(
            f"{comparisons.name}: {comparisons.unlisted} non-mated comparisons are counted but not "
            "listed; sample them (--non_mated COUNT) instead of all"
        )

"""`calibrate(set, model, options)`: what a model's uncertainties mean, and which cut-off to set.

result = calibrate(open_set("lfw", "datasets"), open_model("runs/idq"))
result.calibration.save("runs/idq/calibration.json")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from estimators.base import Estimate
from evaluation.confidence.calibration import Calibration, Decision
from evaluation.confidence.intervals import Count, Interval, clopper_pearson
from evaluation.confidence.risk_control import Risk, RiskControl, control_risk, select, split
from evaluation.confidence.same_person import SamePerson
from evaluation.metrics.comparisons import Comparisons, Unit
from evaluation.metrics.thresholds import Caution, caution_few_matches
from evaluation.original import require_pairs
from evaluation.run import EvaluationOptions, embed_set, method_name, require_set_and_model
from evaluation.same_person_run import SamePersonResult, check_same_person
from evaluation.sets.stored import StoredSet

if TYPE_CHECKING:
    from estimators.base import Estimator
    from evaluation.open_model import LoadedModel
    from evaluation.sets.open_set import EvaluationSet


SHARES = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)  # accepted, in the operating table


@dataclass(frozen=True, kw_only=True)
class CalibrationOptions:
    """How a model is calibrated.

    Attributes:
        fmr: target of the score threshold; None: 1e-3, unless `score_threshold` is given.
        score_threshold: the threshold itself, instead.
        target_risk: find the cut-off that keeps this risk among accepted comparisons; None: do not.
        risk: which risk.
        confidence: of that promise and of intervals.
        unit: what is drawn for the risk; None for the best known one.
        seed: of every split.
        batch_size: images per forward pass.
        flip: average each image with its mirror image.
        of: "match" fits P(same person) too.
        prior: of P(same person), stored with it; one that is given later counts instead.
    """

    fmr: float | None = None
    score_threshold: float | None = None
    target_risk: float | None = None
    risk: Risk = "fnmr"
    confidence: float = 0.95
    unit: Unit | None = None
    seed: int = 0
    batch_size: int = 64
    flip: bool = False
    of: Literal["uncertainty", "match"] = "uncertainty"
    prior: float = 0.5

    def __post_init__(self) -> None:
        if self.fmr is not None and self.score_threshold is not None:
            raise ValueError(
                "--fmr and --score_threshold are two ways to set one threshold: give one"
            )

    @property
    def fmr_target(self) -> float | None:
        """FMR that the threshold is set for; None where the threshold is given."""
        return (self.fmr or 1e-3) if self.score_threshold is None else None


@dataclass(frozen=True)
class ReliabilityBin:
    """Comparisons of about equal predicted error rate.

    Attributes:
        predicted: mean prediction.
        errors: observed errors.
        count: comparisons.
        interval: exact interval of the observed rate, as if comparisons were independent.
    """

    predicted: float
    errors: int
    count: int
    interval: Interval

    @property
    def observed(self) -> float:
        """Observed error rate."""
        return self.errors / self.count


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed error rates.

    Attributes:
        bins: in ascending order of prediction.
        calibration_error: mean of |predicted - observed| over the bins, weighted by their counts
            (expected calibration error).
        chance: what that mean would be, on average, if every prediction were exactly right.
        confidence: of the intervals.
    """

    bins: tuple[ReliabilityBin, ...]
    calibration_error: float
    chance: float
    confidence: float


@dataclass(frozen=True)
class Cutoff:
    """What accepting uncertainties up to a limit would do.

    Attributes:
        uncertainty: the limit; comparisons at it are accepted.
        percentile: of an image with that uncertainty.
        iso_quality: of such an image.
        accepted: share of the mated comparisons that are accepted.
        misses: false non-matches among them.
        interval: exact interval of their rate, as if comparisons were independent.
    """

    uncertainty: float
    percentile: float
    iso_quality: int
    accepted: float
    misses: Count
    interval: Interval


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration with what is known about it.

    Attributes:
        calibration: the map, with the decision for the target risk where there is one.
        comparisons: that it was fitted on.
        cutoffs: what each cut-off would refuse and leave.
        reliability: predicted against observed, on people that the map was not fitted on.
        risk: the cut-off for the target risk; None where none was asked for.
        confidence: of the intervals.
        same_person: P(same person) on people that it was not fitted on; None where it was not
            asked for.
    """

    calibration: Calibration
    comparisons: Comparisons
    cutoffs: Sequence[Cutoff]
    reliability: Reliability
    risk: RiskControl | None
    confidence: float
    same_person: SamePersonResult | None = None

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """What makes the set's numbers, and the threshold, uncertain."""
        target, total = self.calibration.fmr_target, self.comparisons.non_mated_total
        few = None if target is None else caution_few_matches(target, total)
        return (*self.comparisons.cautions, *([few] if few else []))


def calibrate(
    source: EvaluationSet | StoredSet,
    model: LoadedModel | Estimator | Estimate | None = None,
    options: CalibrationOptions | None = None,
    *,
    method: str = "",
    weights_sha256: Mapping[str, str] | None = None,
) -> CalibrationResult:
    """Fit what uncertainties mean on a set, and check it on people that were left out.

    Args:
        source: of `open_set` or `open_stored`.
        model: as in `evaluation.run.evaluate`.
        options: see `CalibrationOptions`.
        method: where the uncertainties come from; the model's own name by default.
        weights_sha256: of the model that gave an estimate; a `LoadedModel` has its own.

    Raises:
        ValueError: several stored uncertainties, or too few comparisons; the message names the set.
    """
    require_set_and_model(source, model)
    options = options or CalibrationOptions()
    if isinstance(source, StoredSet):
        labelled = source.comparisons()
        if len(labelled) > 1:
            labels = ", ".join(label for label, _ in labelled)
            raise ValueError(
                f"{source.path}: holds several uncertainties ({labels}); calibrate one at a time"
            )
        comparisons, method = labelled[0][1], method or source.path.name
    elif model is None:
        raise ValueError(f"{source.name}: which model? Only stored files go without")
    else:
        embedding = EvaluationOptions(batch_size=options.batch_size, flip=options.flip)
        estimate = model if isinstance(model, Estimate) else embed_set(source, model, embedding)
        comparisons = source.comparisons(*estimate)
        method = method or method_name(model, with_run=False)
        weights_sha256 = weights_sha256 or getattr(model, "weights_sha256", None)
    require_pairs(comparisons.name, comparisons.mated)
    fitted = Calibration.fit(
        comparisons,
        fmr_target=options.fmr_target,
        score_threshold=options.score_threshold,
        method=method,
    )
    fitted = replace(fitted, weights_sha256=weights_sha256 or {})
    checked = held_out_reliability(
        comparisons,
        score_threshold=fitted.score_threshold,
        confidence=options.confidence,
        seed=options.seed,
    )
    cutoffs = operating_table(comparisons, fitted, confidence=options.confidence)
    risk = None
    if options.target_risk is not None:
        risk = control_risk(
            comparisons,
            fmr_target=options.fmr_target,
            score_threshold=options.score_threshold,
            target_risk=options.target_risk,
            risk=options.risk,
            confidence=options.confidence,
            unit=options.unit,
            seed=options.seed,
        )
        fitted = replace(fitted, decision=Decision.from_risk_control(risk, fitted))
    person = None
    if options.of == "match":
        fitted = replace(fitted, same_person=SamePerson.fit(comparisons, options.prior))
        person = check_same_person(
            comparisons,
            {fitted.method: comparisons.uncertainty},
            prior=options.prior,
            unit=options.unit,
            confidence=options.confidence,
            seed=options.seed,
        )
    return CalibrationResult(
        fitted, comparisons, cutoffs, checked, risk, options.confidence, person
    )


def reliability(
    predicted: NDArray[np.float64],
    errors: NDArray[np.bool_],
    *,
    bins: int = 10,
    confidence: float = 0.95,
) -> Reliability:
    """Compare predictions with what happened.

    Args:
        predicted: (N,) probabilities of an error.
        errors: (N,) whether it was one.
        bins: of about equal counts; equal predictions stay in one, so there can be fewer.
        confidence: of the bins' intervals.

    Raises:
        ValueError: no comparison, shapes that differ, or predictions outside [0, 1].
    """
    if not len(predicted) or predicted.shape != errors.shape:
        raise ValueError(f"{predicted.shape} predictions for {errors.shape} outcomes")
    if not ((predicted >= 0) & (predicted <= 1)).all():
        raise ValueError("predictions must lie in 0..1")
    edges = np.quantile(predicted, np.arange(1, bins) / bins, method="inverted_cdf")
    place = np.searchsorted(np.unique(edges), predicted, side="left")
    filled, distance, chance = [], 0.0, 0.0
    for rows in (np.flatnonzero(place == number) for number in np.unique(place)):
        mean, wrong = float(predicted[rows].mean()), int(np.count_nonzero(errors[rows]))
        interval = clopper_pearson(wrong, len(rows), confidence)
        filled.append(ReliabilityBin(mean, wrong, len(rows), interval))
        distance += abs(mean * len(rows) - wrong)
        chance += _mean_deviation(len(rows), mean)
    total = len(predicted)
    return Reliability(tuple(filled), distance / total, chance / total, confidence)


def held_out_reliability(
    comparisons: Comparisons,
    *,
    score_threshold: float,
    bins: int = 10,
    confidence: float = 0.95,
    seed: int = 0,
) -> Reliability:
    """Reliability on people that a map was not fitted on.

    The set is cut into two halves that share no person; each is predicted by the map fitted on the
    other, so every mated comparison within a half counts once.

    Args:
        comparisons: the set.
        score_threshold: mated scores below it are errors.
        bins: see `reliability`.
        confidence: see `reliability`.
        seed: of the cut.

    Raises:
        ValueError: a half without mated comparisons.
    """
    cut = split(comparisons, (0.5, 0.5), seed=seed)
    halves = [
        select(comparisons, cut.rows(part)[comparisons.mated[cut.rows(part)]]) for part in (0, 1)
    ]
    predicted, errors = [], []
    for fitted, checked in (halves, halves[::-1]):
        calibration = Calibration.fit(fitted, score_threshold=score_threshold)
        predicted.append(calibration.probability(checked.pair_uncertainty()))
        errors.append(checked.scores < np.float64(score_threshold))
    return reliability(
        np.concatenate(predicted), np.concatenate(errors), bins=bins, confidence=confidence
    )


def operating_table(
    comparisons: Comparisons,
    calibration: Calibration,
    accepted: Sequence[float] = SHARES,
    confidence: float = 0.95,
) -> list[Cutoff]:
    """FNMR of the accepted mated comparisons at cut-offs that accept about the given shares.

    Args:
        comparisons: the set.
        calibration: gives the score threshold, percentiles and qualities.
        accepted: shares of the mated comparisons; ties are accepted together.
        confidence: of the intervals.
    """
    mated = comparisons.mated
    uncertainty = comparisons.pair_uncertainty()[mated]
    order = np.argsort(uncertainty, kind="stable")
    ordered = uncertainty[order]
    wrong = np.cumsum(comparisons.scores[mated][order] < np.float64(calibration.score_threshold))
    places = np.maximum(np.ceil(np.array(accepted) * len(ordered) - 1e-9).astype(np.intp), 1)
    rows = []
    for limit in ordered[places - 1]:
        kept = int(np.searchsorted(ordered, limit, side="right"))
        misses = Count(int(wrong[kept - 1]), kept)
        rows.append(
            Cutoff(
                float(limit),
                float(calibration.percentile(limit)),
                int(calibration.iso_quality(limit)[0]),
                kept / len(ordered),
                misses,
                clopper_pearson(*misses, confidence),
            )
        )
    return rows


def _mean_deviation(count: int, rate: float) -> float:
    """Mean of |k - count * rate| for a binomial k (de Moivre's closed form)."""
    from scipy.special import gammaln, xlog1py, xlogy

    top = int(np.floor(count * rate)) + 1
    if top > count:
        return 0.0
    ways = gammaln(count + 1) - gammaln(top + 1) - gammaln(count - top + 1)
    chance = np.exp(ways + xlogy(top, rate) + xlog1py(count - top, -rate))
    return float(2 * top * (1 - rate) * chance)

"""`calibrate(set, model, options)`: what a model's uncertainties mean, and which cut-off to set.

result = calibrate(open_set("lfw", "datasets"), open_model("runs/idq"))
result.calibration.save("runs/idq/calibration.json")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from estimators.base import Estimate
from evaluation.confidence.calibration import Calibration
from evaluation.confidence.decision import Decision
from evaluation.confidence.reliability import (
    Cutoff,
    Reliability,
    held_out_reliability,
    operating_table,
)
from evaluation.confidence.risk_control import Risk, RiskControl, control_risk
from evaluation.metrics.comparisons import Comparisons, Unit
from evaluation.metrics.thresholds import Caution, caution_few_matches
from evaluation.original import require_pairs
from evaluation.run import EvaluationOptions, embed_set, method_name
from evaluation.sets.stored import StoredSet

if TYPE_CHECKING:
    from estimators.base import Estimator
    from evaluation.open_model import LoadedModel
    from evaluation.sets.open_set import EvaluationSet


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
class CalibrationResult:
    """A calibration with what is known about it.

    Attributes:
        calibration: the map, with the decision for the target risk where there is one.
        comparisons: that it was fitted on.
        cutoffs: what each cut-off would refuse and leave.
        reliability: predicted against observed, on people that the map was not fitted on.
        risk: the cut-off for the target risk; None where none was asked for.
        confidence: of the intervals.
    """

    calibration: Calibration
    comparisons: Comparisons
    cutoffs: Sequence[Cutoff]
    reliability: Reliability
    risk: RiskControl | None
    confidence: float

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
) -> CalibrationResult:
    """Fit what uncertainties mean on a set, and check it on people that were left out.

    Args:
        source: of `open_set` or `open_stored`.
        model: as in `evaluation.run.evaluate`.
        options: see `CalibrationOptions`.
        method: where the uncertainties come from; the model's own name by default.

    Raises:
        ValueError: several stored uncertainties, or too few comparisons; the message names the set.
    """
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
    require_pairs(comparisons.name, comparisons.mated)
    fitted = Calibration.fit(
        comparisons,
        fmr_target=options.fmr_target,
        score_threshold=options.score_threshold,
        method=method,
    )
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
    return CalibrationResult(fitted, comparisons, cutoffs, checked, risk, options.confidence)

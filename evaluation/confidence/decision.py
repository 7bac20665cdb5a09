"""Accept, ask again or refuse: two cut-offs on the uncertainty of a face, and why they lie there.

For scorers; calibrate.py stores a certified one in calibration.json. NumPy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from evaluation.confidence.calibration import Calibration
    from evaluation.confidence.risk_control import RiskControl

Outcome = Literal["accept", "ask again", "refuse"]

RISK_NAMES = {"fnmr": "FNMR", "fmr": "FMR", "total": "total error"}
LAXER = 10  # how many times the accepted risk is refused, unless that is said
HIGHEST = 0.5  # a face that fails more often than this is refused


@dataclass(frozen=True)
class Decision:
    """What to do with a face of a given uncertainty.

    An accepted face is missed as rarely as the rule says in pairs like those of the calibration
    set. Two accepted photos of one person may still not match (taken twenty years apart, say), and
    an accepted face can be an impostor's.

    Attributes:
        accept_up_to: accept a face whose uncertainty is at or below it; None accepts none.
        refuse_above: refuse a face whose uncertainty is above it; None refuses only what could not
            be scored.
        rule: why the cut-offs lie there, in words.
    """

    accept_up_to: float | None
    refuse_above: float | None
    rule: str

    def __post_init__(self) -> None:
        low, high = self.accept_up_to, self.refuse_above
        for name, value in (("accept_up_to", low), ("refuse_above", high)):
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} = {value}: must be a finite number, or None")
        if low is not None and high is not None and low > high:
            raise ValueError(f"accept_up_to = {low:g} lies above refuse_above = {high:g}")

    @classmethod
    def from_calibration(
        cls,
        calibration: Calibration,
        target_risk: float | None = None,
        refuse_risk: float | None = None,
    ) -> Decision:
        """Cut where the calibrated P(false non-match) passes two limits.

        Nothing is accepted above the largest uncertainty of the calibration set: what lies beyond
        is not known.

        Args:
            calibration: gives P(false non-match) by uncertainty.
            target_risk: accept while it is at or below this; None: the set's own rate,
                (errors + 1/2) / (comparisons + 1).
            refuse_risk: refuse where it is above this; None: ten times the target or the set's own
                rate, whichever is higher, but at most 0.5 (or the target, where that is higher).

        Raises:
            ValueError: a risk outside (0, 1), a refused risk below the accepted one, or one that
                even the most certain faces of the calibration set are above.
        """
        source = ", the calibration set's own rate" if target_risk is None else ""
        target_risk = _own_rate(calibration) if target_risk is None else target_risk
        refuse_risk = _refused(calibration, target_risk, refuse_risk)
        return cls(
            _cut(calibration, target_risk),
            _refuse_above(calibration, refuse_risk),
            f"accept while P(false non-match) is at most {target_risk:.3g}{source}; refuse above "
            f"{refuse_risk:.3g}",
        )

    @classmethod
    def from_risk_control(
        cls, control: RiskControl, calibration: Calibration, refuse_risk: float | None = None
    ) -> Decision:
        """Accept up to the cut-off whose risk is certified; refuse as `from_calibration` does.

        Where the target could not be certified, nothing is accepted.

        Args:
            control: of `control_risk`, on the calibration's set.
            calibration: gives P(false non-match) by uncertainty.
            refuse_risk: see `from_calibration`.

        Raises:
            ValueError: see `from_calibration`.
        """
        refuse_risk = _refused(calibration, control.target_risk, refuse_risk)
        accept, refuse = control.uncertainty_threshold, _refuse_above(calibration, refuse_risk)
        if accept is not None and refuse is not None:
            refuse = max(accept, refuse)
        promise = (
            f"{RISK_NAMES[control.risk]} of accepted comparisons is at most "
            f"{control.target_risk:g}, confidence {control.confidence:g}"
        )
        if accept is None:
            promise = f"accept none: it could not be certified that {promise}"
        if control.score_threshold != calibration.score_threshold:
            promise += f", at score threshold {control.score_threshold:.6g}"
        tail = f"; refuse where P(false non-match) is above {refuse_risk:.3g}"
        return cls(accept, refuse, promise + tail)

    def verdict(self, uncertainty: ArrayLike) -> list[Outcome]:
        """Say what to do with each face.

        Args:
            uncertainty: (n,) raw, larger = less reliable; NaN and infinite values are refused.
        """
        return [self._outcome(float(value)) for value in np.atleast_1d(np.asarray(uncertainty))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Decision:
        """Read what `to_dict` gave.

        Raises:
            ValueError: missing or unknown entries, or cut-offs that are not numbers in order.
        """
        known = set(cls.__dataclass_fields__)
        if not isinstance(stored, Mapping) or set(stored) != known:
            raise ValueError(f"a decision has the entries {', '.join(sorted(known))}: {stored!r}")
        cuts = (stored["accept_up_to"], stored["refuse_above"])
        if not all(cut is None or type(cut) in (int, float) for cut in cuts):
            raise ValueError(f"the cut-offs of a decision are numbers or null, not {cuts}")
        return cls(cuts[0], cuts[1], str(stored["rule"]))

    def _outcome(self, value: float) -> Outcome:
        if not math.isfinite(value):
            return "refuse"
        if self.accept_up_to is not None and value <= self.accept_up_to:
            return "accept"
        if self.refuse_above is not None and value > self.refuse_above:
            return "refuse"
        return "ask again"


def _own_rate(calibration: Calibration) -> float:
    errors, total = calibration.false_non_matches
    return (errors + 0.5) / (total + 1)


def _refused(calibration: Calibration, target: float, refuse: float | None) -> float:
    if refuse is None:
        refuse = max(target, min(HIGHEST, LAXER * max(target, _own_rate(calibration))))
    for name, value in (("target_risk", target), ("refuse_risk", refuse)):
        if not 0 < value < 1:
            raise ValueError(f"{name} = {value}: must lie between 0 and 1")
    if refuse < target:
        raise ValueError(f"refuse_risk = {refuse:g} must not be below target_risk = {target:g}")
    return refuse


def _refuse_above(calibration: Calibration, risk: float) -> float | None:
    if calibration.probabilities[-1] <= risk:
        return None
    cut = _cut(calibration, risk)
    if cut is None:
        raise ValueError(
            f"refuse_risk = {risk:g} would refuse every face: the most certain ones of "
            f"{calibration.name} have P(false non-match) {calibration.probabilities[0]:.3g}"
        )
    return cut


def _cut(calibration: Calibration, risk: float) -> float | None:
    """Return the largest uncertainty whose P(false non-match) is at most `risk`; None for none."""
    knots, heights = calibration.uncertainty, calibration.probabilities
    passed = int(np.searchsorted(heights, risk, side="right"))
    if passed == 0:
        return None
    if passed == len(heights):
        return float(max(knots[-1], calibration.percentile_at[-1]))
    low, high = heights[passed - 1], heights[passed]
    share = (risk - low) / (high - low)
    return float(knots[passed - 1] + share * (knots[passed] - knots[passed - 1]))

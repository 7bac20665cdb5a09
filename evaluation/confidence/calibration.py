"""From a raw uncertainty to numbers that people can act on, and the file that carries the map.

P(false non-match) at one score threshold, percentile among a set's images, a quality from 0 to 100
in the manner of ISO/IEC 29794-1; and what follows for a face: accept, ask again or refuse. NumPy
and SciPy only, but for `save` and `load`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.base import DIRECTION
from evaluation.confidence.intervals import Count
from evaluation.confidence.same_person import SamePerson
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.thresholds import operating_point
from utils.config import parsed, require
from utils.files import DAMAGE, naming, read_json, write_text

if TYPE_CHECKING:
    from evaluation.confidence.risk_control import RiskControl

VERSION = 1
FILE_NAME = "calibration.json"
PRIOR = 5.0  # comparisons at the overall error rate that each block of the map is mixed with
KNOTS = 501  # of the percentile
OPTIONAL = {"decision", "weights_sha256", "same_person"}  # entries that a file can lack
_KINDS: dict[str, object] = {"score_threshold": float, "fmr_target": float | None}  # else text
COSINES, SCORES = 1.01, 1e15  # largest score threshold of a model's faces, and of other scores
NOT_COMPUTED = 255  # ISO/IEC 29794-1: no quality could be computed
Outcome = Literal["accept", "ask again", "refuse"]

RISK_KINDS = {"fnmr": "mated ", "fmr": "non-mated ", "total": ""}  # of comparisons
RISK_NAMES = {"fnmr": "FNMR", "fmr": "FMR", "total": "total error"}
LAXER = 10  # how many times the accepted risk is refused, unless that is said
HIGHEST = 0.5  # a face that fails more often than this is refused


def _are_sound(values: NDArray[np.floating]) -> bool:
    return bool((np.abs(values) <= np.finfo(np.float32).max).all())


class _Count(TypedDict):
    errors: int
    total: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What uncertainties mean, by one verification set and one score threshold.

    Attributes:
        name: of the set.
        method: where the uncertainties come from, such as "trained_head".
        inputs: SHA-256 over the set's scores, labels, pairs and uncertainties.
        score_threshold: mated scores below it are the errors.
        fmr_target: FMR that the threshold was found for; None where the threshold was set.
        false_matches: errors among all non-mated comparisons at that threshold.
        false_non_matches: errors among the mated comparisons that the map was fitted on.
        uncertainty: (K,) float64 knots, ascending, of the map to probabilities.
        probabilities: (K,) P(false non-match) at the knots, never falling, inside (0, 1).
        percentile_at: (Q,) float64 knots, ascending, of the map to percentiles.
        percentiles: (Q,) in 0..100, ascending.
        decision: cut-offs that were certified on the set; None without any.
        same_person: map from a score and both uncertainties to P(same person); None without.
        weights_sha256: of the model, as `LoadedModel.weights_sha256` has it; empty where unknown.
    """

    name: str
    method: str
    inputs: str
    score_threshold: float
    fmr_target: float | None
    false_matches: Count
    false_non_matches: Count
    uncertainty: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    percentile_at: NDArray[np.float64]
    percentiles: NDArray[np.float64]
    decision: Decision | None = None
    same_person: SamePerson | None = None
    weights_sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for at, values in (("uncertainty", "probabilities"), ("percentile_at", "percentiles")):
            knots, heights = getattr(self, at), getattr(self, values)
            if knots.ndim != 1 or knots.shape != heights.shape or not knots.size:
                raise ValueError(f"{at} and {values} do not fit: {knots.shape}, {heights.shape}")
            if not (_are_sound(knots) and _are_sound(heights)):
                raise ValueError(f"{at} or {values} holds values that no float32 has")
            if (np.diff(knots) <= 0).any() or (np.diff(heights) < 0).any():
                raise ValueError(f"{at} must ascend and {values} must not fall")
        if not (self.probabilities[0] > 0 and self.probabilities[-1] < 1):
            raise ValueError("probabilities must lie inside (0, 1): no map is certain")
        if not (self.percentiles[0] >= 0 and self.percentiles[-1] <= 100):
            raise ValueError("percentiles must lie in 0..100")
        for name in ("false_matches", "false_non_matches"):
            errors, total = getattr(self, name)
            require(0 <= errors <= total < 1 << 63, name, (errors, total), "a count and its total")
        target = self.fmr_target
        require(self.false_non_matches.total > 0, "false_non_matches", 0, "of some comparisons")
        score, limit = self.score_threshold, COSINES if self.weights_sha256 else SCORES
        require(abs(score) <= limit, "score_threshold", score, f"in -{limit:g} to {limit:g}")
        require(target is None or 0 <= target <= 1, "fmr_target", target, "in [0, 1]")

    @classmethod
    def fit(
        cls,
        comparisons: Comparisons,
        *,
        fmr_target: float | None = None,
        score_threshold: float | None = None,
        method: str = "",
    ) -> Calibration:
        """Fit the maps on a set's mated comparisons and on the images they show.

        The probability is an isotonic regression of "is a false non-match" on the larger
        uncertainty of the two images. Each of its blocks is mixed with `PRIOR` comparisons at the
        overall error rate, itself (errors + 1/2) / (comparisons + 1), and the order restored, so
        that no block says 0 or 1 and a block of few comparisons says little of its own. Between the
        mean uncertainties of blocks it is linear; beyond the outermost it is flat.

        Args:
            comparisons: the set.
            fmr_target: FMR of the score threshold (the lowest with FMR <= target).
            score_threshold: the score threshold itself, instead.
            method: where the uncertainties come from.

        Raises:
            ValueError: both or neither of the two, no mated comparison, or an FMR target whose
                threshold the listed scores do not reach.
        """
        threshold, matches = threshold_of(comparisons, fmr_target, score_threshold)
        mated = comparisons.mated
        errors = comparisons.scores[mated] < np.float64(threshold)
        knots, probabilities = _monotone_map(comparisons.pair_uncertainty()[mated], errors)
        percentile_at, percentiles = _percentile_map(
            comparisons.uncertainty[np.unique(comparisons.pairs)]
        )
        return cls(
            name=comparisons.name,
            method=method,
            inputs=_hash(comparisons),
            score_threshold=threshold,
            fmr_target=fmr_target,
            false_matches=matches,
            false_non_matches=Count(int(np.count_nonzero(errors)), len(errors)),
            uncertainty=knots,
            probabilities=probabilities,
            percentile_at=percentile_at,
            percentiles=percentiles,
        )

    def probability(self, uncertainty: ArrayLike) -> NDArray[np.float64]:
        """P(false non-match) of mated comparisons by the uncertainty of the lower-quality image.

        Args:
            uncertainty: (n,) raw; NaN gives NaN.
        """
        return _interpolate(uncertainty, self.uncertainty, self.probabilities)

    def percentile(self, uncertainty: ArrayLike) -> NDArray[np.float64]:
        """Share of the set's images that are more certain, in percent; half of those equal count.

        Args:
            uncertainty: (n,) raw, of single images; NaN gives NaN.
        """
        return _interpolate(uncertainty, self.percentile_at, self.percentiles)

    def iso_quality(self, uncertainty: ArrayLike) -> NDArray[np.uint8]:
        """Quality 0..100, 100 = the most certain: 100 - percentile, rounded; 255 where undefined.

        ISO/IEC 29794-1 fixes the range and its direction, not the map: here an image of quality q
        is more certain than about q percent of the images of the calibration set.

        Args:
            uncertainty: (n,) raw, of single images; NaN and infinite values give 255.
        """
        values = np.atleast_1d(np.asarray(uncertainty, np.float64))
        percentile = np.where(np.isfinite(values), self.percentile(values), np.nan)
        return np.nan_to_num(np.rint(100 - percentile), nan=NOT_COMPUTED).astype(np.uint8)

    def to_dict(self) -> dict[str, object]:
        """Everything, for JSON; `from_dict` reads it."""
        stored: dict[str, object] = {"version": VERSION, "direction": DIRECTION}
        for key, value in vars(self).items():
            if isinstance(value, Count):
                stored[key] = value._asdict()
            elif isinstance(value, Decision | SamePerson):
                stored[key] = value.to_dict()
            elif key not in OPTIONAL or value:
                stored[key] = value.tolist() if isinstance(value, np.ndarray) else value
        return stored

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Calibration:
        """Read what `to_dict` gave.

        Raises:
            ValueError: another version or direction, missing or unknown entries, knots that do not
                ascend, a probability of 0 or 1, NaN.
        """
        if not isinstance(stored, dict) or stored.get("version") != VERSION:
            version = stored.get("version") if isinstance(stored, dict) else None
            raise ValueError(
                f"version {version!r} of a calibration is not known (known: {VERSION})"
            )
        if stored.get("direction") != DIRECTION:
            raise ValueError(f"direction {stored.get('direction')!r} must be {DIRECTION!r}")
        values = {
            key: value for key, value in stored.items() if key not in ("version", "direction")
        }
        decision, same = values.pop("decision", None), values.pop("same_person", None)
        weights = parsed(dict[str, str], values.pop("weights_sha256", {}), "weights_sha256")
        wrong = sorted(set(values) ^ set(cls.__dataclass_fields__) - OPTIONAL)
        if wrong:
            raise ValueError(f"missing or unknown entries: {', '.join(wrong)}")
        for key in values:
            if key in ("false_matches", "false_non_matches"):
                values[key] = Count(**parsed(_Count, values[key], key))
            elif key in ("uncertainty", "probabilities", "percentile_at", "percentiles"):
                values[key] = np.array(parsed(list[float], values[key], key), np.float64)
            else:
                values[key] = parsed(_KINDS.get(key, str), values[key], key)
        chosen = None if decision is None else Decision.from_dict(decision)
        person = None if same is None else SamePerson.from_dict(same)
        return cls(**values, decision=chosen, same_person=person, weights_sha256=weights)

    def save(self, path: str | Path) -> None:
        """Write the JSON file; its folder is made where it is missing."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that `save` wrote.

        Raises:
            ValueError: no such file, another kind of file, or what `from_dict` refuses; the message
                names the file.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no calibration file {path}: make one with evaluation/calibrate.py")
        try:
            stored = read_json(path)
        except ValueError:
            stored = None
        if not isinstance(stored, dict) or "version" not in stored:
            raise ValueError(
                f"{path} is not a calibration file that evaluation/calibrate.py wrote: give the "
                "file of its --out"
            )
        with naming(path, *DAMAGE):
            return cls.from_dict(stored)


def threshold_of(
    comparisons: Comparisons, fmr_target: float | None, score_threshold: float | None
) -> tuple[float, Count]:
    """Return the score threshold and the false matches among all non-mated comparisons at it.

    Args:
        comparisons: the set.
        fmr_target: the threshold is the lowest with FMR <= target.
        score_threshold: the threshold itself, instead.

    Raises:
        ValueError: both or neither, no comparison of a kind that is needed, or an FMR target whose
            threshold the listed scores do not reach.
    """
    if (fmr_target is None) == (score_threshold is None):
        raise ValueError("give either an FMR target or a score threshold")
    mated, others = comparisons.scores[comparisons.mated], comparisons.scores[~comparisons.mated]
    if not len(mated) or (fmr_target is not None and not len(others)):
        kind = "non-mated" if len(mated) else "mated"
        raise ValueError(f"{comparisons.name}: no {kind} comparison")
    if score_threshold is not None and not np.isfinite(score_threshold):
        raise ValueError(f"score_threshold {score_threshold} is not a finite number")
    if score_threshold is not None:
        matches = int(np.count_nonzero(others >= np.float64(score_threshold)))
        return score_threshold, Count(matches, comparisons.non_mated_total)
    assert fmr_target is not None
    point = operating_point(
        mated,
        others,
        "conservative",
        fmr_target,
        unlisted=comparisons.unlisted,
        listed_from=comparisons.listed_from,
    )
    return point.threshold, Count(point.false_matches, point.non_mated)


def _monotone_map(
    uncertainty: NDArray[np.float32], errors: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean uncertainty and mixed error rate of each block of the isotonic regression."""
    from scipy.optimize import (
        isotonic_regression,  # takes a while; reading a calibration does without
    )

    values, group = np.unique(uncertainty.astype(np.float64), return_inverse=True)
    size = np.bincount(group).astype(np.float64)
    wrong = np.bincount(group, weights=errors)
    starts = isotonic_regression(wrong / size, weights=size).blocks[:-1]
    size_of, wrong_of = np.add.reduceat(size, starts), np.add.reduceat(wrong, starts)
    centre = np.add.reduceat(values * size, starts) / size_of
    overall = (wrong.sum() + 0.5) / (size.sum() + 1)
    mixed = (wrong_of + PRIOR * overall) / (size_of + PRIOR)
    return centre, isotonic_regression(mixed, weights=size_of + PRIOR).x


def _percentile_map(
    uncertainty: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, count = np.unique(uncertainty.astype(np.float64), return_counts=True)
    middle = 100 * (np.cumsum(count) - count / 2) / count.sum()
    places = np.linspace(0, len(values) - 1, min(KNOTS, len(values))).round().astype(np.intp)
    return values[places], middle[places]


def _interpolate(
    uncertainty: ArrayLike, knots: NDArray[np.float64], heights: NDArray[np.float64]
) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.interp(np.asarray(uncertainty, np.float64), knots, heights)
    return values


def _hash(comparisons: Comparisons) -> str:
    digest = hashlib.sha256()
    for name in ("scores", "mated", "pairs", "uncertainty"):
        array = np.ascontiguousarray(getattr(comparisons, name))
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


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
            if value is not None and not _are_sound(np.array(value)):
                raise ValueError(f"{name} = {value}: must be a finite float32, or None")
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
        return cls(cuts[0], cuts[1], parsed(str, stored["rule"], "rule"))

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

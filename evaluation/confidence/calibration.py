"""From a raw uncertainty to numbers that people can act on, and the file that carries the map.

P(false non-match) at one score threshold, percentile among a set's images, and a quality from 0 to
100 in the manner of ISO/IEC 29794-1. NumPy and SciPy only, but for `save` and `load`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from estimators.base import DIRECTION
from evaluation.confidence.decision import Decision
from evaluation.confidence.intervals import Count
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.thresholds import operating_point
from utils.files import write_text

VERSION = 1
FILE_NAME = "calibration.json"
PRIOR = 5.0  # comparisons at the overall error rate that each block of the map is mixed with
KNOTS = 501  # of the percentile
NOT_COMPUTED = 255  # ISO/IEC 29794-1: no quality could be computed


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

    def __post_init__(self) -> None:
        for at, values in (("uncertainty", "probabilities"), ("percentile_at", "percentiles")):
            knots, heights = getattr(self, at), getattr(self, values)
            if knots.ndim != 1 or knots.shape != heights.shape or not knots.size:
                raise ValueError(f"{at} and {values} do not fit: {knots.shape}, {heights.shape}")
            if not (np.isfinite(knots).all() and np.isfinite(heights).all()):
                raise ValueError(f"{at} or {values} holds values that are NaN or infinite")
            if (np.diff(knots) <= 0).any() or (np.diff(heights) < 0).any():
                raise ValueError(f"{at} must ascend and {values} must not fall")
        if not (self.probabilities[0] > 0 and self.probabilities[-1] < 1):
            raise ValueError("probabilities must lie inside (0, 1): no map is certain")
        if not (self.percentiles[0] >= 0 and self.percentiles[-1] <= 100):
            raise ValueError("percentiles must lie in 0..100")

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
            elif isinstance(value, Decision):
                stored[key] = value.to_dict()
            elif value is not None or key != "decision":
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
        decision = values.pop("decision", None)
        wrong = sorted(set(values) ^ set(cls.__dataclass_fields__) - {"decision"})
        if wrong:
            raise ValueError(f"missing or unknown entries: {', '.join(wrong)}")
        try:
            for key in ("false_matches", "false_non_matches"):
                values[key] = Count(int(values[key]["errors"]), int(values[key]["total"]))
            for key in ("uncertainty", "probabilities", "percentile_at", "percentiles"):
                values[key] = np.array(values[key], np.float64)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{key} cannot be read: {error}") from error
        chosen = None if decision is None else Decision.from_dict(decision)
        return cls(**values, decision=chosen)

    def save(self, path: str | Path) -> None:
        """Write the JSON file; its folder is made where it is missing."""
        write_text(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a file that `save` wrote.

        Raises:
            ValueError: no such file, no JSON, or what `from_dict` refuses; the message names the
                file.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"no calibration file {path}: make one with evaluation/calibrate.py")
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


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

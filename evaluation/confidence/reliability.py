"""Does a predicted error rate come true? Bins of equal counts, and the calibration error.

Also the operating table: what each cut-off would refuse. NumPy and SciPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.calibration import Calibration
from evaluation.confidence.intervals import Count, Interval, clopper_pearson
from evaluation.confidence.split import select, split
from evaluation.metrics.comparisons import Comparisons

ACCEPTED = (1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.5)


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
    accepted: Sequence[float] = ACCEPTED,
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

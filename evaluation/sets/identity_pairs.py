"""The discard curve over the mated pairs of an identity-labelled set.

One number per method that can be compared between methods. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.error_rates import OperatingPoint
from evaluation.sets.labelled import mated_pairs, non_mated_pairs, scores_of

__all__ = [
    "DISCARDS",
    "RelativeEdc",
    "mated_pairs",
    "non_mated_pairs",
    "relative_edc",
    "scores_of",
    "threshold_at_fmr",
]

DISCARDS = (0.0, 0.05, 0.1, 0.2, 0.3)
LIMIT = 0.3


@dataclass(frozen=True)
class RelativeEdc:
    """FNMR over mated pairs when the most uncertain of them are discarded.

    Attributes:
        point: the threshold, from all non-mated pairs, and the counts behind its rates.
        fnmr: FNMR at the discard fractions 0, .05, .1, .2, .3.
        auerc30: area under the curve up to .3 divided by that of random discard, .3 * FNMR(0);
            1 = no better than chance, NaN without any false non-match.
        optimum: the same ratio for the best possible order.
    """

    point: OperatingPoint
    fnmr: tuple[float, ...]
    auerc30: float
    optimum: float


def threshold_at_fmr(non_mated_scores: NDArray[np.float32], fmr: float) -> float:
    """Return the lowest threshold with FMR <= fmr: just above the first score that must not match.

    Raises:
        ValueError: no score, or fmr outside (0, 1).
    """
    if not (len(non_mated_scores) and 0 < fmr < 1):
        raise ValueError(f"FMR {fmr} over {len(non_mated_scores)} non-mated pairs is undefined")
    allowed = int(np.floor(fmr * len(non_mated_scores) + 1e-9))
    place = len(non_mated_scores) - 1 - allowed
    barred = np.partition(non_mated_scores, place)[place]
    return float(np.nextafter(barred, np.float32(np.inf)))


def relative_edc(
    mated_scores: NDArray[np.float32],
    mated_uncertainty: NDArray[np.float32],
    non_mated_scores: NDArray[np.float32],
    fmr: float,
) -> RelativeEdc:
    """Discard mated pairs, most uncertain first, at one threshold found on all non-mated pairs.

    The curve has one step per pair: FNMR after k discards holds over [k, k + 1) / P, so the area is
    an exact sum (a step function; no trapezoids). Pairs of equal uncertainty leave in proportion,
    that is, each step takes their mean error, so the result does not depend on their order.

    Args:
        mated_scores: (P,) scores.
        mated_uncertainty: (P,) of each pair (the larger of its two images'), larger = worse.
        non_mated_scores: (M,) scores.
        fmr: target; the threshold is the lowest with FMR <= fmr.

    Raises:
        ValueError: lengths that differ, no pair, NaN, or fmr outside (0, 1).
    """
    if mated_scores.shape != mated_uncertainty.shape or not len(mated_scores):
        raise ValueError(
            f"{mated_scores.shape} scores for {mated_uncertainty.shape} uncertainties: "
            "need one each, and at least one pair"
        )
    for name, values in (("scores", mated_scores), ("uncertainties", mated_uncertainty)):
        if np.isnan(values).any():
            raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} {name} are NaN")
    threshold = threshold_at_fmr(non_mated_scores, fmr)
    errors = mated_scores < threshold
    curve = _fnmr_after_discards(_errors_by_turn(errors, mated_uncertainty))
    best = _fnmr_after_discards(np.sort(errors.astype(np.float64))[::-1])
    total, wrong = len(errors), int(errors.sum())
    matches = int((non_mated_scores >= threshold).sum())
    random = LIMIT * wrong / total
    return RelativeEdc(
        OperatingPoint(threshold, wrong, total, matches, len(non_mated_scores)),
        tuple(float(curve[int(np.floor(share * total + 1e-9))]) for share in DISCARDS),
        _area(curve) / random if wrong else float("nan"),
        _area(best) / random if wrong else float("nan"),
    )


def _errors_by_turn(
    errors: NDArray[np.bool_], uncertainty: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(P,) errors in order of discard, the mean over each group of equal uncertainty."""
    values, group = np.unique(-uncertainty.astype(np.float64), return_inverse=True)
    sizes = np.bincount(group, minlength=len(values))
    mean = np.bincount(group, weights=errors, minlength=len(values)) / sizes
    return np.repeat(mean, sizes)


def _fnmr_after_discards(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) FNMR of what is left after 0, 1, ..., P - 1 discards."""
    total = len(errors)
    left = errors.sum() - np.concatenate([[0.0], np.cumsum(errors)[:-1]])
    rate: NDArray[np.float64] = np.maximum(left, 0) / (total - np.arange(total))
    return rate


def _area(curve: NDArray[np.float64]) -> float:
    """Area of the step curve over [0, LIMIT]."""
    steps = LIMIT * len(curve)
    whole = int(np.floor(steps))
    area = float(curve[:whole].sum()) + (steps - whole) * float(curve[min(whole, len(curve) - 1)])
    return area / len(curve)

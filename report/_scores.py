"""Scores for the report's pictures: histograms by uncertainty, and DET curves, binned first.

NumPy only; ten million comparisons take a few seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.kept import KeptSets

if TYPE_CHECKING:
    from evaluation.metrics.protocol_curve import ProtocolCurve

BINS = 20, 80  # fewest and most: histograms of few scores would be noise
DECILES = 10
DET_POINTS = 300
DET_KEPT = (1.0, 0.9, 0.7)


def histograms(comparisons: Comparisons, uncertainty: NDArray[np.float32]) -> dict[str, Any]:
    """Score histograms of both classes: of all listed comparisons and per uncertainty decile.

    Args:
        comparisons: N of them.
        uncertainty: (N,) of each comparison.

    Returns:
        `edges` (B + 1,), counts `mated` and `non_mated` (B,), and `deciles`, least uncertain
        first, of the mated comparisons' uncertainties.
    """
    scores, mated = comparisons.scores, comparisons.mated
    bins = int(np.clip(2.5 * np.count_nonzero(mated) ** (1 / 3), BINS[0], BINS[1]))
    edges = np.linspace(float(scores.min()), _top(scores), bins + 1)
    place = np.clip(((scores - edges[0]) / (edges[1] - edges[0])).astype(np.int64), 0, bins - 1)
    bounds = decile_bounds(uncertainty[mated])
    own_scores = scores[mated]
    decile = np.searchsorted(bounds[1:-1], uncertainty, side="left")
    own_decile = decile[mated]
    cell = (decile * 2 + mated) * bins + place
    counts = np.bincount(cell, minlength=2 * DECILES * bins).reshape(DECILES, 2, bins)
    return {
        "edges": edges,
        "mated": counts[:, 1].sum(axis=0),
        "non_mated": counts[:, 0].sum(axis=0),
        "deciles": [
            {
                "uncertainty_from": bounds[number],
                "uncertainty_to": bounds[number + 1],
                "mated": counts[number, 1],
                "non_mated": counts[number, 0],
                "mated_total": counts[number, 1].sum(),
                "mated_median": _median(own_scores[own_decile == number]),
            }
            for number in range(DECILES)
        ],
    }


def decile_bounds(uncertainty: NDArray[np.float32]) -> NDArray[np.float64]:
    """(11,) lowest value, the nine inner deciles and the highest value."""
    return np.percentile(uncertainty.astype(np.float64), np.arange(0, 101, 10))


def det_curves(
    comparisons: Comparisons, curve: ProtocolCurve, kept: KeptSets
) -> list[dict[str, Any]]:
    """FMR against FNMR over all thresholds, of all comparisons and of the kept 90 % and 70 %.

    Args:
        comparisons: N of them; FMR counts unlisted non-mated ones in its total.
        curve: gives the fractions.
        kept: which comparisons its protocol keeps at them.
    """
    found = []
    for share in DET_KEPT:
        rows = kept.rows(curve.index_at(1 - share))
        own = np.sort(comparisons.scores[rows & comparisons.mated])
        others = np.sort(comparisons.scores[rows & ~comparisons.mated])
        if len(own) and len(others):
            found.append({"kept": share, **_det(own, others, comparisons.unlisted)})
    return found


def _det(
    mated: NDArray[np.float32], non_mated: NDArray[np.float32], unlisted: int
) -> dict[str, Any]:
    """At most so many points as a picture can show, evenly over the logarithm of FMR.

    Each point is the lowest threshold of its FMR, just above the next non-mated score.

    Args:
        mated: (P,) ascending scores.
        non_mated: (Q,) ascending scores.
        unlisted: further non-mated ones, all lower.
    """
    count = len(non_mated)
    steps = np.unique(np.geomspace(1, max(count - 1, 1), DET_POINTS).astype(np.int64))
    barred = np.unique(non_mated[np.maximum(count - 1 - steps, 0)])[::-1]
    matches = count - np.searchsorted(non_mated, barred, side="right")
    return {
        "mated": len(mated),
        "non_mated": count + unlisted,
        "fmr": matches / (count + unlisted),
        "fnmr": np.searchsorted(mated, barred, side="right") / len(mated),
    }


def _top(scores: NDArray[np.float32]) -> float:
    low, high = float(scores.min()), float(scores.max())
    return high if high > low else low + 1.0


def _median(values: NDArray[np.float32]) -> float:
    return float(np.median(values)) if len(values) else float("nan")

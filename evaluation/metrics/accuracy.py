"""Ten-fold verification accuracy of the kept pairs: the threshold of a fold comes from the others.

The LFW protocol as the original's third script runs it, one column of the report. NumPy only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FOLDS = 10


class Accuracy(NamedTuple):
    """Means over the ten folds.

    Attributes:
        value: share of right decisions; NaN when fewer than ten pairs, or folds without mated
            training pairs, leave it undefined.
        threshold: mean of the folds' thresholds; NaN in the same cases.
    """

    value: float
    threshold: float


def ten_fold_accuracy(scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> Accuracy:
    """Accuracy over ten contiguous folds, in the order of the pairs.

    A fold's threshold is the mean of all mated training scores that reach the best training
    accuracy. Folds and means are in float32, as the original's.

    Args:
        scores: (N,) float32.
        mated: (N,).
    """
    if len(scores) < FOLDS:
        return Accuracy(float("nan"), float("nan"))
    accuracies, thresholds = np.zeros(FOLDS, np.float32), np.zeros(FOLDS, np.float32)
    for fold, test in enumerate(np.array_split(np.arange(len(scores)), FOLDS)):
        train = np.ones(len(scores), np.bool_)
        train[test] = False
        thresholds[fold] = best_threshold(scores[train], mated[train])
        accuracies[fold] = np.mean((scores[test] >= thresholds[fold]) == mated[test])
    if np.isnan(thresholds).any():
        return Accuracy(float("nan"), float("nan"))
    return Accuracy(float(np.mean(accuracies)), float(np.mean(thresholds)))


def best_threshold(scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> np.float32:
    """Mean of the mated scores at which most decisions are right; NaN without mated scores."""
    candidates, others = np.sort(scores[mated]), np.sort(scores[~mated])
    if not len(candidates):
        return np.float32("nan")
    accepted = len(candidates) - np.searchsorted(candidates, candidates, side="left")
    refused = np.searchsorted(others, candidates, side="left")
    right = accepted + refused
    return np.float32(np.mean(candidates[right == right.max()]))

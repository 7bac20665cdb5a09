"""Notice a head that has stopped telling faces apart, while there is still time to stop the run."""

from __future__ import annotations

from collections import deque

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

FLOOR = 1e-6
FLOOR_SHARE = 0.95
LEAST_RANK = 0.05


def rank_correlation(uncertainty: Tensor, mu: Tensor, labels: Tensor) -> float:
    """Return Spearman's correlation of uncertainty and hardness over the genuine pairs of a batch.

    Args:
        uncertainty: (B,), larger = less reliable; a pair has the larger of its two.
        mu: (B, D) L2-normalised embeddings; hardness is 1 - cos.
        labels: (B,).

    Returns:
        The correlation, 0 where all pairs are tied.
    """
    first, second = np.triu_indices(len(labels), k=1)
    ids = labels.cpu().numpy()
    genuine = ids[first] == ids[second]
    first, second = first[genuine], second[genuine]
    values = uncertainty.detach().float().cpu().numpy()
    similarity = (mu @ mu.T).detach().float().cpu().numpy()
    pair = np.maximum(values[first], values[second])
    hardness = 1 - similarity[first, second]
    if np.ptp(pair) == 0 or np.ptp(hardness) == 0:
        return 0.0
    return float(spearmanr(pair, hardness).statistic)


class CollapseDetector:
    """Warns when uncertainties sit at their floor or no longer rank the pairs by hardness.

    A good uncertainty is high for the pairs of one person that look unlike each other.

    Args:
        window: log lines over which the correlation is averaged before it is judged.
    """

    def __init__(self, window: int = 5) -> None:
        self._ranks: deque[float] = deque(maxlen=window)

    def check(self, uncertainty: Tensor, rank: float) -> list[str]:
        """Take one batch into account and return what is wrong, in words; usually nothing."""
        values = uncertainty.detach().float()
        warnings = []
        at_floor = float((values < FLOOR).float().mean())
        if at_floor > FLOOR_SHARE:
            warnings.append(
                f"collapse: {at_floor:.0%} of the uncertainties are below {FLOOR:g}; "
                "lower the learning rate"
            )
        if len(values) > 1 and float(values.std() / values.mean().clamp_min(1e-12)) < 1e-4:
            warnings.append("collapse: every face of the batch gets the same uncertainty")
        self._ranks.append(rank)
        mean = float(np.mean(self._ranks))
        if len(self._ranks) == self._ranks.maxlen and mean < LEAST_RANK:
            warnings.append(
                f"collapse: uncertainty no longer ranks the hard pairs (Spearman {mean:.2f} over "
                f"the last {len(self._ranks)} log lines)"
            )
        return warnings

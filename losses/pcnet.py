"""PCNet: the lower-quality image of a genuine pair should have the pair's cosine as its quality."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from losses.base import GenuinePairLoss, PairBatch, lower_quality, quality_logit

__all__ = ["PCNetLoss"]


class PCNetLoss(GenuinePairLoss):
    """Mean of (cos - min(q_i, q_j))^2 over genuine pairs, q = 1 - uncertainty.

    Only the lower-quality image of a pair gets a gradient. Pairs whose cosine is negative cannot be
    fitted: they pull the quality to 0.

    Xie et al., "Inducing Predictive Uncertainty Estimation for Face Recognition", BMVC 2020
    (arXiv 2009.00603).
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"probability"})
    summary = "PC_loss"

    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return the squared gap between cosine and pair quality, (P,)."""
        quality = torch.sigmoid(quality_logit(batch.raw))
        return (batch.cosine - lower_quality(quality, batch)).square()

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the quality of each image, (B, 1)."""
        return {"pconf": torch.sigmoid(quality_logit(batch.raw))[:, None]}

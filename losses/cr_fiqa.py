"""CR-FIQA: quality as the certainty with which an image would be classified."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import ImageLoss, PairBatch, quality_logit, require_positive

__all__ = ["CRFIQALoss"]

_EPS = 1e-9


class CRFIQALoss(ImageLoss):
    """Smooth L1 between an image's quality and its certainty ratio.

    Boutros et al., "CR-FIQA: Face Image Quality Assessment by Learning Sample Relative
    Classifiability", CVPR 2023 (arXiv 2112.06592): the cosine to the centre of the own identity,
    divided by 1 + eps + the largest cosine to the centre of another one. Here the backbone is
    frozen, so that the ratio is a target and not learned itself. Quality is a probability: ratios
    outside 0 to 1, which few images have, count as 0 or 1.

    Args:
        beta: gap at which the square turns into a line, above 0.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"probability"})
    needs_centres: ClassVar[bool] = True

    def __init__(self, *, beta: float = 0.5) -> None:
        super().__init__()
        require_positive("cr_fiqa", beta=beta)
        self.beta = beta
        self.summary = f"CR_FIQA_loss {beta:g}"

    def per_image(self, batch: PairBatch) -> Tensor:
        """Return the loss of each image, (B,)."""
        quality = torch.sigmoid(quality_logit(batch.raw))
        return F.smooth_l1_loss(quality, certainty(batch), reduction="none", beta=self.beta)

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the quality and the target of each image, (B, 1)."""
        quality = torch.sigmoid(quality_logit(batch.raw))
        return {"pconf": quality[:, None], "t_cr": certainty(batch)[:, None]}


def certainty(batch: PairBatch) -> Tensor:
    """Return the certainty ratio of each image, between 0 and 1, (B,)."""
    assert batch.centres is not None
    own = (batch.mu * batch.centres.own).sum(dim=1)
    others = batch.mu @ batch.centres.every.to(batch.mu.dtype).T
    nearest = others.scatter(1, batch.labels[:, None].long(), -1.0).amax(dim=1)
    return (own / (nearest + 1 + _EPS)).clamp(0, 1)

"""SDD-FIQA: how far an image's similarities to its identity are from those to all others."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import ImageLoss, PairBatch, quality_logit, require_positive

__all__ = ["SDDFIQALoss"]


class SDDFIQALoss(ImageLoss):
    """Smooth L1 between an image's quality and the distance of its similarity distributions.

    Ou et al., "SDD-FIQA: Unsupervised Face Image Quality Assessment with Similarity Distribution
    Distance", CVPR 2021 (arXiv 2103.05977). The target is the Wasserstein distance of the image's
    cosines with other images of its identity in the batch from those with images of other
    identities, times `scale`, at most 1. The paper draws 24 of each from the whole data set, twelve
    times; here each batch is a draw, of images as augmentation leaves them.

    Args:
        scale: of the distance; above 0.
        beta: gap at which the square turns into a line, above 0.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"probability"})

    def __init__(self, *, scale: float = 1.0, beta: float = 0.5) -> None:
        super().__init__()
        require_positive("sdd_fiqa", scale=scale, beta=beta)
        self.scale = scale
        self.beta = beta
        self.needs_whole_batch = True
        self.summary = f"SDD_FIQA_loss {scale:g} {beta:g}"

    def per_image(self, batch: PairBatch) -> Tensor:
        """Return the loss of each image, (B,)."""
        quality = torch.sigmoid(quality_logit(batch.raw))
        return F.smooth_l1_loss(quality, self._target(batch), reduction="none", beta=self.beta)

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the quality and the target of each image, (B, 1)."""
        quality = torch.sigmoid(quality_logit(batch.raw))
        return {"pconf": quality[:, None], "t_wd": self._target(batch)[:, None]}

    def _target(self, batch: PairBatch) -> Tensor:
        genuine = batch.mu.new_zeros(len(batch.mu), len(batch.mu))
        genuine[batch.first, batch.second] = genuine[batch.second, batch.first] = 1
        impostor = (batch.labels[:, None] != batch.labels[None, :]).to(genuine.dtype)
        distance = wasserstein(batch.mu @ batch.mu.T, genuine, impostor)
        return (self.scale * distance).clamp(max=1)


def wasserstein(values: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return each row's distance between two weightings of its values, all (B, N): (B,).

    The area between the two cumulated distributions. A row without weights in one of them counts as
    having it all beyond the largest value.
    """
    ordered, places = values.sort(dim=1)
    gap = _shares(first) - _shares(second)
    height = gap.gather(1, places).cumsum(dim=1)[:, :-1].abs()
    return (height * ordered.diff(dim=1)).sum(dim=1)


def _shares(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)

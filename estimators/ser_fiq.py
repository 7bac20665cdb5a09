"""SER-FIQ: how far apart the embeddings of one face are when its features are dropped at random.

Terhoerst et al., CVPR 2020, arXiv 2003.09373.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from estimators.base import Batch, Estimate
from mc_dropout.closed_form import check_rate, dropout_masks, rows_at_once
from models.frozen import FrozenBackbone

__all__ = ["SERFIQ"]


class SERFIQ:
    """Uncertainty = 1 - q = tanh(d / 2) in 0..1, for the paper's quality q = 2 sigmoid(-d).

    d is the mean Euclidean distance over all pairs of L2-normalised embeddings of `passes` dropout
    passes (a pass drops features before the backbone's last layers, its BatchNorm included). The
    paper divides the sum of distances by passes^2 / 2 instead of the number of pairs; the order of
    images is the same.

    Masks come from a generator of this object's seed, on the CPU, one per pass and shared by all
    images, so a value does not depend on the batch.

    Cost: `passes` times the last layers, and passes^2 / 2 distances per image.

    Args:
        passes: number of dropout passes, at least 2.
        rate: share of features dropped, in (0, 1).
        seed: of the masks.
    """

    name = "ser_fiq"

    def __init__(
        self, *, frozen: FrozenBackbone, passes: int = 100, rate: float = 0.5, seed: int = 0
    ) -> None:
        if passes < 2:
            raise ValueError(f"passes = {passes}: a distance needs at least 2 passes")
        check_rate(rate)
        self.frozen, self.passes, self.rate, self.seed = frozen, passes, rate, seed
        self._masks: Tensor | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column."""
        output = batch.output(self.frozen)
        distance = torch.stack([mean_distance(self._passes(row)) for row in output.features])
        return Estimate(
            output.embedding.cpu().numpy(), torch.tanh(distance / 2)[:, None].cpu().numpy()
        )

    def _passes(self, features: Tensor) -> Tensor:
        """Return the embeddings (T, D) of one image's features (F,) under all masks."""
        if self._masks is None:
            masks = dropout_masks(len(features), self.passes, self.rate, self.seed)
            self._masks = masks.to(features.device)
        scaled = features / (1 - self.rate)
        blocks = self._masks.split(rows_at_once(features.device))
        tail = self.frozen.backbone.tail
        return torch.cat([tail(scaled * masks) for masks in blocks])


def mean_distance(passes: Tensor) -> Tensor:
    """Return the mean Euclidean distance over all pairs of the (T, D) rows, each at length 1.

    A row of length 0 stays where it is, at distance 1 from every other.
    """
    return torch.pdist(F.normalize(passes)).mean()

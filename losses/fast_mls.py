"""FastMLS (ProbFace): mutual likelihood of a genuine pair with one variance per image."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from losses.base import GenuinePairLoss, PairBatch, log_variance_sum, require_positive

__all__ = ["FastMLSLoss"]


class FastMLSLoss(GenuinePairLoss):
    """Mean of 2(1 - cos)/(s_i + s_j) + log(s_i + s_j) over genuine pairs, s = exp(raw).

    Chen et al., "Fast and Reliable Probabilistic Face Embeddings in the Wild" (ProbFace, arXiv
    2102.04075), Eq. 5 up to the factor -D/2. At the optimum s_i + s_j = 2(1 - cos). Sums of
    variances stay logarithms, so that no raw output overflows. The paper's two further terms are
    off unless they are given a weight.

    Args:
        output_constraint: weight of mean |s / s_avg - 1| over the batch (1e-3 in the paper), which
            keeps scales comparable; s_avg is the batch mean and gets no gradient.
        constraint: "l1", or "l2" for the square of the difference.
        triplet: weight of the identification-preserving term (1e-3 to 1e-4 in the paper): the mean
            of D_ap - D_an + margin over semi-hard triplets (D_ap < D_an < D_ap + margin) of anchor,
            positive and negative, with D_ij = d_ij^2 / (s_i + s_j).
        triplet_margin: of that term.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"variance"})

    def __init__(
        self,
        *,
        output_constraint: float = 0.0,
        constraint: Literal["l1", "l2"] = "l1",
        triplet: float = 0.0,
        triplet_margin: float = 3.0,
    ) -> None:
        super().__init__()
        require_positive(
            "fast_mls", zero=True, output_constraint=output_constraint, triplet=triplet
        )
        require_positive("fast_mls", triplet_margin=triplet_margin)
        if constraint not in ("l1", "l2"):
            raise ValueError(f"losses.fast_mls: constraint = {constraint!r}: must be 'l1' or 'l2'")
        self.output_constraint = output_constraint
        self.constraint = constraint
        self.triplet = triplet
        self.triplet_margin = triplet_margin
        # Negatives and the mean variance both come from classes that another process may hold.
        self.needs_whole_batch = triplet > 0 or output_constraint > 0
        self.summary = "Fast_MLS_loss"
        if output_constraint > 0:
            self.summary += f" constraint {constraint} {output_constraint:g}"
        if triplet > 0:
            self.summary += f" triplet {triplet:g} margin {triplet_margin:g}"

    def check(self, mu: Tensor, raw: Tensor) -> None:
        """Raise ValueError unless the head gives one log variance per image."""
        if raw.shape[1] != 1:
            raise ValueError(
                f"losses.fast_mls takes one log variance per image, the head gives "
                f"{raw.shape[1]}: set dim=1 in the head, or use the loss 'mls'"
            )

    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return the negative log likelihood of each pair up to constants, (P,)."""
        log_variance = batch.raw[:, 0]
        log_sum = log_variance_sum(log_variance[batch.first], log_variance[batch.second])
        return _squared_distance(batch.cosine) * torch.exp(-log_sum) + log_sum

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the variance of each image, (B, 1)."""
        return {"sigma": batch.raw.exp()}

    def total(self, batch: PairBatch) -> Tensor:
        """Return the mean over pairs plus the terms that have a weight."""
        loss = self.per_pair(batch).mean()
        if self.output_constraint > 0:
            loss = loss + self.output_constraint * self._spread(batch.raw[:, 0])
        if self.triplet > 0:
            loss = loss + self.triplet * self._triplet_term(batch)
        return loss

    def _spread(self, log_variance: Tensor) -> Tensor:
        log_mean = torch.logsumexp(log_variance, dim=0) - math.log(len(log_variance))
        deviation = torch.exp(log_variance - log_mean.detach()) - 1
        return deviation.abs().mean() if self.constraint == "l1" else deviation.square().mean()

    def _triplet_term(self, batch: PairBatch) -> Tensor:
        """Return the mean hinge over semi-hard triplets, 0 where the batch has none."""
        log_variance = batch.raw[:, 0]
        log_sum = log_variance_sum(log_variance[:, None], log_variance[None, :])
        distance = _squared_distance(batch.mu @ batch.mu.T) * torch.exp(-log_sum)
        anchor = torch.cat([batch.first, batch.second])
        positive = torch.cat([batch.second, batch.first])
        # (2P, B): each ordered genuine pair against every image as its negative.
        gap = distance[anchor] - distance[anchor, positive][:, None]
        impostor = batch.labels[anchor][:, None] != batch.labels[None, :]
        semi_hard = impostor & (gap > 0) & (gap < self.triplet_margin)
        hinge = torch.where(semi_hard, self.triplet_margin - gap, 0.0)
        return hinge.sum() / semi_hard.sum().clamp(min=1)


def _squared_distance(cosine: Tensor) -> Tensor:
    """Return ||mu_i - mu_j||^2; rounding may put the cosine of equal embeddings above 1."""
    return (2 * (1 - cosine)).clamp(min=0)

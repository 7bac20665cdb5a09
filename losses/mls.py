"""MLS (PFE): mutual likelihood of a genuine pair with a variance for every dimension."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from losses.base import GenuinePairLoss, PairBatch, log_variance_sum

__all__ = ["MLSLoss"]


class MLSLoss(GenuinePairLoss):
    """Mean over genuine pairs of (mu_i - mu_j)^2/(s_i + s_j) + log(s_i + s_j), s = exp(raw).

    Shi and Jain, "Probabilistic Face Embeddings" (PFE, ICCV 2019, arXiv 1904.09658), Eq. 3 without
    its factor 1/2 and its constant. At the optimum s_i + s_j = (mu_i - mu_j)^2 in each dimension.
    Work and memory are P x D, never B x B x D.

    Args:
        reduce: "mean" over the D dimensions, or "sum" as in the paper; the gradient of the
            sum is D times larger, so learning rates do not carry over from one to the other.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"variance"})

    def __init__(self, *, reduce: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if reduce not in ("mean", "sum"):
            raise ValueError(f"losses.mls: reduce = {reduce!r}: must be 'mean' or 'sum'")
        self.reduce = reduce
        self.summary = f"MLS_loss {reduce}"

    def check(self, mu: Tensor, raw: Tensor) -> None:
        """Raise ValueError unless the head gives a log variance for every dimension."""
        if raw.shape[1] != mu.shape[1]:
            raise ValueError(
                f"losses.mls takes a log variance for each of the {mu.shape[1]} embedding "
                f"dimensions, the head gives {raw.shape[1]}: set dim={mu.shape[1]} in the head, "
                "or use the loss 'fast_mls'"
            )

    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return the negative log likelihood of each pair up to constants, (P,)."""
        gap = batch.mu[batch.first] - batch.mu[batch.second]
        log_sum = log_variance_sum(batch.raw[batch.first], batch.raw[batch.second])
        terms = gap.square() * torch.exp(-log_sum) + log_sum
        return terms.mean(dim=1) if self.reduce == "mean" else terms.sum(dim=1)

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the variance of each image in each dimension, (B, D)."""
        return {"sigma": batch.raw.exp()}

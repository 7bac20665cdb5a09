"""DUL in its regression form: how far an embedding is from the centre of its identity."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from losses.base import ImageLoss, PairBatch

__all__ = ["DULLoss"]


class DULLoss(ImageLoss):
    """Mean over dimensions of (w - mu)^2 / s + log s, s = exp(raw), w the identity's centre.

    Chang et al., "Data Uncertainty Learning in Face Recognition" (CVPR 2020, arXiv 2003.11339),
    its regression form times 2/D; there the embedding moves too, here it is frozen. At the optimum
    s = (w - mu)^2 in each dimension; a head with one output has their mean.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"variance"})
    needs_centres: ClassVar[bool] = True
    summary = "DUL_loss"

    def check(self, mu: Tensor, raw: Tensor) -> None:
        """Raise ValueError unless the head gives a log variance for all dimensions or for each."""
        if raw.shape[1] not in (1, mu.shape[1]):
            raise ValueError(
                f"losses.dul takes one log variance or {mu.shape[1]}, one for each embedding "
                f"dimension; the head gives {raw.shape[1]}: set dim in the head"
            )

    def per_image(self, batch: PairBatch) -> Tensor:
        """Return the negative log likelihood of each image up to constants, (B,)."""
        assert batch.centres is not None
        gap = batch.centres.own - batch.mu
        return (gap.square() * (-batch.raw).exp() + batch.raw).mean(dim=1)

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the variance of each image, (B, 1) or (B, D)."""
        return {"sigma": batch.raw.exp()}

"""SCF: a von Mises-Fisher distribution around each embedding, which its identity's centre fits."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from losses.base import ImageLoss, PairBatch

__all__ = ["SCFLoss"]


class SCFLoss(ImageLoss):
    """(log I_v(k) - v log k - k cos) / D, v = D/2 - 1, k = D / s, s = exp(raw).

    Li et al., "Spherical Confidence Learning for Face Recognition", CVPR 2021: the negative log
    density of the identity's centre, at this cosine from the embedding, with concentration k. The
    radius of their sphere (64) only adds a constant, which is left out. With k = D / s, s is about
    the variance of all dimensions together, as in `fast_mls`, and learning rates suit any D. At the
    optimum I_{D/2}(k) / I_{D/2-1}(k) = cos.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"variance"})
    needs_centres: ClassVar[bool] = True
    summary = "SCF_loss"

    def check(self, mu: Tensor, raw: Tensor) -> None:
        """Raise ValueError unless the head gives one log variance per image."""
        if raw.shape[1] != 1:
            raise ValueError(
                f"losses.scf takes one log variance per image, the head gives {raw.shape[1]}: set "
                "dim=1 in the head"
            )

    def per_image(self, batch: PairBatch) -> Tensor:
        """Return the negative log likelihood of each image up to constants, (B,)."""
        assert batch.centres is not None
        size = batch.mu.shape[1]
        cosine = (batch.mu * batch.centres.own).sum(dim=1)
        kappa = size * (-batch.raw[:, 0]).exp()
        return (log_bessel_less_power(size / 2 - 1, kappa) - kappa * cosine) / size

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the variance of each image, (B, 1)."""
        return {"sigma": batch.raw.exp()}


def log_bessel_less_power(order: float, at: Tensor) -> Tensor:
    """Return log I_order(at) - order log(at) for at >= 0, where I itself under- or overflows.

    The uniform asymptotic expansion (DLMF 10.41.3) with U_1 to U_3, written so that nothing cancels
    at 0. The relative error of I is below 1e-5 from order 7 (D = 16) on, and 1e-8 at 63 (D = 128).
    """
    t = torch.hypot(at, torch.full_like(at, order))
    p = (order / t).square()
    first = (3 - 5 * p) / (24 * t)
    second = (81 - 462 * p + 385 * p**2) / (1152 * t**2)
    third = (30375 - 369603 * p + 765765 * p**2 - 425425 * p**3) / (414720 * t**3)
    leading = t - order * torch.log(order + t) - torch.log(2 * torch.pi * t) / 2
    return leading + torch.log1p(first + second + third)

"""IDQ (LightQNet): quality as the probability that the lower-quality image of a pair will match."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import (
    GenuinePairLoss,
    PairBatch,
    lower_quality,
    quality_logit,
    require_positive,
)

__all__ = ["IDQLoss"]


class IDQLoss(GenuinePairLoss):
    """Binary cross-entropy between a target made from the cosine and min(q_i, q_j).

    Chen et al., "LightQNet: Lightweight Deep Face Quality Assessment for Risk-Controlled Face
    Recognition", IEEE Signal Processing Letters 2021. The minimum commutes with the sigmoid, so
    the cross-entropy is taken from the smaller logit: no logarithm is clamped and none overflows.

    Args:
        scale: steepness of the soft target, above 0.
        margin: cosine at which a pair counts as half matched (0.4 in the paper).
        target: "soft" is sigmoid(scale * (cos - margin)), "hard" is 1 where cos > margin.
    """

    accepts: ClassVar[frozenset[str]] = frozenset({"probability"})

    def __init__(
        self,
        *,
        scale: float = 16.0,
        margin: float = 0.45,
        target: Literal["soft", "hard"] = "soft",
    ) -> None:
        super().__init__()
        require_positive("idq", scale=scale)
        if not -1 <= margin <= 1:
            raise ValueError(f"losses.idq: margin = {margin!r}: must be a cosine, in [-1, 1]")
        if target not in ("soft", "hard"):
            raise ValueError(f"losses.idq: target = {target!r}: must be 'soft' or 'hard'")
        self.scale = scale
        self.margin = margin
        self.target = target
        self.summary = f"IDQ_loss {target} {scale:g} {margin:g}"

    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return the cross-entropy of each pair, (P,)."""
        logit = lower_quality(quality_logit(batch.raw), batch)
        target = self._target(batch.cosine)
        return F.binary_cross_entropy_with_logits(logit, target, reduction="none")

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return the quality of each image, (B, 1), and the target of each pair, (P,)."""
        quality = torch.sigmoid(quality_logit(batch.raw))
        return {"pconf": quality[:, None], "t_soft": self._target(batch.cosine)}

    def _target(self, cosine: Tensor) -> Tensor:
        if self.target == "hard":
            return (cosine > self.margin).to(cosine.dtype)
        return torch.sigmoid(self.scale * (cosine - self.margin))

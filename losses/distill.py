"""Distillation (LightQNet): IDQ's own loss, and the distance from a teacher's uncertainties."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.base import PairBatch, mean_of_both, require_positive
from losses.idq import IDQLoss

__all__ = ["DistillLoss"]


class DistillLoss(IDQLoss):
    """Mean over genuine pairs of IDQ's cross-entropy plus weight * T^2 * KL(teacher || student).

    Chen et al., "LightQNet", IEEE Signal Processing Letters 2021; its third term, the teacher's own
    loss, is that of the branch that trains the teacher. Both networks' outputs are read as
    probabilities of being unreliable, softened by T. Of the divergence each pair has the mean of
    its two images, so that processes with different numbers of pairs share one mean. Images
    without a teacher's value (NaN) add none of it.

    Args:
        weight: of the divergence, above 0 (lambda; 10 in the paper).
        temperature: T, which divides both logits (1 in the paper).
        scale: of IDQ's soft target.
        margin: of IDQ's target.
        target: see `losses.idq`.
    """

    needs_teacher: ClassVar[bool] = True

    def __init__(
        self,
        *,
        weight: float = 10.0,
        temperature: float = 1.0,
        scale: float = 16.0,
        margin: float = 0.45,
        target: Literal["soft", "hard"] = "soft",
    ) -> None:
        super().__init__(scale=scale, margin=margin, target=target)
        require_positive("distill", weight=weight, temperature=temperature)
        self.weight = weight
        self.temperature = temperature
        self.summary += f" distill {weight:g} T {temperature:g}"

    def check(self, mu: Tensor, raw: Tensor) -> None:
        """Raise ValueError unless the head gives one logit per image."""
        if raw.shape[1] != 1:
            raise ValueError(
                f"losses.distill takes one logit per image, the head gives {raw.shape[1]}"
            )

    def per_pair(self, batch: PairBatch) -> Tensor:
        """Return both terms of each pair, (P,)."""
        divergence = self._divergence(batch)
        return super().per_pair(batch) + self.weight * mean_of_both(divergence, batch)

    def stats(self, batch: PairBatch) -> dict[str, Tensor]:
        """Return what IDQ logs, and the divergence of each image, (B, 1), 0 without a teacher."""
        return {**super().stats(batch), "kl": self._divergence(batch)[:, None]}

    def _divergence(self, batch: PairBatch) -> Tensor:
        """Return T^2 KL(teacher || student) of each image, (B,)."""
        assert batch.teacher is not None
        known = torch.isfinite(batch.teacher)
        teacher = torch.where(known, batch.teacher, 0.0) / self.temperature
        student = batch.raw[:, 0] / self.temperature
        share = teacher.sigmoid()
        # Cross-entropy less entropy, each from logits: no logarithm of a rounded probability.
        cross = F.binary_cross_entropy_with_logits(student, share, reduction="none")
        entropy = F.binary_cross_entropy_with_logits(teacher, share, reduction="none")
        return torch.where(known, (cross - entropy) * self.temperature**2, 0.0)

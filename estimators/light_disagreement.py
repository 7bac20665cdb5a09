"""How far the embedding moves when the picture gets darker, brighter or noisier.

A face that is well seen keeps its embedding; one that hangs by a thread does not. No training.
"""

from __future__ import annotations

import numpy as np
import torch

from estimators.base import Batch, Estimate
from models.backbones.base import cosine_distance
from models.frozen import FrozenBackbone

__all__ = ["LightDisagreement"]

_FLOOR = 1e-4  # of a distance: equal embeddings have no logarithm


class LightDisagreement:
    """Uncertainty = geometric mean of 1 - cos(embedding, embedding of a changed copy).

    The copies: levels to the power 1/gamma and gamma (of 0..1), and one fixed pattern of noise, the
    same for every image. Costs three more forward passes. `mu` is the embedding of the image as it
    is.

    Args:
        gamma: above 1.
        noise: standard deviation in levels of 0..255, above 0.
        seed: of the noise.
    """

    name = "light_disagreement"

    def __init__(
        self, *, frozen: FrozenBackbone, gamma: float = 2.0, noise: float = 15.0, seed: int = 0
    ) -> None:
        if not gamma > 1:
            raise ValueError(f"light_disagreement: gamma = {gamma!r}: must be above 1")
        if not noise > 0:
            raise ValueError(f"light_disagreement: noise = {noise!r}: must be above 0")
        self.frozen, self.gamma = frozen, gamma
        generator = torch.Generator().manual_seed(seed)
        self.pattern = noise * torch.randn(1, 3, 112, 112, generator=generator)

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column above 0."""
        images = torch.from_numpy(np.ascontiguousarray(batch.images))
        plain = batch.output(self.frozen).embedding
        levels = images.permute(0, 3, 1, 2).float()
        copies = (
            255 * (levels / 255) ** self.gamma,
            255 * (levels / 255) ** (1 / self.gamma),
            (levels + self.pattern).clamp(0, 255),
        )
        moved = [cosine_distance(plain, self.frozen(copy).embedding) for copy in copies]
        joined = torch.stack(moved).add(_FLOOR).log().mean(dim=0).exp()
        return Estimate(plain.cpu().numpy(), joined[:, None].cpu().numpy())

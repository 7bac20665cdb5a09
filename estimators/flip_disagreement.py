"""How far the embedding moves when the face is mirrored: an uncertainty without training.

A frontal face in even light is close to its mirror image; pose, occlusion and side light are not.
"""

from __future__ import annotations

from estimators.base import Batch, Estimate
from models.backbones.base import cosine_distance
from models.frozen import FrozenBackbone

__all__ = ["FlipDisagreement"]


class FlipDisagreement:
    """Uncertainty = 1 - cos(embedding, embedding of the mirror image), in 0..2.

    Costs a second forward pass. `mu` is the embedding of the image as it is.
    """

    name = "flip_disagreement"

    def __init__(self, *, frozen: FrozenBackbone) -> None:
        self.frozen = frozen

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images."""
        plain = batch.output(self.frozen).embedding
        mirrored = batch.mirrored().output(self.frozen).embedding
        distance = cosine_distance(plain, mirrored)
        return Estimate(plain.cpu().numpy(), distance[:, None].cpu().numpy())

"""The length of the embedding as a quality, without any training.

Recognition networks give short embeddings to faces they cannot read (MagFace, arXiv 2103.06627,
makes a training goal of it; ordinary ArcFace networks show it too).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from estimators.base import Estimate
from models.frozen import FrozenBackbone

__all__ = ["EmbeddingNorm"]


class EmbeddingNorm:
    """Uncertainty = -||embedding||, the embedding as the backbone gives it.

    Args:
        frozen: the backbone, with its device and precision.
    """

    name = "embedding_norm"

    def __init__(self, *, frozen: FrozenBackbone) -> None:
        self.frozen = frozen

    def __call__(self, images: NDArray[np.uint8]) -> Estimate:
        """Estimate for (B, 112, 112, 3) RGB images; sigma_sq has one column, below 0."""
        batch = torch.from_numpy(np.ascontiguousarray(images))
        embedding = self.frozen(batch).embedding.cpu().numpy()
        return Estimate(embedding, -np.linalg.norm(embedding, axis=1, keepdims=True))

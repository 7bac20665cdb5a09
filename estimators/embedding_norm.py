"""The length of the embedding as a quality, without any training.

Recognition networks give short embeddings to faces they cannot read (MagFace, arXiv 2103.06627,
makes a training goal of it; ordinary ArcFace networks show it too).
"""

from __future__ import annotations

import numpy as np

from estimators.base import Batch, Estimate
from models.frozen import FrozenBackbone

__all__ = ["EmbeddingNorm"]


class EmbeddingNorm:
    """Uncertainty = -||embedding||, the embedding as the backbone gives it."""

    name = "embedding_norm"

    def __init__(self, *, frozen: FrozenBackbone) -> None:
        self.frozen = frozen

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for the batch's images; sigma_sq has one column, below 0."""
        embedding = batch.output(self.frozen).embedding.cpu().numpy()
        with np.errstate(over="ignore"):  # such embeddings are refused
            return Estimate(embedding, -np.linalg.norm(embedding, axis=1, keepdims=True))

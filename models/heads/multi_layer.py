"""ProbFace's multi-layer fusion: fc2 that also reads the averages of the backbone's stages.

Chen et al., "Fast and Reliable Probabilistic Face Embeddings in the Wild", arXiv 2102.04075: early
layers see blur and noise that the last one has learned to look past.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor

from models.backbones.base import BackboneOutput
from models.heads.base import Output
from models.heads.fc2 import FC2Head

__all__ = ["MultiLayerHead"]


class MultiLayerHead(FC2Head):
    """`FC2Head` on the flattened feature map followed by each stage's channel averages.

    Args:
        output, features_shape, dim, log_norm: see `models.heads.base`.
        stages_size: S, all stages' channels; the program fills it in.
        hidden, dropout: as of `fc2`; dropout takes averages too.
    """

    name: ClassVar[str] = "multi_layer"
    reads: ClassVar[Literal["features", "stages", "images"]] = "stages"

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int],
        stages_size: int,
        hidden: int | None = None,
        dim: int = 1,
        log_norm: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            output=output,
            features_shape=(math.prod(features_shape) + stages_size, 1, 1),
            hidden=hidden,
            dim=dim,
            log_norm=log_norm,
            dropout=dropout,
        )

    def read(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, F + S)."""
        assert backbone_output.stages is not None
        return torch.cat([backbone_output.features, backbone_output.stages], dim=1)

"""The usual uncertainty head: two fully connected layers on the flattened feature map.

A probability serves PCNet (arXiv 2009.00603) and IDQ (LightQNet, IEEE SPL 2021); variances serve
PFE (arXiv 1904.09658) and ProbFace (arXiv 2102.04075).
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor, nn

from models.backbones.base import BackboneOutput
from models.heads.base import Dropout, Head, Output, check_head, log_length, log_norm_layer

__all__ = ["FC2Head"]

_HIDDEN = {"probability": 256, "variance": 512}


class FC2Head(Head):
    """Linear(F, hidden), BatchNorm, ReLU, Linear(hidden, d); then gamma * x + beta for variances.

    Parameter names are the original's: `layers.1`, `layers.2`, `layers.4`, `gamma` (1 at the
    start), `beta` (log(0.8 / d)). `log_norm` and `dropout` go beyond it.

    Args:
        output, features_shape, dim, log_norm: see `models.heads.base`.
        hidden: width of the inner layer; by default 256 for a probability, 512 for variances.
        dropout: share of the features that is dropped in training.
    """

    name: ClassVar[str] = "fc2"

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int],
        hidden: int | None = None,
        dim: int = 1,
        log_norm: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_head(self.name, output, dim, hidden)
        if not 0 <= dropout < 1:
            raise ValueError(f"head {self.name!r}: dropout = {dropout!r}: must be in [0, 1)")
        self.output = output
        hidden = _HIDDEN[output] if hidden is None else hidden
        self.dropout = Dropout(dropout)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(features_shape), hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )
        self.log_norm = log_norm_layer(self.name, log_norm)
        self.learn_scale(0.8 / dim)

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        raw = self.layers(self.dropout(self.read(backbone_output)))
        if self.log_norm is not None:
            raw = raw - self.log_norm(log_length(backbone_output.embedding))
        return self.scaled(raw)

    def read(self, backbone_output: BackboneOutput) -> Tensor:
        """Return what the layers work on, (B, F)."""
        return backbone_output.features

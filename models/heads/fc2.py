"""The usual uncertainty head: two fully connected layers on the flattened feature map.

A probability serves PCNet (arXiv 2009.00603) and IDQ (LightQNet, IEEE SPL 2021); variances serve
PFE (arXiv 1904.09658) and ProbFace (arXiv 2102.04075).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.heads.base import Head, Output, check_head
from models.output import BackboneOutput

__all__ = ["FC2Head"]

_HIDDEN = {"probability": 256, "variance": 512}
_SHORTEST = 1e-6  # an embedding of length 0 has no logarithm


class FC2Head(Head):
    """Linear(F, hidden), BatchNorm, ReLU, Linear(hidden, d); a variance head scales the result.

    Parameter names are the original's: `layers.1`, `layers.2`, `layers.4`, `gamma`, `beta`. Two
    options go beyond it. The length of the embedding says much about a face by itself (MagFace,
    arXiv 2103.06627) that a small head does not learn from features: with `log_norm`, the
    standardised log length times a learned weight is subtracted. `dropout` acts on the features.

    Args:
        output: "probability": the result is the logit of the uncertainty; "variance": it is
            gamma * x + beta, the log variance, with gamma 1 and beta log(0.8 / d) at the start.
        features_shape: (C, H, W) of the backbone's feature map.
        hidden: width of the inner layer; by default 256 for a probability, 512 for variances.
        dim: d, the number of outputs; 1 for a probability.
        log_norm: weight of the log length at the start; 0 leaves the term out.
        dropout: share of the features that is dropped in training.

    Raises:
        ValueError: another output, or a size that does not fit.
    """

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
        check_head("fc2", output, dim, hidden)
        hidden = _HIDDEN[output] if hidden is None else hidden
        if log_norm < 0:
            raise ValueError(f"head 'fc2': log_norm = {log_norm!r}: must be at least 0")
        if not 0 <= dropout < 1:
            raise ValueError(f"head 'fc2': dropout = {dropout!r}: must be in [0, 1)")
        self.output = output
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(features_shape), hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, dim),
        )
        self.log_norm = nn.BatchNorm1d(1) if log_norm else None
        if self.log_norm is not None:
            nn.init.constant_(self.log_norm.weight, log_norm)
        if output == "variance":
            self.gamma = nn.Parameter(torch.ones(1))
            self.beta = nn.Parameter(torch.full((1,), math.log(0.8 / dim)))

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        raw: Tensor = self.layers(self.dropout(backbone_output.features))
        if self.log_norm is not None:
            length = backbone_output.embedding.norm(dim=1, keepdim=True)
            raw = raw - self.log_norm(length.clamp_min(_SHORTEST).log())
        return self.gamma * raw + self.beta if self.output == "variance" else raw

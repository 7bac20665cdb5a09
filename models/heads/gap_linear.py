"""The lightest head: one linear layer on the averages of the feature map's channels.

A few hundred weights, which a few thousand faces can teach.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.heads._base import Head, Output, check_head
from models.output import BackboneOutput

__all__ = ["GapLinearHead"]

_SHORTEST = 1e-6  # an embedding of length 0 has no logarithm


class GapLinearHead(Head):
    """Global average pooling, BatchNorm / sqrt(C), Linear(C, d), minus the log of the norm.

    Standardised channels are divided by sqrt(C), so that one learning rate suits both terms
    (1 rather than 0.01) and weight decay holds back the channels much more than the norm.

    Args:
        output: "probability": the result is the logit of the uncertainty; "variance": it is the log
            variance, with log(0.8 / d) added.
        features_shape: (C, H, W) of the backbone's feature map.
        dim: d, the number of outputs; 1 for a probability.
        log_norm: weight at the start of the embedding's standardised log length, which is learned;
            0 leaves the term out.

    Raises:
        ValueError: another output, or a size that does not fit.
    """

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int],
        dim: int = 1,
        log_norm: float = 1.0,
    ) -> None:
        super().__init__()
        check_head("gap_linear", output, dim)
        if log_norm < 0:
            raise ValueError(f"head 'gap_linear': log_norm = {log_norm!r}: must be at least 0")
        self.output = output
        self.features_shape = features_shape
        channels = features_shape[0]
        self.scale = 1 / math.sqrt(channels)
        self.standardise = nn.BatchNorm1d(channels, affine=False)
        self.layer = nn.Linear(channels, dim)
        nn.init.constant_(self.layer.bias, math.log(0.8 / dim) if output == "variance" else 0.0)
        self.log_norm = nn.BatchNorm1d(1) if log_norm else None
        if self.log_norm is not None:
            nn.init.constant_(self.log_norm.weight, log_norm)

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        channels = backbone_output.features.unflatten(1, self.features_shape).mean(dim=(2, 3))
        raw: Tensor = self.layer(self.standardise(channels) * self.scale)
        if self.log_norm is not None:
            length = backbone_output.embedding.norm(dim=1, keepdim=True)
            raw = raw - self.log_norm(length.clamp_min(_SHORTEST).log())
        return raw

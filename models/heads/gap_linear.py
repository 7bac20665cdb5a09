"""The lightest head: one linear layer on the averages of the feature map's channels.

A few hundred weights, or twice as many with asymmetry, which a few thousand faces can teach.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.heads.base import Head, Output, check_head
from models.output import BackboneOutput

__all__ = ["GapLinearHead"]

_SHORTEST = 1e-6  # an embedding of length 0 has no logarithm


class GapLinearHead(Head):
    """Global average pooling, BatchNorm / sqrt(C), Linear(C, d), minus the log of the norm.

    With asymmetry, C becomes 2C: each channel also gives the mean of |map - mirrored map|, which
    pose, side light and cover can raise.
    Standardised channels are divided by sqrt(C), so that one learning rate suits both terms
    (1 rather than 0.01) and weight decay holds back the channels much more than the norm.

    Args:
        output: "probability": the result is the logit of the uncertainty; "variance": it is the log
            variance, with log(0.8 / d) added.
        features_shape: (C, H, W) of the backbone's feature map.
        dim: d, the number of outputs; 1 for a probability.
        log_norm: weight at the start of the embedding's standardised log length, which is learned;
            0 leaves the term out.
        asymmetry: also read how far the left and right half of each channel's map differ.

    Raises:
        ValueError: another output, a size that does not fit, or asymmetry of maps one column wide.
    """

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int],
        dim: int = 1,
        log_norm: float = 1.0,
        asymmetry: bool = False,
    ) -> None:
        super().__init__()
        check_head("gap_linear", output, dim)
        if log_norm < 0:
            raise ValueError(f"head 'gap_linear': log_norm = {log_norm!r}: must be at least 0")
        if asymmetry and features_shape[2] < 2:
            raise ValueError(
                f"head 'gap_linear': asymmetry = {asymmetry!r}: a map of {features_shape[2]} "
                "column has no two sides; take asymmetry=False"
            )
        self.output = output
        self.features_shape = features_shape
        self.asymmetry = asymmetry
        channels = features_shape[0] * (2 if asymmetry else 1)
        self.scale = 1 / math.sqrt(channels)
        self.standardise = nn.BatchNorm1d(channels, affine=False)
        self.layer = nn.Linear(channels, dim)
        nn.init.constant_(self.layer.bias, math.log(0.8 / dim) if output == "variance" else 0.0)
        self.log_norm = nn.BatchNorm1d(1) if log_norm else None
        if self.log_norm is not None:
            nn.init.constant_(self.log_norm.weight, log_norm)

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        maps = backbone_output.features.unflatten(1, self.features_shape)
        channels = maps.mean(dim=(2, 3))
        if self.asymmetry:
            sides = (maps - maps.flip(3)).abs().mean(dim=(2, 3))
            channels = torch.cat([channels, sides], dim=1)
        raw: Tensor = self.layer(self.standardise(channels) * self.scale)
        if self.log_norm is not None:
            length = backbone_output.embedding.norm(dim=1, keepdim=True)
            raw = raw - self.log_norm(length.clamp_min(_SHORTEST).log())
        return raw

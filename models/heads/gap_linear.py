"""The lightest head: one linear layer on averages of the feature map's channels.

A few hundred or thousand weights, which a few thousand faces can teach.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.backbones.base import BackboneOutput
from models.heads.base import (
    Head,
    Output,
    cell_averages,
    check_head,
    log_length,
    log_norm_layer,
    side_differences,
)

__all__ = ["GapLinearHead"]


class GapLinearHead(Head):
    """Average pooling, BatchNorm / sqrt(C), Linear(C, d), minus the log of the norm.

    With a grid of g x g cells, C becomes g^2 C: each channel gives its average in each cell, so
    that it matters where in the face something is seen. With asymmetry it gives a further C: the
    mean of |map - mirrored map|, which pose, side light and cover can raise.
    Standardised channels are divided by sqrt(C), so that one learning rate suits both terms
    (1 rather than 0.01) and weight decay holds back the channels much more than the norm.
    A log variance starts near log(0.8 / d).

    Args:
        output, features_shape, dim, log_norm: see `models.heads.base`.
        asymmetry: also read how far the left and right half of each channel's map differ.
        grid: cells along each side of the map; they overlap where the side is not a multiple.
    """

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int],
        dim: int = 1,
        log_norm: float = 1.0,
        asymmetry: bool = False,
        grid: int = 1,
    ) -> None:
        super().__init__()
        check_head("gap_linear", output, dim)
        if asymmetry and features_shape[2] < 2:
            raise ValueError(
                f"head 'gap_linear': asymmetry = {asymmetry!r}: a map of {features_shape[2]} "
                "column has no two sides; take asymmetry=False"
            )
        if not 1 <= grid <= min(features_shape[1:]):
            height, width = features_shape[1:]
            raise ValueError(
                f"head 'gap_linear': grid = {grid!r}: must be at least 1 and at most the side of "
                f"the feature map, {height} x {width}"
            )
        self.output = output
        self.features_shape = features_shape
        self.asymmetry, self.grid = asymmetry, grid
        channels = features_shape[0] * (grid**2 + asymmetry)
        self.scale = 1 / math.sqrt(channels)
        self.standardise = nn.BatchNorm1d(channels, affine=False)
        self.layer = nn.Linear(channels, dim)
        nn.init.constant_(self.layer.bias, math.log(0.8 / dim) if output == "variance" else 0.0)
        self.log_norm = log_norm_layer("gap_linear", log_norm)

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        maps = backbone_output.features.unflatten(1, self.features_shape)
        channels = cell_averages(maps, self.grid)
        if self.asymmetry:
            channels = torch.cat([channels, side_differences(maps)], dim=1)
        raw: Tensor = self.layer(self.standardise(channels) * self.scale)
        if self.log_norm is not None:
            raw = raw - self.log_norm(log_length(backbone_output.embedding))
        return raw

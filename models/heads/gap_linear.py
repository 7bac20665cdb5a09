"""The lightest head: one linear layer on the averages of the feature map's channels.

A few hundred weights, or twice as many with asymmetry, which a few thousand faces can teach.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.backbones.base import BackboneOutput
from models.heads.base import (
    Head,
    Output,
    averages_and_sides,
    check_head,
    log_length,
    log_norm_layer,
)

__all__ = ["GapLinearHead"]


class GapLinearHead(Head):
    """Global average pooling, BatchNorm / sqrt(C), Linear(C, d), minus the log of the norm.

    With asymmetry, C becomes 2C: each channel also gives the mean of |map - mirrored map|, which
    pose, side light and cover can raise.
    Standardised channels are divided by sqrt(C), so that one learning rate suits both terms
    (1 rather than 0.01) and weight decay holds back the channels much more than the norm.
    A log variance starts near log(0.8 / d).

    Args:
        output, features_shape, dim, log_norm: see `models.heads.base`.
        asymmetry: also read how far the left and right half of each channel's map differ.
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
        self.log_norm = log_norm_layer("gap_linear", log_norm)

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        maps = backbone_output.features.unflatten(1, self.features_shape)
        channels = averages_and_sides(maps) if self.asymmetry else maps.mean(dim=(2, 3))
        raw: Tensor = self.layer(self.standardise(channels) * self.scale)
        if self.log_norm is not None:
            raw = raw - self.log_norm(log_length(backbone_output.embedding))
        return raw

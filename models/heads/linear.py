"""The smallest head: one linear layer on the flattened feature map, in the original's two forms."""

from __future__ import annotations

import math

from torch import Tensor, nn

from models.backbones.base import BackboneOutput
from models.heads.base import Head, Output, check_head

__all__ = ["LinearHead"]


class LinearHead(Head):
    """Linear(F, 1) for a probability; BatchNorm, Linear(F, d), sigmoid and a scale for variances.

    Parameter names are the original's: `layers.1`, `layers.2`, `gamma` (1 at the start) and `beta`
    (log(0.1 / d)), so that the variance starts between 0.1 / d and 0.272 / d. The original adds
    1e-6 to the variance after the exponential; this head leaves that to whoever divides by it.
    For arguments see `models.heads.base`.
    """

    def __init__(
        self, *, output: Output, features_shape: tuple[int, int, int], dim: int = 1
    ) -> None:
        super().__init__()
        check_head("linear", output, dim)
        self.output = output
        size = math.prod(features_shape)
        norm = [nn.BatchNorm1d(size)] if output == "variance" else []
        self.layers = nn.Sequential(nn.Flatten(), *norm, nn.Linear(size, dim))
        self.learn_scale(0.1 / dim)

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        raw: Tensor = self.layers(backbone_output.features)
        return self.scaled(raw.sigmoid()) if self.output == "variance" else raw

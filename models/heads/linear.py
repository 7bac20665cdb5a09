"""The smallest head: one linear layer on the flattened feature map, in the original's two forms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.heads.base import Head, Output, check_head
from models.output import BackboneOutput

__all__ = ["LinearHead"]


class LinearHead(Head):
    """Linear(F, 1) for a probability; BatchNorm, Linear(F, d), sigmoid and a scale for variances.

    Parameter names are the original's: `layers.1`, `layers.2`, `gamma`, `beta`. The original adds
    1e-6 to the variance after the exponential; this head leaves that to whoever divides by it.

    Args:
        output: "probability": the result is the logit of the uncertainty; "variance": it is
            gamma * sigmoid(x) + beta, the log variance, with gamma 1 and beta log(0.1 / d) at the
            start, so that the variance starts between 0.1 / d and 0.272 / d.
        features_shape: (C, H, W) of the backbone's feature map.
        dim: d, the number of outputs; 1 for a probability.

    Raises:
        ValueError: another output, or a size that does not fit.
    """

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int],
        dim: int = 1,
    ) -> None:
        super().__init__()
        check_head("linear", output, dim)
        self.output = output
        size = math.prod(features_shape)
        if output == "probability":
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, dim))
        else:
            self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(size), nn.Linear(size, dim))
            self.gamma = nn.Parameter(torch.ones(1))
            self.beta = nn.Parameter(torch.full((1,), math.log(0.1 / dim)))

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, d): the logit of the uncertainty, or log variances."""
        raw: Tensor = self.layers(backbone_output.features)
        return self.gamma * raw.sigmoid() + self.beta if self.output == "variance" else raw

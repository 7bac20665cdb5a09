"""What a backbone hands to heads, losses and estimators."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class BackboneOutput(NamedTuple):
    """One forward pass of a backbone over B images.

    Attributes:
        embedding: (B, D), what comparisons are made with; not L2-normalised.
        features: (B, F), the last feature map, flattened channel-major, before any dropout; what
            heads read.
    """

    embedding: Tensor
    features: Tensor

"""What networks give: a backbone's output, and how a head's raw numbers become uncertainties.

Everywhere, larger = less reliable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-6


class BackboneOutput(NamedTuple):
    """One forward pass of a backbone over B images.

    Attributes:
        embedding: (B, D), what comparisons are made with; not L2-normalised.
        features: (B, F), the last feature map, flattened channel-major, before any dropout; what
            heads read.
        images: what the backbone was given, uint8 (B, 112, 112, 3) or floating point
            (B, 3, 112, 112) RGB in 0..255; for heads that read images. None where nobody does.
    """

    embedding: Tensor
    features: Tensor
    images: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """Those that are there, in order."""
        return [part for part in self if part is not None]

    def map(self, change: Callable[[Tensor], Tensor]) -> BackboneOutput:
        """Return the output with every tensor changed, in order."""
        return BackboneOutput(*(None if part is None else change(part) for part in self))  # type: ignore[arg-type]


def to_sigma_sq(raw: Tensor, output: str) -> Tensor:
    """Return the uncertainty (B, d) that a head's raw output (B, d) stands for.

    By the head's `output`: "probability" of being unreliable, in (0, 1), of a logit; or "variance",
    above 0, of a log variance.

    Raises:
        ValueError: any other output.
    """
    if output == "probability":
        return raw.sigmoid()
    if output == "variance":
        return raw.exp()
    raise ValueError(f"output = {output!r}: must be 'probability' or 'variance'")


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - cosine of the rows, (B,), as half a squared distance: exact near 0."""
    return (F.normalize(first) - F.normalize(second)).square().sum(dim=1) / 2


def to_scalar(sigma_sq: Tensor) -> Tensor:
    """Return one uncertainty per image, (N,), from (N, c).

    One column stays as it is; more are joined by their harmonic mean 1 / mean(1 / (s + 1e-6)), as
    PFE (arXiv 1904.09658) does.

    Raises:
        ValueError: not two-dimensional, or no column.
    """
    if sigma_sq.ndim != 2 or sigma_sq.shape[1] < 1:
        raise ValueError(f"sigma_sq of shape {tuple(sigma_sq.shape)}: expected (N, c), c >= 1")
    if sigma_sq.shape[1] == 1:
        return sigma_sq[:, 0]
    return 1 / (1 / (sigma_sq + _EPS)).mean(dim=1)

"""What a backbone hands to heads, losses and estimators."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor


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

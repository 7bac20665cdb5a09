"""From images as they are stored to what a backbone was trained on.

Colour order and scaling differ between public backbones, so they are recorded with each backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Color = Literal["RGB", "BGR"]


@dataclass(frozen=True)
class Preprocessing:
    """Colour order and scaling of a backbone's input: `(value - mean) / scale`."""

    color: Color = "RGB"  # that the backbone expects; images always come as RGB
    mean: float = 127.5  # of values in 0..255
    scale: float = 127.5
    size: int = 112  # height and width in pixels

    def __post_init__(self) -> None:
        if self.color not in get_args(Color):
            raise ValueError(f"color = {self.color!r}: must be one of {get_args(Color)}")
        if not self.scale > 0:
            raise ValueError(f"scale = {self.scale!r}: must be above 0")
        if self.size < 1:
            raise ValueError(f"size = {self.size!r}: must be at least 1")

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch of RGB images with values 0..255 on the device where it is.

        From uint8 (B, size, size, 3) as stored, or floating point (B, 3, size, size) as
        augmentation leaves them, to (B, 3, size, size) float32 in the backbone's channel order.

        Raises:
            ValueError: any other shape or type.
        """
        images = self._channels_first(images)
        if self.color == "BGR":
            images = images.flip(1)
        return (images - self.mean).float() / self.scale

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can carry and `from_dict` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Build from what `to_dict` gave.

        Raises:
            ValueError: a field that does not exist, or a value out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(
                f"preprocessing has no field {', '.join(map(repr, unknown))} "
                f"(known: {', '.join(known)})"
            )
        return cls(**values)

    def _channels_first(self, images: Tensor) -> Tensor:
        square = (self.size, self.size)
        if images.dtype == torch.uint8 and images.ndim == 4 and images.shape[1:] == (*square, 3):
            return images.permute(0, 3, 1, 2)
        if images.is_floating_point() and images.ndim == 4 and images.shape[1:] == (3, *square):
            return images
        raise ValueError(
            f"images of shape {tuple(images.shape)} and type {images.dtype}: expected uint8 "
            f"(B, {self.size}, {self.size}, 3) or floating point (B, 3, {self.size}, {self.size})"
        )

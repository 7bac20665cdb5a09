"""A small network on the image itself: 0.44 M parameters, for a phone or a camera, no backbone.

Distilled from another head (losses/distill.py), or trained with any loss of its output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbones.base import BackboneOutput, Preprocessing
from models.backbones.mobilefacenet import mobile_layers
from models.heads.base import Head, Output, averages_and_sides, check_head

__all__ = ["StudentHead"]

_PREPROCESSING = Preprocessing(scale=128.0)
_FIRST_WEIGHT = 0.1  # of the last layer's usual random weights: the start is near "half and half"
_SMALLEST = 32  # pixels
_CHANNELS = 128  # of the last map
_LAYERS = 9


class StudentHead(Head):
    """A short MobileFaceNet on a smaller image; then averages, side differences and one layer.

    Its layers have the sizes of some of MobileFaceNet's (models/backbones/mobilefacenet.py), from
    whose weights it can start: give that file as `head_weights`. Like `gap_linear` with asymmetry,
    it ends in each channel's average and its mean |map - mirrored map|.

    Args:
        output, features_shape: see `models.heads.base`; a log variance starts near log(0.8).
        size: pixels of the side to which the image is reduced first, 32 to 112; time grows with its
            square.
        fixed: how many of the nine layers, from the first on, stay as they start: what a backbone
            has learned there is worth more than what few faces can teach, and is not learned again.
        hint: weight of a second lesson while it learns: a linear layer, which is left out
            afterwards, has to tell the averages and side differences of the backbone's feature map
            from the student's; the mean squared error, standardised, is added to the loss. Several
            processes weigh it by their numbers of pairs.
    """

    reads: ClassVar[Literal["features", "stages", "images"]] = "images"

    def __init__(
        self,
        *,
        output: Output,
        features_shape: tuple[int, int, int] = (1, 1, 1),
        size: int = 80,
        fixed: int = 0,
        hint: float = 0.0,
    ) -> None:
        super().__init__()
        check_head("student", output, 1)
        if not _SMALLEST <= size <= _PREPROCESSING.size:
            raise ValueError(
                f"head 'student': size = {size!r}: must be {_SMALLEST} to {_PREPROCESSING.size}"
            )
        if not 0 <= fixed < _LAYERS:
            raise ValueError(f"head 'student': fixed = {fixed!r}: must be 0 to {_LAYERS - 1}")
        if not (math.isfinite(hint) and hint >= 0):
            raise ValueError(f"head 'student': hint = {hint!r}: must be at least 0")
        self.output = output
        self.size = size
        self.fixed = fixed
        self.hint = hint
        self.features_shape = features_shape
        self.shrink: Tensor
        self.register_buffer("shrink", _shrinking(size), persistent=False)
        self.body = nn.Sequential(mobile_layers((1, 2, 1), act=_PReLU))
        self.body[:fixed].requires_grad_(False)
        self.standardise = nn.BatchNorm1d(2 * _CHANNELS, affine=False)
        self.layer = nn.Linear(2 * _CHANNELS, 1)
        with torch.no_grad():
            self.layer.weight.mul_(_FIRST_WEIGHT)
        nn.init.constant_(self.layer.bias, math.log(0.8) if output == "variance" else 0.0)
        if hint:
            self.hint_layer = nn.Linear(2 * _CHANNELS, 2 * features_shape[0])
            self.hint_target = nn.BatchNorm1d(2 * features_shape[0], affine=False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; fixed layers stay in eval mode."""
        super().train(mode)
        self.body[: self.fixed].eval()
        return self

    def forward(self, backbone_output: BackboneOutput) -> Tensor:
        """Return (B, 1): the logit of the uncertainty, or the log variance.

        Raises:
            ValueError: an output without images.
        """
        if backbone_output.images is None:
            raise ValueError("head 'student' reads images, and these features come without any")
        small = self.shrink @ _PREPROCESSING(backbone_output.images) @ self.shrink.T
        maps = self.body(small.contiguous(memory_format=torch.channels_last))
        channels = self.standardise(averages_and_sides(maps))
        if self.hint and self.training:
            features = backbone_output.features.unflatten(1, self.features_shape)
            target = self.hint_target(averages_and_sides(features))
            self.extra = self.hint * F.mse_loss(self.hint_layer(channels), target)
        raw: Tensor = self.layer(channels)
        return raw

    def starting_from(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take a student's tensors as they are, and from a MobileFaceNet those it shares."""
        own = self.state_dict()
        if "pre_fc1.weight" in tensors:
            return {name: tensors.get(name, value) for name, value in own.items()}
        hints = {name: value for name, value in own.items() if name.startswith("hint_")}
        unused = {name for name in tensors if name.startswith("hint_")} - own.keys()
        return hints | {name: value for name, value in tensors.items() if name not in unused}


def _shrinking(size: int) -> Tensor:
    """Return (size, 112): reduces columns by averaging under triangles."""
    whole = _PREPROCESSING.size
    pixels = torch.eye(whole)[None, None]
    small = F.interpolate(pixels, size=(size, whole), mode="bilinear", antialias=True)
    return small[0, 0]


class _PReLU(nn.Module):
    """PReLU as sums and products: ONNX Runtime has no fast kernel for the operator itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))

    def forward(self, maps: Tensor) -> Tensor:
        slope = self.weight[:, None, None]
        return maps * slope + torch.relu(maps) * (1 - slope)

"""A small network on the image itself: 0.44 M parameters, for a phone or a camera, no backbone.

Distilled from another head (losses/distill.py), or trained with any loss of its output.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.heads.base import Head, Output, check_head
from models.mobile_layers import Bottleneck, conv
from models.output import BackboneOutput
from models.preprocessing import Preprocessing

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
        output: "probability": the result is the logit of the uncertainty; "variance": it is the log
            variance, with log(0.8) added.
        size: pixels of the side to which the image is reduced first, 32 to 112; time grows with its
            square.
        features_shape: (C, H, W) of the backbone's feature map.
        fixed: how many of the nine layers, from the first on, stay as they start: what a backbone
            has learned there is worth more than what few faces can teach, and is not learned again.
        hint: weight of a second lesson while it learns: a linear layer, which is left out
            afterwards, has to tell the averages and side differences of the backbone's feature map
            from the student's; the mean squared error, standardised, is added to the loss. Several
            processes weigh it by their numbers of pairs.

    Raises:
        ValueError: another output, size, number of layers or weight.
    """

    reads: ClassVar[Literal["features", "images"]] = "images"

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
        self.body = _body()
        self.body[:fixed].requires_grad_(False)
        self.standardise = nn.BatchNorm1d(2 * _CHANNELS, affine=False)
        self.layer = nn.Linear(2 * _CHANNELS, 1)
        with torch.no_grad():
            self.layer.weight.mul_(_FIRST_WEIGHT)
        nn.init.constant_(self.layer.bias, math.log(0.8) if output == "variance" else 0.0)
        if hint:
            told = 2 * features_shape[0]
            self.hint_layer = nn.Linear(2 * _CHANNELS, told)
            self.hint_target = nn.BatchNorm1d(told, affine=False)

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
        channels = self._channels(backbone_output.images)
        if self.hint and self.training:
            maps = backbone_output.features.unflatten(1, self.features_shape)
            told = self.hint_target(_summary(maps))
            self.extra = self.hint * F.mse_loss(self.hint_layer(channels), told)
        raw: Tensor = self.layer(channels)
        return raw

    def _channels(self, images: Tensor) -> Tensor:
        small = self.shrink @ _PREPROCESSING(images) @ self.shrink.T
        maps = self.body(small.contiguous(memory_format=torch.channels_last))
        standardised: Tensor = self.standardise(_summary(maps))
        return standardised

    def starting_from(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Take a student's tensors as they are, and from a MobileFaceNet those it shares."""
        own = self.state_dict()
        if "pre_fc1.weight" in tensors:
            return {name: tensors.get(name, value) for name, value in own.items()}
        hints = {name: value for name, value in own.items() if name.startswith("hint_")}
        known = {
            name: value
            for name, value in tensors.items()
            if name in own or not name.startswith("hint_")
        }
        return {**hints, **known}


def _summary(maps: Tensor) -> Tensor:
    """Return (B, 2C): each channel's average and its mean |map - mirrored map|."""
    sides = (maps - maps.flip(3)).abs()
    return torch.cat([maps.mean(dim=(2, 3)), sides.mean(dim=(2, 3))], dim=1)


def _body() -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv_1"] = conv(3, 64, 3, stride=2, padding=1, act=_PReLU)
    layers["conv_2_dw"] = conv(64, 64, 3, padding=1, groups=64, act=_PReLU)
    layers["dconv_23"] = Bottleneck(64, 128, 64, stride=2, act=_PReLU)
    layers["res_3_block0"] = Bottleneck(64, 128, 64, act=_PReLU)
    layers["dconv_34"] = Bottleneck(64, 256, 128, stride=2, act=_PReLU)
    layers["res_4_block0"] = Bottleneck(128, 256, 128, act=_PReLU)
    layers["res_4_block1"] = Bottleneck(128, 256, 128, act=_PReLU)
    layers["dconv_45"] = Bottleneck(128, 512, 128, stride=2, act=_PReLU)
    layers["res_5_block0"] = Bottleneck(128, 256, 128, act=_PReLU)
    return nn.Sequential(layers)


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

"""IResNet 18 to 200, with the parameter names of arcface_torch, so that its `backbone.pth` loads.

Improved residual units (Duta et al., arXiv 2004.04989) in ArcFace's form (arXiv 1801.07698).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from models.backbones.base import Backbone

__all__ = ["IResNet"]

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 14, 3),
    100: (3, 13, 30, 3),
    200: (6, 26, 60, 6),
}
_DEFAULT_DEPTH = 50


class IResNet(Backbone):
    """IResNet for 112 x 112 faces; features are the output of `bn2`, widths[3] x 7 x 7.

    The dropout before `fc` is left out: it has no weights and is off in a frozen network.

    Args:
        depth: 18, 34, 50, 100 or 200; 50 when neither this nor `layers` is given.
        layers: number of blocks of the four stages, instead of `depth`, for a network of any size.
        widths: channels of the four stages; the stem has as many as the first.
        embedding_size: D.
        preprocessing: see `Backbone`.

    Raises:
        ValueError: unknown depth, both `depth` and `layers`, or not four numbers of at least 1.
    """

    conv_norms = (("conv1", "bn1"),)
    stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3", "layer4")

    def __init__(
        self,
        *,
        depth: int | None = None,
        layers: Sequence[int] | None = None,
        widths: Sequence[int] = (64, 128, 256, 512),
        embedding_size: int = 512,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(preprocessing)
        blocks = _blocks(depth, layers)
        widths = _four("widths", widths)
        if embedding_size < 1:
            raise ValueError(f"embedding_size = {embedding_size}: must be at least 1")
        self.embedding_size = embedding_size
        self.features_shape = (widths[3], 7, 7)
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks[0])
        self.layer2 = _stage(widths[0], widths[1], blocks[1])
        self.layer3 = _stage(widths[1], widths[2], blocks[2])
        self.layer4 = _stage(widths[2], widths[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(self.features_size, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.features.weight.requires_grad_(False)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the output of `bn2`, (B, widths[3], 7, 7)."""
        maps = self.prelu(self.bn1(self.conv1(images)))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.bn2(maps)

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F) through `fc` and, with `batch_norm`, the last BatchNorm."""
        embedding = self.fc(features)
        return self.features(embedding) if batch_norm else embedding


class _Block(nn.Module):
    """BN, conv, BN, PReLU, conv (with the stride), BN, plus the input; no ReLU after the sum."""

    conv_norms = (("conv1", "bn2"), ("conv2", "bn3"))

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )

    def forward(self, maps: Tensor) -> Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = self.prelu(self.bn2(self.conv1(self.bn1(maps))))
        return self.bn3(self.conv2(maps)) + shortcut


def _stage(in_channels: int, channels: int, blocks: int) -> nn.Sequential:
    rest = [_Block(channels, channels, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(_Block(in_channels, channels, stride=2), *rest)


def _blocks(depth: int | None, layers: Sequence[int] | None) -> tuple[int, ...]:
    if layers is not None:
        if depth is not None:
            raise ValueError(f"iresnet: depth = {depth} and layers = {layers}: give one of the two")
        return _four("layers", layers)
    depth = _DEFAULT_DEPTH if depth is None else depth
    if depth not in _BLOCKS:
        raise ValueError(f"iresnet: depth = {depth!r}: must be one of {tuple(_BLOCKS)}")
    return _BLOCKS[depth]


def _four(option: str, numbers: Sequence[int]) -> tuple[int, ...]:
    if len(numbers) != 4 or min(numbers) < 1:
        raise ValueError(f"iresnet: {option} = {numbers!r}: must be four numbers of at least 1")
    return tuple(numbers)

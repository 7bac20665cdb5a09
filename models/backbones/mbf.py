"""MobileFaceNet as arcface_torch builds it ("mbf", "mbf_large"), with its parameter names.

MobileFaceNet: Chen et al., arXiv 1804.07573; wider here than in the paper, 512-d.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.backbones.base import Backbone
from models.backbones.mobilefacenet import apply_global_depthwise

__all__ = ["MBF"]


class MBF(Backbone):
    """arcface_torch's MobileFaceNet for 112 x 112 faces; features are `conv_sep`'s, 512 x 7 x 7.

    Args:
        large: False is "mbf" (channels 128 and 256), True "mbf_large" (256 and 512, twice the
            blocks).
        embedding_size: D.
        preprocessing: see `Backbone`.
    """

    stages: ClassVar[tuple[str, ...]] = ("layers.1", "layers.3", "layers.5", "layers.7")

    def __init__(
        self,
        *,
        large: bool = False,
        embedding_size: int = 512,
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(preprocessing)
        if embedding_size < 1:
            raise ValueError(f"embedding_size = {embedding_size}: must be at least 1")
        self.embedding_size = embedding_size
        self.features_shape = (512, 7, 7)
        narrow, wide = (256, 512) if large else (128, 256)
        blocks = (2, 8, 12, 4) if large else (1, 4, 6, 2)
        second = (
            _residuals(narrow, 128, blocks[0])
            if large
            else _conv(narrow, narrow, 3, padding=1, groups=64)
        )
        self.layers = nn.Sequential(
            _conv(3, narrow, 3, stride=2, padding=1),
            second,
            _bottleneck(narrow, 128, narrow, stride=2),
            _residuals(narrow, 128, blocks[1]),
            _bottleneck(narrow, 256, wide, stride=2),
            _residuals(wide, 256, blocks[2]),
            _bottleneck(wide, 512, wide, stride=2),
            _residuals(wide, 256, blocks[3]),
        )
        self.conv_sep = _conv(wide, 512, 1)
        self.features = _Layers(
            _conv(512, 512, 7, groups=512, act=False),
            nn.Flatten(),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the output of `conv_sep`, (B, 512, 7, 7)."""
        return self.conv_sep(self.layers(images))

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F) through the 7 x 7 depthwise layer, the linear one and its BatchNorm.

        Without `batch_norm`, the last BatchNorm is left out.
        """
        depthwise, _, linear, norm = self.features.layers.children()
        assert isinstance(depthwise, _Layers)
        embedding = linear(apply_global_depthwise(depthwise.layers, features))
        return norm(embedding) if batch_norm else embedding


class _Layers(nn.Module):
    """Modules in a row under the name `layers`, as arcface_torch names every group."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps)


class _Residual(_Layers):
    """The same, plus the input."""

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps) + maps


def _bottleneck(
    in_channels: int, inner: int, channels: int, stride: int, kind: type[_Layers] = _Layers
) -> _Layers:
    """Expand, 3 x 3 depthwise, project."""
    return kind(
        _conv(in_channels, inner, 1),
        _conv(inner, inner, 3, stride=stride, padding=1, groups=inner),
        _conv(inner, channels, 1, act=False),
    )


def _residuals(channels: int, inner: int, blocks: int) -> _Layers:
    return _Layers(*(_bottleneck(channels, inner, channels, 1, _Residual) for _ in range(blocks)))


def _conv(
    in_channels: int,
    channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    act: bool = True,
) -> _Layers:
    """Convolution and BatchNorm, then a PReLU if `act`."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return _Layers(*layers, nn.PReLU(channels)) if act else _Layers(*layers)

"""Layers of MobileFaceNet (Chen et al., arXiv 1804.07573), for the backbone y1 and the student."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

BODY_EPS = 1e-3
Activation = Callable[[int], nn.Module]  # channels -> module with a weight for each


class Bottleneck(nn.Module):
    """Expand, 3 x 3 depthwise, project; adds its input where the stride is 1."""

    def __init__(
        self,
        in_channels: int,
        inner: int,
        channels: int,
        stride: int = 1,
        act: Activation = nn.PReLU,
    ) -> None:
        super().__init__()
        self.residual = stride == 1
        self.sep = conv(in_channels, inner, 1, act=act)
        self.dw = conv(inner, inner, 3, stride=stride, padding=1, groups=inner, act=act)
        self.proj = conv(inner, channels, 1, act=None)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        out = self.proj(self.dw(self.sep(maps)))
        return out + maps if self.residual else out


def conv(
    in_channels: int,
    channels: int,
    kernel: int,
    *,
    act: Activation | None = nn.PReLU,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> nn.Sequential:
    """Convolution and BatchNorm, then the activation if there is one."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, channels, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(channels, eps=BODY_EPS),
    ]
    return nn.Sequential(*layers, act(channels)) if act else nn.Sequential(*layers)

"""MobileFaceNet "y1" of insightface: 1.0 M parameters, 128-d, for edge devices and CPUs.

MobileFaceNet: Chen et al., arXiv 1804.07573.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.backbones.base import Backbone, Preprocessing

__all__ = ["MobileFaceNet"]

_BODY_EPS, _LAST_EPS = 1e-3, 2e-5
Activation = Callable[[int], nn.Module]  # channels -> module with a weight for each


class MobileFaceNet(Backbone):
    """MobileFaceNet y1 for 112 x 112 faces; features are the output of `conv_6sep`, 512 x 7 x 7.

    Args:
        embedding_size: D; the published weights have 128.
        preprocessing: see `Backbone`.
    """

    default_preprocessing: ClassVar[Preprocessing] = Preprocessing(scale=128.0)
    stages: ClassVar[tuple[str, ...]] = (
        "body.conv_2_dw",
        "body.res_3_block3",
        "body.res_4_block5",
        "body.res_5_block1",
    )

    def __init__(
        self, *, embedding_size: int = 128, preprocessing: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(preprocessing)
        if embedding_size < 1:
            raise ValueError(f"embedding_size = {embedding_size}: must be at least 1")
        self.embedding_size = embedding_size
        self.features_shape = (512, 7, 7)
        layers = mobile_layers((4, 6, 2))
        layers["conv_6sep"] = conv(128, 512, 1)
        layers["conv_6dw7_7"] = conv(512, 512, 7, groups=512, act=None)
        self.body = nn.Sequential(layers)
        self.pre_fc1 = nn.Linear(512, embedding_size)
        self.fc1 = nn.BatchNorm1d(embedding_size, eps=_LAST_EPS)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the output of `conv_6sep`, (B, 512, 7, 7)."""
        return self.body[:-1](images)

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F) through the 7 x 7 depthwise layer, `pre_fc1` and the BatchNorm."""
        embedding = self.pre_fc1(apply_global_depthwise(self.body[-1], features))
        return self.fc1(embedding) if batch_norm else embedding


def mobile_layers(
    blocks: tuple[int, int, int], act: Activation = nn.PReLU
) -> OrderedDict[str, nn.Module]:
    """Return the layers from the image to 128 maps of a sixteenth of its size, by name.

    So many residual `blocks` follow each of the three reductions.
    """
    third, fourth, fifth = blocks
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv_1"] = conv(3, 64, 3, stride=2, padding=1, act=act)
    layers["conv_2_dw"] = conv(64, 64, 3, padding=1, groups=64, act=act)
    layers["dconv_23"] = Bottleneck(64, 128, 64, stride=2, act=act)
    layers |= {f"res_3_block{i}": Bottleneck(64, 128, 64, act=act) for i in range(third)}
    layers["dconv_34"] = Bottleneck(64, 256, 128, stride=2, act=act)
    layers |= {f"res_4_block{i}": Bottleneck(128, 256, 128, act=act) for i in range(fourth)}
    layers["dconv_45"] = Bottleneck(128, 512, 128, stride=2, act=act)
    layers |= {f"res_5_block{i}": Bottleneck(128, 256, 128, act=act) for i in range(fifth)}
    return layers


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
        nn.BatchNorm2d(channels, eps=_BODY_EPS),
    ]
    return nn.Sequential(*layers, act(channels)) if act else nn.Sequential(*layers)


def apply_global_depthwise(layers: nn.Module, features: Tensor) -> Tensor:
    """Apply a depthwise convolution over the whole map and its BatchNorm as a product and a sum.

    On a CPU a convolution first copies its input to channels_last, which costs more than itself.
    `layers` are the convolution (no bias, no padding) and the BatchNorm; they map features
    (B, C * H * W), flattened channel-major, to (B, C).
    """
    conv, norm = layers.children()
    assert isinstance(conv, nn.Conv2d)
    kernel = conv.weight.flatten(1)
    sums = (features.unflatten(1, kernel.shape) * kernel).sum(2)
    return norm(sums[:, :, None, None]).flatten(1)

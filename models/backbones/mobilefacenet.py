"""MobileFaceNet "y1" of insightface: 1.0 M parameters, 128-d, for edge devices and CPUs.

MobileFaceNet: Chen et al., arXiv 1804.07573.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from models.backbones.base import (
    Backbone,
    apply_global_depthwise,
    chain_depthwise_linear,
    global_depthwise_affine,
    linear_affine,
)
from models.mobile_layers import Bottleneck, conv
from models.preprocessing import Preprocessing

__all__ = ["MobileFaceNet"]

_LAST_EPS = 2e-5


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
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv_1"] = conv(3, 64, 3, stride=2, padding=1)
        layers["conv_2_dw"] = conv(64, 64, 3, padding=1, groups=64)
        layers["dconv_23"] = Bottleneck(64, 128, 64, stride=2)
        layers |= {f"res_3_block{i}": Bottleneck(64, 128, 64) for i in range(4)}
        layers["dconv_34"] = Bottleneck(64, 256, 128, stride=2)
        layers |= {f"res_4_block{i}": Bottleneck(128, 256, 128) for i in range(6)}
        layers["dconv_45"] = Bottleneck(128, 512, 128, stride=2)
        layers |= {f"res_5_block{i}": Bottleneck(128, 256, 128) for i in range(2)}
        layers["conv_6sep"] = conv(128, 512, 1)
        layers["conv_6dw7_7"] = conv(512, 512, 7, groups=512, act=None)
        self.body = nn.Sequential(layers)
        self.pre_fc1 = nn.Linear(512, embedding_size)
        self.fc1 = nn.BatchNorm1d(embedding_size, eps=_LAST_EPS)

    def feature_map(self, images: Tensor) -> Tensor:
        """Return the output of `conv_6sep`, (B, 512, 7, 7)."""
        return self.body[:-1](images)

    def tail_modules(self) -> tuple[nn.Module, ...]:
        """Return the 7 x 7 depthwise layer."""
        return (self.body[-1],)

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F) through the 7 x 7 depthwise layer, `pre_fc1` and `fc1`.

        Args:
            features: flattened channel-major.
            batch_norm: False leaves `fc1`, the last BatchNorm, out.
        """
        embedding = self.pre_fc1(apply_global_depthwise(self.body[-1], features))
        return self.fc1(embedding) if batch_norm else embedding

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        """Return weight (D, F) and bias (D,) of `tail` in eval mode, composed in float64."""
        weight, bias = chain_depthwise_linear(
            global_depthwise_affine(self.body[-1]),
            linear_affine(self.pre_fc1, self.fc1 if batch_norm else None),
        )
        return weight.to(self.pre_fc1.weight.dtype), bias.to(self.pre_fc1.weight.dtype)

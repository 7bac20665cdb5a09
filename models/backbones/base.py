"""What all backbones share: from the last feature map to `BackboneOutput`, and the affine tail.

The tail is every layer after the feature map that heads read. It holds no non-linearity, so one
matrix and one bias say the same; the closed form of MC-dropout needs them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.backbones._fold import fold_batch_norms
from models.output import BackboneOutput
from models.preprocessing import Preprocessing


class Backbone(nn.Module, ABC):
    """A face-recognition network; subclasses give the feature map and the tail.

    Args:
        preprocessing: fields of `Preprocessing` in which these weights differ from the class's
            default, such as `{"color": "BGR"}`.

    Attributes:
        stages: names of the modules that end the network's stages, from the input on; scores that
            look inside (GraFIQs) need them, nothing else does.
        preprocessing: what the weights were trained on.
        embedding_size: D.
        features_shape: (C, H, W) of the feature map that heads read.
    """

    default_preprocessing: ClassVar[Preprocessing] = Preprocessing()
    stages: ClassVar[tuple[str, ...]] = ()
    embedding_size: int
    features_shape: tuple[int, int, int]

    def __init__(self, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        given = preprocessing or {}
        default = self.default_preprocessing.to_dict()
        self.preprocessing = Preprocessing.from_dict({**default, **given})

    @property
    def features_size(self) -> int:
        """F, the length of the flattened feature map."""
        channels, height, width = self.features_shape
        return channels * height * width

    def forward(self, images: Tensor) -> BackboneOutput:
        """Map (B, 3, 112, 112) normalised images to embeddings (B, D) and features (B, F).

        Under autocast the tail still runs in float32: it costs little, and the embedding decides
        comparisons.
        """
        features = self.feature_map(images).flatten(1).float()
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.tail(features)
        return BackboneOutput(embedding, features)

    def fold(self) -> None:
        """Merge the feature map's BatchNorms into its convolutions, for good; eval mode only."""
        fold_batch_norms(self, untouched=self.tail_modules())

    def tail_modules(self) -> tuple[nn.Module, ...]:
        """Return the modules of the tail, which stay as they are and float32.

        By default those that `feature_map` does not call: it runs once to see, in eval mode only.
        """
        called: set[int] = set()
        hooks = [
            module.register_forward_pre_hook(lambda module, _: called.add(id(module)))
            for module in self.modules()
        ]
        size = self.preprocessing.size
        device = next(self.parameters()).device
        try:
            with torch.no_grad():
                self.feature_map(torch.zeros(1, 3, size, size, device=device))
        finally:
            for hook in hooks:
                hook.remove()
        return tuple(
            module
            for module in self.modules()
            if not any(id(part) in called for part in module.modules())
        )

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """Return the (B, C, H, W) map that heads read."""

    @abstractmethod
    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F) to embeddings (B, D), without dropout.

        Args:
            features: flattened channel-major.
            batch_norm: False leaves out the last BatchNorm.
        """

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        """Return weight (D, F) and bias (D,) of `tail` as one affine map (of its eval mode).

        Raises:
            ValueError: the class does not give it, as where the tail is not affine.
        """
        raise ValueError(
            f"{type(self).__name__} has no tail_affine, which mc_dropout:form=closed_form needs: "
            "take form=sampled"
        )


def batch_norm_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a BatchNorm's eval mode as scale (C,) and shift (C,), in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale


def linear_affine(linear: nn.Linear, norm: nn.BatchNorm1d | None = None) -> tuple[Tensor, Tensor]:
    """Return a linear layer and the BatchNorm after it as weight (D, F) and bias (D,), float64."""
    weight = linear.weight.double()
    bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.double()
    if norm is None:
        return weight, bias
    scale, shift = batch_norm_affine(norm)
    return scale[:, None] * weight, scale * bias + shift


def global_depthwise_affine(layers: nn.Module) -> tuple[Tensor, Tensor]:
    """Return a depthwise convolution over the whole map and its BatchNorm, in float64.

    Args:
        layers: the convolution (no bias, no padding), then the BatchNorm.

    Returns:
        kernel (C, H * W), which each channel is multiplied with and summed over, and shift (C,).
    """
    conv, norm = layers.children()
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    scale, shift = batch_norm_affine(norm)
    return scale[:, None] * conv.weight.double().flatten(1), shift


def apply_global_depthwise(layers: nn.Module, features: Tensor) -> Tensor:
    """Apply a depthwise convolution over the whole map and its BatchNorm as a product and a sum.

    On a CPU a convolution first copies its input to channels_last, which costs more than itself.

    Args:
        layers: the convolution (no bias, no padding), then the BatchNorm.
        features: (B, C * H * W), flattened channel-major.

    Returns:
        (B, C).
    """
    conv, norm = layers.children()
    assert isinstance(conv, nn.Conv2d)
    kernel = conv.weight.flatten(1)
    sums = (features.unflatten(1, kernel.shape) * kernel).sum(2)
    return norm(sums[:, :, None, None]).flatten(1)


def chain_depthwise_linear(
    depthwise: tuple[Tensor, Tensor], linear: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Compose `global_depthwise_affine` with a following `linear_affine`: (D, C * H * W), (D,)."""
    kernel, shift = depthwise
    weight, bias = linear
    return (weight[:, :, None] * kernel).flatten(1), weight @ shift + bias

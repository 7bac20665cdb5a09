"""The contract of a backbone: a feature map that heads read, and the tail from there to embeddings.

A subclass sets `embedding_size` and `features_shape` and gives `feature_map` and `tail`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.output import BackboneOutput
from models.preprocessing import Preprocessing


class Backbone(nn.Module, ABC):
    """A face-recognition network.

    Args:
        preprocessing: fields of `Preprocessing` in which these weights differ from the class's
            default, such as `{"color": "BGR"}`.

    Attributes:
        embedding_size: D.
        features_shape: (C, H, W) of the feature map that heads read.
        preprocessing: what the weights were trained on.
        stages: names of the modules that end the network's stages, from the input on; scores that
            look inside (GraFIQs) need them, nothing else does.
        published_names: how tensors are called in files from elsewhere: the start of a name there,
            and what it becomes here; None leaves those tensors out. The first that fits counts.
    """

    default_preprocessing: ClassVar[Preprocessing] = Preprocessing()
    stages: ClassVar[tuple[str, ...]] = ()
    published_names: ClassVar[Mapping[str, str | None]] = {}
    preprocessing: Preprocessing
    embedding_size: int
    features_shape: tuple[int, int, int]

    def __init__(self, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        default = self.default_preprocessing.to_dict()
        self.preprocessing = Preprocessing.from_dict({**default, **(preprocessing or {})})

    @abstractmethod
    def feature_map(self, images: Tensor) -> Tensor:
        """Return the (B, C, H, W) map that heads read, of normalised images (B, 3, 112, 112)."""

    @abstractmethod
    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        """Map features (B, F), flattened channel-major, to embeddings (B, D), without dropout.

        Without `batch_norm`, the last layer is left out where that is a BatchNorm.
        """

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
        modules = ((module, set(map(id, module.modules()))) for module in self.modules())
        return tuple(module for module, parts in modules if not parts & called)

    def starting_from(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a file's tensors under this network's names, by `published_names`."""
        renamed: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            start = next((start for start in self.published_names if name.startswith(start)), "")
            own = self.published_names.get(start, "")
            if own is not None:
                renamed[own + name[len(start) :]] = tensor
        return renamed

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

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        """Return weight (D, F) and bias (D,) of `tail` as one affine map, of its eval mode.

        The closed form of MC-dropout needs them. They are the tail's derivative and value at 0,
        computed in float64 on the CPU.

        Raises:
            ValueError: the tail is not affine.
        """
        own = next(self.parameters())
        with torch.inference_mode(False), torch.enable_grad():
            double = copy.deepcopy(self).cpu().double().eval()
            zero = own.new_zeros(1, self.features_size, device="cpu", dtype=torch.float64)
            (bias,) = double.tail(zero.requires_grad_(), batch_norm)
            rows = torch.eye(len(bias), dtype=torch.float64)
            (weight,) = torch.autograd.grad(bias, zero, rows, is_grads_batched=True)
        weight, bias = weight[:, 0], bias.detach()
        with torch.no_grad():
            probe = torch.linspace(-1, 1, self.features_size, dtype=torch.float64)[None]
            if not torch.allclose(double.tail(probe, batch_norm), probe @ weight.T + bias):
                raise ValueError(
                    f"backbone {type(self).__name__}: its tail is not affine, as the closed form "
                    "of MC-dropout needs it; take form=sampled"
                )
        return weight.to(own), bias.to(own)

    def fold(self) -> None:
        """Merge BatchNorms of the feature map into the convolutions right before them, for good.

        Exact up to rounding, in eval mode only. In a `nn.Sequential` the order is seen; another
        module lists pairs of its attributes in `conv_norms`. A BatchNorm before a padded
        convolution cannot be merged and stays.
        """
        tail = {id(module) for part in self.tail_modules() for module in part.modules()}
        for module in self.modules():
            pairs = getattr(module, "conv_norms", ())
            if isinstance(module, nn.Sequential):
                pairs = pairwise(name for name, _ in module.named_children())
            for conv_name, norm_name in () if id(module) in tail else pairs:
                conv, norm = getattr(module, conv_name), getattr(module, norm_name)
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                    setattr(module, norm_name, nn.Identity())

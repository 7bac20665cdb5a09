"""The contract of a backbone: preprocessing, a feature map that heads read, the tail to embeddings.

A subclass sets `embedding_size` and `features_shape` and gives `feature_map` and `tail`. Colour
order and scaling differ between public backbones, so they are recorded with each.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from utils.config import parsed

Color = Literal["RGB", "BGR"]
_LARGEST_SIZE = 1024  # pixels


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
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale = {self.scale!r}: must be above 0")
        if not math.isfinite(self.mean):
            raise ValueError(f"mean = {self.mean!r}: must be a finite number")
        if not 1 <= self.size <= _LARGEST_SIZE:
            raise ValueError(f"size = {self.size!r}: must be 1 to {_LARGEST_SIZE}")

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

    @property
    def formula(self) -> str:
        """What is done to a value x, as in `(x - 127.5) / 128`."""
        centred = f"(x - {self.mean:g})" if self.mean else "x"
        return centred if self.scale == 1 else f"{centred} / {self.scale:g}"

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
        config: Preprocessing = parsed(cls, values, "preprocessing")
        return config

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


class BackboneOutput(NamedTuple):
    """One forward pass of a backbone over B images.

    Attributes:
        embedding: (B, D), what comparisons are made with; not L2-normalised.
        features: (B, F), the last feature map, flattened channel-major, before any dropout; what
            heads read.
        images: what the backbone was given, uint8 (B, 112, 112, 3) or floating point
            (B, 3, 112, 112) RGB in 0..255; for heads that read images. None where nobody does.
        stages: (B, S), the average of each channel at the end of each of the backbone's stages,
            from the input on. None unless somebody asked (`FrozenBackbone.give_stages`).
        lengths: (B, number of stages), the Euclidean length of the whole map there; None where
            `stages` is.
    """

    embedding: Tensor
    features: Tensor
    images: Tensor | None = None
    stages: Tensor | None = None
    lengths: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """Those that are there, in order."""
        return [part for part in self if part is not None]

    def map(self, change: Callable[[Tensor], Tensor]) -> BackboneOutput:
        """Return the output with every tensor changed, in order."""
        return BackboneOutput(*(None if part is None else change(part) for part in self))  # type: ignore[arg-type]


class Backbone(nn.Module, ABC):
    """A face-recognition network.

    Args:
        preprocessing: fields of `Preprocessing` in which these weights differ from the class's
            default, such as `{"color": "BGR"}`.

    Attributes:
        embedding_size: D.
        features_shape: (C, H, W) of the feature map that heads read.
        preprocessing: what the weights were trained on.
        stages: names of the modules that end the network's stages, from the input on; what looks
            inside (GraFIQs, heads that read stages) needs them, nothing else does.
        is_differentiable: whether PyTorch computes it, so that gradients reach the images and other
            executions than eager are possible.
        description: what was found out about a foreign network; "" for one of PyTorch.
        published_names: how tensors are called in files from elsewhere: the start of a name there,
            and what it becomes here; None leaves those tensors out. The first that fits counts.
    """

    default_preprocessing: ClassVar[Preprocessing] = Preprocessing()
    stages: ClassVar[tuple[str, ...]] = ()
    is_differentiable: ClassVar[bool] = True
    description: str = ""
    published_names: ClassVar[Mapping[str, str | None]] = {}
    preprocessing: Preprocessing
    embedding_size: int
    features_shape: tuple[int, int, int]

    def __init__(self, preprocessing: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        default = self.default_preprocessing.to_dict()
        self.preprocessing = Preprocessing.from_dict({**default, **(preprocessing or {})})
        self._averages: list[Tensor] = []  # of stages, during one pass
        self._lengths: list[Tensor] = []
        self._stage_channels: tuple[int, ...] = ()

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
        self._averages.clear()
        self._lengths.clear()
        features = self.feature_map(images).flatten(1).float()
        with torch.autocast(features.device.type, enabled=False):
            embedding = self.tail(features)
        if not self._averages:
            return BackboneOutput(embedding, features)
        stages, lengths = torch.cat(self._averages, dim=1), torch.stack(self._lengths, dim=1)
        self._averages.clear()
        return BackboneOutput(embedding, features, stages=stages, lengths=lengths)

    def watch_stages(self) -> tuple[int, ...]:
        """Let `forward` also give the averages of the stages from now on, and in copies.

        Returns:
            Channels of each stage: one image runs through the feature map to see.

        Raises:
            ValueError: the class names no stages.
        """
        if not self._stage_channels:
            if not self.stages:
                raise ValueError(
                    f"backbone {type(self).__name__} does not name its stages (class attribute "
                    "`stages`): take a head or an estimator that does not read them"
                )
            for name in self.stages:
                self.get_submodule(name).register_forward_hook(self._keep_average)
            size = self.preprocessing.size
            with torch.no_grad():
                device = next(self.parameters()).device
                self.feature_map(torch.zeros(1, 3, size, size, device=device))
            self._stage_channels = tuple(average.shape[1] for average in self._averages)
        return self._stage_channels

    def _keep_average(self, _module: nn.Module, _inputs: object, maps: Tensor) -> None:
        self._averages.append(maps.mean(dim=(2, 3), dtype=torch.float32))
        length = torch.linalg.vector_norm(maps, dim=(1, 2, 3), dtype=torch.float32)
        self._lengths.append(length)

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        """Return weight (D, F) and bias (D,) of `tail` as one affine map, of its eval mode.

        The closed form of MC-dropout needs them. They are the tail's derivative and value at 0,
        computed in float64 on the CPU.

        Raises:
            ValueError: the tail is not affine.
        """
        device = next(itertools.chain(self.parameters(), self.buffers())).device
        with torch.inference_mode(False), torch.enable_grad():
            double = copy.deepcopy(self).cpu().double().eval()
            zero = torch.zeros(1, self.features_size, dtype=torch.float64)
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
        # float32 first: some devices have no float64
        return weight.float().to(device), bias.float().to(device)

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
                pairs = itertools.pairwise(name for name, _ in module.named_children())
            for conv_name, norm_name in () if id(module) in tail else pairs:
                conv, norm = getattr(module, conv_name), getattr(module, norm_name)
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                    setattr(module, norm_name, nn.Identity())


def cosine_distance(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - cosine of the rows, (B,), as half a squared distance: exact near 0."""
    return (F.normalize(first) - F.normalize(second)).square().sum(dim=1) / 2

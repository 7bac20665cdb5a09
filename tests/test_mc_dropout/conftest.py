"""Layers small enough to draw from without end, and a backbone made of one."""

import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from models.output import BackboneOutput

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "mc_dropout" / "tiny.npz"


class FakeBackbone:
    """A layer, then a scale and shift that stand for the last BatchNorm."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.scale = torch.linspace(0.2, 3, len(bias))
        self.shift = torch.linspace(1, -1, len(bias))

    def tail(self, features: Tensor, batch_norm: bool = True) -> Tensor:
        embedding = features @ self.weight.T + self.bias
        return embedding * self.scale + self.shift if batch_norm else embedding

    def tail_affine(self, batch_norm: bool = True) -> tuple[Tensor, Tensor]:
        if not batch_norm:
            return self.weight, self.bias
        return self.weight * self.scale[:, None], self.bias * self.scale + self.shift


class FakeFrozen:
    """Takes the first values of an image as its features."""

    def __init__(self, backbone: FakeBackbone) -> None:
        self.backbone = backbone
        self.embedding_size = len(backbone.bias)

    def __call__(self, images: Tensor) -> BackboneOutput:
        size = self.backbone.weight.shape[1]
        features = images.flatten(1)[:, :size].float() / 64 - 2
        return BackboneOutput(self.backbone.tail(features), features)


@pytest.fixture(scope="session")
def tiny():
    """Features (8, 64), and for 16 and 512 outputs a layer and what the original gave for it."""
    stored = np.load(GOLDEN)

    def layer(size: int) -> SimpleNamespace:
        def random(name: str) -> np.random.RandomState:
            return np.random.RandomState(zlib.crc32(name.encode()))  # noqa: NPY002

        weight = random("model.fc.weight").normal(0, 1 / 8, (size, 64)).astype(np.float32)
        bias = random("model.fc.bias").normal(0, 0.1, size).astype(np.float32)
        return SimpleNamespace(
            weight=torch.from_numpy(weight),
            bias=torch.from_numpy(bias),
            std=stored[f"reference_std_out{size}"].astype(float),
            error=stored[f"reference_se_out{size}"],
            mean_of_100=stored[f"T100_out{size}_mean"],
            sd_of_100=stored[f"T100_out{size}_sd"],
        )

    return SimpleNamespace(features=torch.from_numpy(stored["x"]), layer=layer)


@pytest.fixture
def fake():
    def fake(weight: Tensor, bias: Tensor) -> FakeFrozen:
        return FakeFrozen(FakeBackbone(weight, bias))

    return fake


@pytest.fixture(scope="session")
def layer():
    """A random layer (D, F) whose inputs differ in importance."""

    def layer(size: int, features: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(size, features, generator=generator) / features**0.5
        weight *= torch.linspace(2, 0.5, size)[:, None]
        return weight, torch.randn(size, generator=generator) * 0.1

    return layer

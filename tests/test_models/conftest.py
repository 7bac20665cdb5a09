"""Weights by rule, so that a reference needs no weight file."""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.backbones.iresnet import IResNet
from models.run import About

ABOUT = About(
    name="tiny",
    license="unknown, research only",
    source="https://example.org/zoo",
    sha256="ab" * 32,
    label="a remark",
    colour_check={"verdict": "recorded", "interval": [0.5, 1.5]},
    created="2026-01-31",
    version="1.2",
)
Draw = Callable[[np.random.RandomState, str, tuple[int, ...]], np.ndarray]


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).resolve().parents[1] / "golden" / "models"


@pytest.fixture(scope="session")
def fill() -> Callable[[nn.Module, Draw], None]:
    """Set every tensor of a module from its name: the rule of the reference fixtures."""

    def fill(module: nn.Module, draw: Draw) -> None:
        state = {}
        for name, tensor in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            random = np.random.RandomState(zlib.crc32(name.encode()))  # noqa: NPY002
            values = _statistics(random, name, tuple(tensor.shape))
            if values is None:
                values = draw(random, name, tuple(tensor.shape))
            state[name] = torch.from_numpy(values.astype(np.float32))
        module.load_state_dict(state, strict=False)

    return fill


def _statistics(random: np.random.RandomState, name: str, shape: tuple[int, ...]):
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape)
    if name.endswith("running_mean"):
        return random.normal(0, 0.1, shape)
    if len(shape) >= 2:
        return random.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape)
    return None


@pytest.fixture(scope="session")
def backbone_draw() -> Draw:
    def draw(random: np.random.RandomState, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if "prelu" in name:
            return random.uniform(0.1, 0.4, shape)
        if name.endswith(".weight"):
            return random.uniform(0.5, 1.0, shape)
        return random.normal(0, 0.1, shape)

    return draw


@pytest.fixture(scope="session")
def iresnet18(fill: Callable[[nn.Module, Draw], None], backbone_draw: Draw) -> IResNet:
    net = IResNet(depth=18)
    fill(net, backbone_draw)
    return net.eval()


@pytest.fixture(scope="session")
def iresnet18_images(golden: Path) -> Tensor:
    """Two images, uint8 (2, 112, 112, 3)."""
    with np.load(golden / "iresnet18.npz") as reference:
        return torch.from_numpy(reference["images"].transpose(0, 2, 3, 1).copy())


@pytest.fixture
def tiny(fill: Callable[[nn.Module, Draw], None], backbone_draw: Draw) -> IResNet:
    """A narrow network with every kind of layer, for tests that do not need a real size."""
    net = IResNet(layers=(1, 2, 1, 1), widths=(4, 6, 8, 8), embedding_size=16)
    fill(net, backbone_draw)
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    """Three images, uint8 (3, 112, 112, 3)."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (3, 112, 112, 3), dtype=torch.uint8, generator=generator)

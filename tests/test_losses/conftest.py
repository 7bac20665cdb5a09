"""Reference numbers of the losses and the comparison with them, shared by this folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden" / "losses"


class Golden:
    """Inputs, losses, gradients and logged numbers of the original code."""

    def __init__(self) -> None:
        self.numbers: dict[str, Any] = json.loads((GOLDEN / "losses.json").read_text())
        with np.load(GOLDEN / "losses.npz") as arrays:
            self.arrays: dict[str, NDArray[Any]] = {name: arrays[name] for name in arrays.files}

    def tensor(self, name: str) -> Tensor:
        tensor = torch.from_numpy(self.arrays[name])
        return tensor.double() if tensor.is_floating_point() else tensor


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()


@pytest.fixture(scope="session")
def check_golden(golden: Golden) -> Callable[..., None]:
    """Run a loss on a recorded input and compare loss, gradient and logged numbers."""

    def check(
        loss: nn.Module,
        tag: str,
        head_input: Tensor,
        to_raw: Callable[[Tensor], Tensor],
        embedding: str = "mu",
    ) -> None:
        expected = golden.numbers[tag]
        leaf = head_input.clone().requires_grad_()
        result = loss(golden.tensor(embedding), to_raw(leaf), golden.tensor("label"))
        result.loss.backward()
        assert result.loss.item() == pytest.approx(expected["loss_float64"], abs=1e-7)
        recorded = golden.arrays[f"grad_{tag}"]
        assert leaf.grad is not None
        # Recorded in float32, with its own distance from float64 beside it.
        tolerance = 1.01 * expected["max_abs_grad_minus_float64"]
        np.testing.assert_allclose(leaf.grad.numpy(), recorded, rtol=1e-6, atol=tolerance)
        logged = [*expected["end_points"], "uloss"]
        assert sorted(result.stats) == sorted(logged)
        for name, numbers in expected["end_points"].items():
            values = result.stats[name]
            found = values.mean().item(), values.max().item(), values.min().item()
            wanted = numbers["mean"], numbers["max"], numbers["min"]
            assert found == pytest.approx(wanted, abs=1e-6), name

    return check


def random_batch(
    seed: int, labels: list[int], dimension: int, columns: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return float64 embeddings around one centre per label, raw outputs, and labels."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor(labels)
    centres = torch.randn(max(labels) + 1, dimension, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), dimension, generator=generator, dtype=torch.float64)
    raw = torch.randn(len(labels), columns, generator=generator, dtype=torch.float64)
    return 3 * (centres[label] + noise), raw, label


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    return random_batch

"""Reference numbers of the losses, the comparison with them, and batches, for this folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

GOLDEN = Path(__file__).parents[1] / "golden" / "losses"


class Golden:
    """Inputs, losses, gradients and logged numbers of the original code."""

    def __init__(self):
        self.numbers = json.loads((GOLDEN / "losses.json").read_text())
        with np.load(GOLDEN / "losses.npz") as arrays:
            self.arrays = dict(arrays)

    def tensor(self, name):
        tensor = torch.from_numpy(self.arrays[name])
        return tensor.double() if tensor.is_floating_point() else tensor

    def check(self, loss, tag, head_input, to_raw, embedding="mu"):
        """Run a loss on a recorded input and compare loss, gradient and logged numbers."""
        expected = self.numbers[tag]
        leaf = head_input.clone().requires_grad_()
        result = loss(self.tensor(embedding), to_raw(leaf), self.tensor("label"))
        result.loss.backward()
        assert result.loss.item() == pytest.approx(expected["loss_float64"], abs=1e-7)
        # Recorded in float32, with its own distance from float64 beside it.
        tolerance = 1.01 * expected["max_abs_grad_minus_float64"]
        recorded = self.arrays[f"grad_{tag}"]
        np.testing.assert_allclose(leaf.grad.numpy(), recorded, rtol=1e-6, atol=tolerance)
        assert sorted(result.stats) == sorted([*expected["end_points"], "uloss"])
        for name, numbers in expected["end_points"].items():
            values = result.stats[name]
            logged = {key: getattr(values, key)().item() for key in ("mean", "max", "min")}
            assert logged == pytest.approx({key: numbers[key] for key in logged}, abs=1e-6), name

    def check_tie(self, loss, tag):
        """Compare loss and gradient of a probability head where two qualities are equal."""
        case = self.numbers["edge_cases"][tag]
        head = torch.tensor(case["head"], dtype=torch.float64, requires_grad=True)
        mu = torch.tensor(case["mu"], dtype=torch.float64)
        result = loss(mu, torch.logit(head), torch.tensor(case["label"]))
        result.loss.backward()
        assert result.loss.item() == pytest.approx(float(case["loss"]), abs=1e-6)
        assert head.grad[:, 0].tolist() == pytest.approx([float(g) for g in case["grad"]], abs=1e-6)


@pytest.fixture(scope="session")
def golden():
    return Golden()


@pytest.fixture(scope="session")
def make_batch():
    """Return a function that gives float64 embeddings around one centre per label, and the rest."""

    def make(seed, labels, dimension, columns):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        label = torch.tensor(labels)
        centres, noise = normal(max(labels) + 1, dimension), normal(len(labels), dimension)
        return 3 * (centres[label] + noise), normal(len(labels), columns), label

    return make


@pytest.fixture(scope="session")
def loops():
    """Return a function that gives unit embeddings and the ordered genuine pairs, for loops."""

    def prepare(embedding, labels):
        mu = embedding.numpy() / np.linalg.norm(embedding.numpy(), axis=1, keepdims=True)
        images = range(len(labels))
        pairs = [(i, j) for i in images for j in images if i != j and labels[i] == labels[j]]
        return mu, pairs

    return prepare


@pytest.fixture(scope="session")
def minimise():
    """Return a function that lets a raw output (B, d) of one identity's images learn."""

    def run(loss, embedding, raw, lr, steps=300):
        raw = raw.double().requires_grad_()
        optimizer = torch.optim.SGD([raw], lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            loss(embedding.double(), raw, torch.zeros(len(raw))).loss.backward()
            optimizer.step()
        return raw.detach()

    return run

"""MLS against recorded numbers, a triple loop, its optimum and its two reductions."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from losses.mls import MLSLoss

SHARED = Path(__file__).resolve().parents[3] / "shared" / "oracle" / "model"


def test_recorded_numbers_on_the_log_variance(golden):
    log_sigma = golden.tensor("sigma_16").log()
    golden.check(MLSLoss(), "mls16_on_log_sigma", log_sigma, lambda raw: raw, embedding="mu_16")


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/oracle")
def test_recorded_numbers_at_full_size():
    with np.load(SHARED / "losses.npz") as arrays:
        embedding = torch.from_numpy(arrays["mu"])
        labels = torch.from_numpy(arrays["label"])
        raw = torch.from_numpy(arrays["sigma_512_f16"].astype(np.float32)).log().requires_grad_()
        recorded = arrays["grad_mls512_on_log_sigma_first8rows"]
    result = MLSLoss()(embedding, raw, labels)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(-5.227845353723, rel=1e-6)
    np.testing.assert_allclose(raw.grad.numpy()[:8], recorded, atol=1e-5 * np.abs(recorded).max())


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_triple_loop(make_batch, loops, reduce):
    embedding, raw, labels = make_batch(8, [0, 1, 0, 1, 1], dimension=4, columns=4)
    mu, pairs = loops(embedding, labels)
    variance = np.exp(raw.numpy())
    means = []
    for i, j in pairs:
        terms = []
        for k in range(4):
            total = variance[i, k] + variance[j, k]
            terms.append((mu[i, k] - mu[j, k]) ** 2 / total + math.log(total))
        means.append(np.mean(terms) if reduce == "mean" else np.sum(terms))
    loss = MLSLoss(reduce=reduce)(embedding, raw, labels).loss
    assert loss.item() == pytest.approx(np.mean(means), rel=1e-8)


def test_optimum_is_the_squared_gap_in_each_dimension(minimise):
    embedding = torch.tensor([[2.0, 2.0, 1.0], [3.0, 4.0, 12.0]], dtype=torch.float64)
    gap = embedding[0] / 3 - embedding[1] / 13
    raw = minimise(MLSLoss(reduce="sum"), embedding, torch.zeros(2, 3), lr=0.5)
    torch.testing.assert_close(raw.exp().sum(dim=0), gap.square(), rtol=1e-5, atol=0)

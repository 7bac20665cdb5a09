import math

import numpy as np
import pytest
import torch

from estimators.base import Batch
from estimators.mc_dropout import MCDropout, cosine_std


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 112, 112, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [16, 512])
def test_many_passes_reach_what_the_original_gave(tiny, fake, size):
    layer = tiny.layer(size)
    estimator = MCDropout(fake(layer.weight, layer.bias), passes=4000, batch_norm=False)
    found = estimator.spread(tiny.features).numpy()
    # One run of T passes scatters by the T = 100 scatter times sqrt(100 / T); the reference has an
    # error of its own. Heavy-tailed rows scatter more at T = 100 than this scaling says: x 1.5.
    scatter = np.hypot(layer.sd_of_100 * math.sqrt(100 / 4000) * 1.5, layer.error)
    assert np.all(np.abs(found - layer.std) < 4 * scatter)
    assert np.median(np.abs(found / layer.std - 1)) < 0.02


def test_runs_of_100_passes_scatter_and_lean_as_the_originals_do(tiny, fake):
    layer = tiny.layer(16)
    frozen = fake(layer.weight, layer.bias)
    estimators = (MCDropout(frozen, passes=100, seed=seed, batch_norm=False) for seed in range(60))
    runs = np.stack([estimator.spread(tiny.features) for estimator in estimators])
    error = layer.sd_of_100 / math.sqrt(60)
    assert np.all(np.abs(runs.mean(0) - layer.mean_of_100) < 6 * error)
    assert np.all(np.abs(runs.std(0) / layer.sd_of_100 - 1) < 0.6)


def test_statistic_is_that_of_a_plain_loop():
    passes = np.random.default_rng(0).normal(0.3, 1, (3, 7, 5))
    expected = []
    for image in passes:
        unit = [row / math.sqrt(sum(v * v for v in row)) for row in image]
        mean = sum(unit) / len(unit)
        mean = mean / math.sqrt(sum(v * v for v in mean))
        cosines = [sum(a * b for a, b in zip(row, mean, strict=True)) for row in unit]
        centre = sum(cosines) / len(cosines)
        expected.append(math.sqrt(sum((c - centre) ** 2 for c in cosines) / len(cosines)))
    found = cosine_std(torch.from_numpy(passes).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_passes_are_dropout_then_the_tail(fake, layer, batch_norm):
    weight, bias = layer(4, 6)
    frozen = fake(weight, bias)
    features = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    estimator = MCDropout(frozen, passes=9, rate=0.25, seed=3, batch_norm=batch_norm)
    found = estimator.spread(features)
    generator = torch.Generator().manual_seed(3)
    passes = []
    for _ in range(9):
        keep = torch.rand(6, generator=generator) >= 0.25
        dropped = torch.stack([torch.where(keep, row / 0.75, 0.0) for row in features])
        passes.append(frozen.backbone.tail(dropped, batch_norm))
    torch.testing.assert_close(found, cosine_std(torch.stack(passes, 1)))


def test_memory_limits_do_not_change_results(fake, layer, monkeypatch):
    frozen = fake(*layer(12, 90))
    plain = MCDropout(frozen, passes=50)(Batch(images(7)))
    monkeypatch.setattr("mc_dropout.closed_form._ROWS", {"cpu": 20})
    monkeypatch.setattr("estimators.mc_dropout._HELD", 50 * 12 * 3)
    np.testing.assert_allclose(
        MCDropout(frozen, passes=50)(Batch(images(7))).sigma_sq, plain.sigma_sq, rtol=1e-5
    )


def test_a_pass_of_length_zero_counts_as_a_cosine_of_zero():
    passes = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [5.0, 0.0], [1.0, 0.0]]])
    assert cosine_std(passes).item() == pytest.approx(math.sqrt(3) / 4)  # of 0, 1, 1, 1


@pytest.mark.parametrize("form", ["sampled", "closed_form"])
def test_an_image_without_any_direction_is_as_uncertain_as_can_be(fake, form):
    frozen = fake(torch.ones(3, 5), torch.zeros(3))
    estimator = MCDropout(frozen, passes=4, batch_norm=False, form=form)
    assert estimator.spread(torch.zeros(2, 5)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("form", ["sampled", "closed_form"])
def test_nan_features_stay_nan(fake, layer, form):
    features = torch.ones(2, 90)
    features[1, 3] = math.nan
    spread = MCDropout(fake(*layer(12, 90)), passes=4, form=form).spread(features)
    assert spread[0] > 0
    assert spread[1].isnan()


def test_a_small_spread_keeps_its_digits():
    generator = torch.Generator().manual_seed(0)
    passes = torch.randn(1, 4000, 3, generator=generator) * 1e-3
    passes[..., 0] = 1.0
    wide = passes.double()
    unit = wide / wide.norm(dim=2, keepdim=True)
    mean = unit.mean(1) / unit.mean(1).norm()
    exact = (unit[0] @ mean[0]).std(correction=0).item()
    assert exact == pytest.approx(1e-6, rel=0.1)  # cosines in float32 have steps of 6e-8
    assert cosine_std(passes).item() == pytest.approx(exact, rel=2e-3)

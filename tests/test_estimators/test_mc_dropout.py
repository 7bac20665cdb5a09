import math

import numpy as np
import pytest
import torch

from estimators.base import Batch, Estimate
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
    runs = np.stack(
        [
            MCDropout(frozen, passes=100, seed=seed, batch_norm=False).spread(tiny.features)
            for seed in range(60)
        ]
    )
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


def test_batch_norm_changes_the_spread(fake, layer):
    frozen = fake(*layer(8, 40))
    features = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    spreads = [MCDropout(frozen, batch_norm=flag).spread(features) for flag in (True, False)]
    assert (spreads[0] / spreads[1] - 1).abs().min() > 0.01


@pytest.mark.parametrize("form", ["sampled", "closed_form"])
def test_results_do_not_depend_on_the_batch(fake, layer, form):
    frozen = fake(*layer(12, 90))
    whole = MCDropout(frozen, passes=50, form=form)(Batch(images(7)))
    one_by_one = MCDropout(frozen, passes=50, form=form)
    alone = [one_by_one(Batch(image[None])) for image in images(7)[::-1]][::-1]
    np.testing.assert_allclose(
        whole.sigma_sq, np.concatenate([part.sigma_sq for part in alone]), rtol=1e-5
    )
    np.testing.assert_allclose(whole.mu, np.concatenate([p.mu for p in alone]), rtol=1e-5)


def test_memory_limits_do_not_change_results(fake, layer, monkeypatch):
    frozen = fake(*layer(12, 90))
    plain = MCDropout(frozen, passes=50)(Batch(images(7)))
    monkeypatch.setattr("models.dropout._ROWS", {"cpu": 20})
    monkeypatch.setattr("estimators.mc_dropout._HELD", 50 * 12 * 3)
    np.testing.assert_allclose(
        MCDropout(frozen, passes=50)(Batch(images(7))).sigma_sq, plain.sigma_sq, rtol=1e-5
    )


def test_a_seed_fixes_the_result_and_another_changes_it(fake, layer):
    frozen = fake(*layer(12, 90))
    runs = [
        MCDropout(frozen, passes=20, seed=seed)(Batch(images(4))).sigma_sq for seed in (5, 5, 6)
    ]
    assert np.array_equal(runs[0], runs[1])
    assert not np.any(runs[0] == runs[2])


def test_global_random_state_is_neither_used_nor_moved(fake, layer):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    MCDropout(fake(*layer(12, 90)), passes=20)(Batch(images(2)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("form", ["sampled", "closed_form"])
def test_estimate_is_the_backbones_embedding_and_one_float_per_image(fake, layer, form):
    frozen = fake(*layer(12, 90))
    frozen.backbone.weight.requires_grad_()
    estimate = MCDropout(frozen, passes=4, form=form)(Batch(images(3)))
    assert isinstance(estimate, Estimate)
    with torch.no_grad():
        expected = frozen(torch.from_numpy(images(3))).embedding.numpy()
    np.testing.assert_array_equal(estimate.mu, expected)
    assert estimate.sigma_sq.shape == (3, 1)
    assert estimate.mu.dtype == estimate.sigma_sq.dtype == np.float32


def test_no_graph_is_built(fake, layer):
    frozen = fake(*layer(12, 90))
    frozen.backbone.weight.requires_grad_()
    for form in ("sampled", "closed_form"):
        spread = MCDropout(frozen, passes=4, form=form).spread(torch.ones(2, 90))
        assert not spread.requires_grad


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


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rate": 0.0}, r"rate = 0\.0: the share of dropped features must lie inside \(0, 1\)"),
        ({"rate": 1.0}, r"rate = 1\.0"),
        ({"rate": math.nan}, "rate = nan"),
        ({"passes": 1}, "passes = 1: a spread needs at least 2 passes"),
        ({"form": "exact"}, "form = 'exact': must be one of sampled, closed_form"),
    ],
)
def test_options_out_of_range_are_refused(fake, layer, options, text):
    with pytest.raises(ValueError, match=text):
        MCDropout(fake(*layer(4, 6)), **options)

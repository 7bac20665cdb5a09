import functools
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from estimators.mc_dropout import cosine_std
from mc_dropout import closed_form
from mc_dropout.closed_form import DropoutSpread


def drawn(features, weight, bias, rate, passes, seed=11):
    """Spread of many passes, masks of its own for each image.

    The seed is not one that made a weight: the same stream would tie masks to weights.
    """
    generator = torch.Generator().manual_seed(seed)
    spreads = []
    for row in features:
        keep = torch.rand(passes, len(row), generator=generator) >= rate
        spreads.append(cosine_std((keep * row / (1 - rate) @ weight.T + bias)[None]))
    return torch.cat(spreads).numpy()


def rows(count, size, tail, seed=1):
    """Features of various strength; a heavy tail puts most of a row into few of them."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, size, generator=generator).abs().pow(tail)
    return features / features.norm(dim=1, keepdim=True) * torch.linspace(0.3, 6, count)[:, None]


# Measured over 40 rows, 4000 passes, exact: median / largest error, Spearman
#   tail 1 (266 features carry a row)  1.4 % /  4 %, .993
#   tail 2 (73 features)               1.2 % /  4 %, .997
#   tail 3 (27 features)               2.3 % / 22 %, .985: too few for the first order
@pytest.mark.parametrize(
    ("tail", "typical", "worst", "rank"),
    [(1, 0.025, 0.08, 0.99), (2, 0.025, 0.08, 0.99), (3, 0.04, 0.35, 0.97)],
)
@pytest.mark.parametrize("probes", [None, 256])
def test_agrees_with_many_passes(many_passes, monkeypatch, tail, typical, worst, rank, probes):
    if probes is not None:
        monkeypatch.setattr(closed_form, "_GRAM_COLUMNS", 0)
    features, weight, bias, reference = many_passes(tail)
    found = DropoutSpread(weight, bias, 0.5, probes=probes)(features).numpy()
    error = np.abs(found / reference - 1)
    assert np.median(error) < typical
    assert error.max() < worst
    assert spearmanr(found, reference).statistic >= rank


@pytest.fixture(scope="module")
def many_passes(layer):
    @functools.cache
    def many_passes(tail):
        weight, bias = layer(64, 800)
        features = rows(24, 800, tail)
        return features, weight, bias, drawn(features, weight, bias, 0.5, 4000)

    return many_passes


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
def test_other_rates_agree_too(layer, rate):
    weight, bias = layer(32, 400)
    features = rows(12, 400, 1)
    reference = drawn(features, weight, bias, rate, 4000)
    found = DropoutSpread(weight, bias, rate, probes=None)(features).numpy()
    assert np.abs(found / reference - 1).max() < 0.08


@pytest.mark.parametrize("size", [16, 512])
def test_agrees_with_the_original_where_noise_has_many_sources(tiny, size):
    layer = tiny.layer(size)
    found = DropoutSpread(layer.weight, layer.bias, 0.5, probes=None)(tiny.features).numpy()
    error = np.abs(found / layer.std - 1)
    many = [0, 1, 2, 3, 4, 6]  # row 5 is sparse and row 7 has two features
    assert error[many].max() < {16: 0.08, 512: 0.035}[size]


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_moments_are_exact_over_all_masks(rate):
    """Six features have 64 masks: sum over them instead of drawing."""
    generator = torch.Generator().manual_seed(4)
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    features = torch.randn(1, 6, generator=generator)
    masks = torch.tensor(list(product([0.0, 1.0], repeat=6)))
    chance = (rate ** (1 - masks) * (1 - rate) ** masks).prod(1)
    passes = (features * masks / (1 - rate)) @ weight.T + bias
    mean = chance @ passes
    u = mean / mean.norm()
    a = (passes - mean) @ u
    r = passes.square().sum(1) - (passes @ u).square()
    t = chance @ r
    var_a, var_r, cov = chance @ a**2, chance @ (r - t) ** 2, chance @ (a * (r - t))
    n = mean.norm()
    c = (n**2 + t) ** 1.5
    expected = torch.sqrt((t / c) ** 2 * var_a + (n / (2 * c)) ** 2 * var_r - t * n / c**2 * cov)
    found = DropoutSpread(weight, bias, rate, probes=None)(features)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_parallel_columns_change_nothing(layer, rate):
    """Groups of 3 features against the same features in an order that has no groups."""
    columns, bias = layer(8, 40)
    factors = torch.randn(40, 3, generator=torch.Generator().manual_seed(2))
    weight = (columns[:, :, None] * factors).flatten(1)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    features = rows(5, 120, 1)
    merged = DropoutSpread(weight, bias, rate)
    plain = DropoutSpread(weight[:, order], bias, rate)
    assert merged._weight.shape == (8, 40)
    assert plain._weight.shape == (8, 120)
    torch.testing.assert_close(merged(features), plain(features[:, order]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("tail", [1, 2, 3])
def test_directions_come_near_the_exact_trace(layer, monkeypatch, tail):
    weight, bias = layer(64, 800)
    features = rows(24, 800, tail)
    exact = DropoutSpread(weight, bias, probes=None)(features)
    monkeypatch.setattr(closed_form, "_GRAM_COLUMNS", 0)
    found = DropoutSpread(weight, bias, probes=128)(features)
    error = (found / exact - 1).abs()
    assert error.median() < 0.01
    assert error.max() < 0.05


def test_blocks_of_rows_do_not_matter(layer, monkeypatch):
    spread = DropoutSpread(*layer(12, 90))
    features = rows(9, 90, 1)
    whole = spread(features)
    monkeypatch.setattr(closed_form, "rows_at_once", lambda device: 2)
    torch.testing.assert_close(spread(features), whole)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_of_the_layer_does_not_matter(layer, scale):
    weight, bias = layer(5, 300)
    features = rows(4, 300, 1)
    plain = DropoutSpread(weight, bias, 0.5)(features)
    scaled = DropoutSpread(weight * scale, bias * scale, 0.5)(features)
    torch.testing.assert_close(scaled, plain, rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rate": 1.5}, r"rate = 1\.5: the share of dropped features must lie inside \(0, 1\)"),
        ({"probes": 0}, "probes = 0: must be at least 1, or None for the exact trace"),
        ({"bias": torch.zeros(4)}, r"shapes \(5, 30\) and \(4,\); expected \(D, F\) and \(D,\)"),
        ({"features": torch.zeros(2, 31)}, r"shape \(2, 31\); expected \(B, 30\)"),
    ],
)
def test_wrong_input_is_refused(layer, change, text):
    weight, bias = layer(5, 30)
    arguments = {"weight": weight, "bias": bias} | change
    features = arguments.pop("features", torch.zeros(2, 30))
    with pytest.raises(ValueError, match=text):
        DropoutSpread(**arguments)(features)


@pytest.mark.gpu
@pytest.mark.parametrize("probes", [None, 64])
@pytest.mark.parametrize("limit", [0, 2048])
def test_on_cuda_the_values_are_the_same_and_nothing_waits(
    layer, monkeypatch, no_waiting, probes, limit
):
    monkeypatch.setattr(closed_form, "_GRAM_COLUMNS", limit)
    weight, bias = layer(16, 300)
    features = rows(9, 300, 2)
    expected = DropoutSpread(weight, bias, 0.3, probes=probes)(features)
    spread = DropoutSpread(weight.cuda(), bias.cuda(), 0.3, probes=probes)
    features = features.cuda()
    spread(features)
    with no_waiting():
        found = spread(features)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=0)

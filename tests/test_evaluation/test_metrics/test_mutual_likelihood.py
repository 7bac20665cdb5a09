import math

import numpy as np
import pytest
import torch

from evaluation.metrics import comparisons as scoring
from evaluation.metrics.comparisons import Comparisons, mls_scores, rescored
from losses.fast_mls import FastMLSLoss
from losses.mls import MLSLoss

D = 24


def drawn(columns, seed=0):
    rng = np.random.default_rng(seed)
    mu = rng.normal(size=(30, D)).astype(np.float32) * rng.uniform(0.5, 3, (30, 1))
    sigma_sq = np.exp(rng.normal(-3, 1, (30, columns)))
    pairs = rng.integers(0, 30, (200, 2)).astype(np.int32)
    return mu.astype(np.float32), sigma_sq.astype(np.float32), pairs


def by_definition(mu, sigma_sq, a, b):
    """log of the normal density of the gap of two embeddings, summed in a loop."""
    first, second = (mu[row].astype(np.float64) for row in (a, b))
    first, second = first / math.hypot(*first), second / math.hypot(*second)
    total = 0.0
    for dim in range(D):
        variance = float(sigma_sq[a, dim]) + float(sigma_sq[b, dim])
        gap = first[dim] - second[dim]
        total += -0.5 * (gap * gap / variance + math.log(variance) + math.log(2 * math.pi))
    return total


def test_a_variance_for_each_dimension_is_a_float64_loop(monkeypatch):
    mu, sigma_sq, pairs = drawn(D)
    expected = [by_definition(mu, sigma_sq, a, b) for a, b in pairs]
    found = mls_scores(mu, sigma_sq, pairs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    monkeypatch.setattr(scoring, "NUMBERS_AT_ONCE", 7 * D)
    np.testing.assert_array_equal(mls_scores(mu, sigma_sq, pairs), found)


def test_one_variance_is_shared_out_over_the_dimensions():
    mu, sigma_sq, pairs = drawn(1)
    each = np.repeat(sigma_sq / D, D, axis=1)
    expected = [by_definition(mu, each, a, b) - D / 2 * math.log(D) for a, b in pairs]
    np.testing.assert_allclose(mls_scores(mu, sigma_sq, pairs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("loss", "columns", "factor"),
    [(MLSLoss(reduce="sum"), D, 1), (MLSLoss(), D, D), (FastMLSLoss(), 1, D)],
    ids=["mls-sum", "mls-mean", "fast_mls"],
)
def test_a_loss_is_the_negative_score_without_half_and_constant(loss, columns, factor):
    mu, sigma_sq, pairs = drawn(columns)
    scores = mls_scores(mu, sigma_sq, pairs)
    for (a, b), score in zip(pairs[:20], scores, strict=False):
        rows = [int(a), int(b)]
        value = loss(
            torch.nn.functional.normalize(torch.from_numpy(mu[rows])),
            torch.from_numpy(sigma_sq[rows]).log(),
            torch.zeros(2, dtype=torch.int64),
        ).loss.item()
        log_likelihood = -(value * factor + D * math.log(2 * math.pi)) / 2
        assert score == pytest.approx(log_likelihood, rel=1e-5)


def test_likelihood_is_highest_where_the_variance_is_the_squared_distance():
    mu = np.array([[1, 0], [0, 1]], np.float32)  # squared distance 2
    pair = np.array([[0, 1]])
    scores = [
        float(mls_scores(mu, np.full((2, 1), s, np.float32), pair)[0]) for s in (0.7, 1.0, 1.4)
    ]
    assert scores[1] > max(scores[0], scores[2])
    assert scores[1] == pytest.approx(-1 - math.log(2) - math.log(2 * math.pi))


@pytest.mark.parametrize(
    ("sigma_sq", "words"),
    [
        (np.ones((30, 2)), r"one for each of the 24 embedding dimensions, got .* \(30, 2\)"),
        (np.where(np.arange(30) == 4, -2.5, 1.0)[:, None], r"1 of 30 .*row 4: -2.5.* not a var"),
        (np.full((30, 1), np.nan), "30 of 30 images have others"),
    ],
    ids=["columns", "negative", "nan"],
)
def test_uncertainties_that_are_no_variances(sigma_sq, words):
    mu, _, pairs = drawn(1)
    with pytest.raises(ValueError, match=f"the mutual likelihood score needs .*{words}"):
        mls_scores(mu, sigma_sq.astype(np.float32), pairs)


def comparisons_of(pairs, **options):
    return Comparisons(
        "some",
        np.zeros(len(pairs), np.float32),
        np.arange(len(pairs)) % 2 == 0,
        pairs,
        np.ones(30, np.float32),
        **options,
    )


def test_comparisons_scored_again():
    mu, sigma_sq, pairs = drawn(1)
    before = comparisons_of(pairs, identity=np.arange(30))
    after = rescored(before, mu, sigma_sq)
    np.testing.assert_array_equal(after.scores, mls_scores(mu, sigma_sq, pairs))
    assert after.pairs is before.pairs
    assert after.identity is before.identity
    with pytest.raises(ValueError, match="some: 29 embeddings for 30 images"):
        rescored(before, mu[1:], sigma_sq[1:])
    with pytest.raises(ValueError, match="some: the mutual likelihood score needs variances above"):
        rescored(before, mu, -sigma_sq)
    with pytest.raises(ValueError, match=r"some: 7 non-mated .* sample .*--non_mated COUNT"):
        rescored(comparisons_of(pairs, unlisted=7, listed_from=0.2), mu, sigma_sq)

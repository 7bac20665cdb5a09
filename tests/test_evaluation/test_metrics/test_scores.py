import numpy as np
import pytest

from evaluation.metrics.comparisons import (
    VALUES_AT_ONCE,
    cosine_of_pairs,
    fuse_sides,
    image_uncertainties,
)


@pytest.mark.parametrize("name", ["C", "D", "H", "J"])
def test_cosines_equal_the_original_to_the_last_digit(name, golden_features, golden_scores):
    scores = cosine_of_pairs(golden_features[name].mu)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, golden_scores[name])


def test_cosine_is_that_of_float64_up_to_rounding_and_ignores_length():
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(40, 7))
    first, second = mu[::2], mu[1::2]
    exact = [a @ b / np.sqrt(a @ a * (b @ b)) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(cosine_of_pairs(mu), exact, atol=3e-7)
    np.testing.assert_allclose(cosine_of_pairs(mu * 1000), exact, atol=3e-7)


def test_blocks_do_not_change_the_cosines():
    mu = np.random.default_rng(1).normal(size=(VALUES_AT_ONCE + 6, 2)).astype(np.float32)
    scores = cosine_of_pairs(mu)
    np.testing.assert_array_equal(scores[-3:], cosine_of_pairs(mu[-6:]))
    np.testing.assert_array_equal(scores[:3], cosine_of_pairs(mu[:6]))


def test_one_column_is_itself():
    sigma = np.arange(4, dtype=np.float32)[:, None]
    (only,) = image_uncertainties(sigma)
    assert only.label == ""
    np.testing.assert_array_equal(only.values, [0, 1, 2, 3])


def test_exactly_two_columns_are_two_uncertainties_whatever_the_sizes():
    sigma = np.arange(8, dtype=np.float32).reshape(4, 2)
    for sizes in (None, (2,), (1, 1)):
        first, second = image_uncertainties(sigma, sizes)
        assert (first.label, second.label) == ("column 0", "column 1")
        np.testing.assert_array_equal(first.values, sigma[:, 0])
        np.testing.assert_array_equal(second.values, sigma[:, 1])


def test_more_columns_are_one_harmonic_mean():
    sigma = np.random.default_rng(0).uniform(1, 2, (6, 3)).astype(np.float32)
    (only,) = image_uncertainties(sigma)
    np.testing.assert_allclose(only.values, 3 / (1 / sigma).sum(axis=1), rtol=1e-5)


def test_sizes_cut_blocks():
    sigma = np.random.default_rng(0).uniform(1, 2, (6, 4)).astype(np.float32)
    block, single = image_uncertainties(sigma, (3, 1))
    assert (block.label, single.label) == ("columns 0-2", "column 3")
    np.testing.assert_allclose(block.values, 3 / (1 / sigma[:, :3]).sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(single.values, sigma[:, 3])


@pytest.mark.parametrize("sizes", [(8, 1), (4, 0), ()])
def test_sizes_that_do_not_fit_are_refused(sizes):
    with pytest.raises(ValueError, match=r"add up to the 4 columns of sigma_sq"):
        image_uncertainties(np.ones((2, 4), np.float32), sizes)


def test_fuse():
    first, second = np.float32([1, 4]), np.float32([5, 2])
    np.testing.assert_array_equal(fuse_sides(first, second, "max"), [5, 4])
    np.testing.assert_array_equal(fuse_sides(first, second, "sum"), [6, 6])
    with pytest.raises(ValueError, match=r"unknown fuse 'add' \(known: max, mean, sum, product\)"):
        fuse_sides(first, second, "add")

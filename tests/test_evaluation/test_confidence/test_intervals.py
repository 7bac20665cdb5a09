import numpy as np
import pytest
from scipy.stats import binom, binomtest

from evaluation.confidence.intervals import clopper_pearson


@pytest.mark.parametrize(
    ("errors", "total", "confidence"),
    [(0, 10, 0.95), (10, 10, 0.95), (3, 20, 0.9), (64, 3500, 0.95), (1, 1, 0.5), (7, 10**6, 0.99)],
)
def test_ends_are_those_of_scipy(errors, total, confidence):
    expected = binomtest(errors, total).proportion_ci(confidence, method="exact")
    np.testing.assert_allclose(
        clopper_pearson(errors, total, confidence), (expected.low, expected.high), rtol=1e-6
    )


def test_the_published_example():
    low, high = clopper_pearson(64, 3500)
    assert (round(low, 4), round(high, 4)) == (0.0141, 0.0233)


def test_each_end_is_where_the_tail_has_half_of_the_error_probability():
    low, high = clopper_pearson(5, 80, 0.9)
    np.testing.assert_allclose(binom.sf(4, 80, low), 0.05)
    np.testing.assert_allclose(binom.cdf(5, 80, high), 0.05)


def test_without_trials_nothing_is_known():
    assert clopper_pearson(0, 0) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 2), r"3 errors in 2 trials: need 0 <= errors <= total"),
        ((-1, 2), r"-1 errors in 2 trials"),
        ((1, 2, 95), r"confidence 95 must lie between 0 and 1, as in 0\.95"),
    ],
)
def test_impossible_counts(arguments, message):
    with pytest.raises(ValueError, match=message):
        clopper_pearson(*arguments)

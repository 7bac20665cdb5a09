import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.metrics.error_rates import error_rates
from evaluation.metrics.thresholds import tar_at_far

TARGETS = (0, 1e-3, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1)
SCORES = st.lists(st.integers(0, 12), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(SCORES, SCORES)
def test_points_are_those_of_the_counts_at_every_threshold(mated, non_mated):
    scores = np.array(mated + non_mated, np.float32) / 7
    labels = np.arange(len(scores)) < len(mated)
    rates = error_rates(scores, labels)
    for row in tar_at_far(scores, labels, TARGETS):
        assert row.point == rates.at_nearest_fmr(row.target)
    for row in tar_at_far(scores, labels, TARGETS, rule="conservative"):
        expected = rates.at_conservative_fmr(row.target)
        assert row.point[1:] == expected[1:]
        assert row.point.threshold == pytest.approx(expected.threshold, rel=1e-6)


def test_counts_in_words():
    scores = np.concatenate([np.linspace(0, 1, 1001), [0.3, 0.9895, 2]]).astype(np.float32)
    labels = np.arange(1004) > 1000
    (row,) = tar_at_far(scores, labels, [1e-2])
    assert (row.target, row.matches, row.point.mated) == (1e-2, 1, 3)
    assert row.tar == pytest.approx(1 / 3)
    assert (row.point.false_matches, row.point.non_mated) == (10, 1001)
    assert row.point.threshold == np.float32(0.991)
    assert row.caution is None


def test_warning_where_fewer_than_five_false_matches_are_expected():
    scores = np.linspace(0, 1, 5001, dtype=np.float32)
    labels = np.arange(5001) == 4000
    few, enough = tar_at_far(scores, labels, [9e-4, 1e-3])
    assert enough.caution is None
    assert few.caution.facts == {"fmr": 9e-4, "non_mated": 5000, "expected": pytest.approx(4.5)}


@pytest.mark.parametrize(
    ("scores", "mated", "options", "words"),
    [
        ([0.1, 0.2], [1, 1], {}, "comparisons of both kinds, got 2 mated and 0 non-mated"),
        ([0.1, 0.2], [0, 0], {}, "got 0 mated and 2 non-mated"),
        ([0.1, np.nan], [1, 0], {}, "1 of 2 scores are NaN"),
        ([0.1, 0.2], [1, 0], {"targets": [1.5]}, "target FMR 1.5: must be within 0 to 1"),
        ([0.1, 0.2], [1, 0], {"rule": "eer"}, "unknown threshold rule 'eer'"),
    ],
)
def test_what_has_no_tar(scores, mated, options, words):
    with pytest.raises(ValueError, match=words):
        tar_at_far(np.array(scores, np.float32), np.array(mated, bool), **options)

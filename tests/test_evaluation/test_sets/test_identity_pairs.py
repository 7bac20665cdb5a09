import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.sets.identity_pairs import relative_edc, threshold_at_fmr


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_threshold_is_the_lowest_that_keeps_the_false_match_rate(drawn, fmr):
    scores = np.array(drawn, np.float32)
    threshold = threshold_at_fmr(scores, fmr)
    assert (scores >= threshold).mean() <= fmr + 1e-9
    lower = np.nextafter(np.float32(threshold), np.float32(-np.inf))
    assert (scores >= lower).mean() > fmr - 1e-9


def test_threshold_at_a_thousandth_of_many():
    scores = np.random.default_rng(0).permutation(30_000).astype(np.float32)
    assert (scores >= threshold_at_fmr(scores, 1e-3)).sum() == 30
    with pytest.raises(ValueError, match="FMR 0 over 30000 non-mated pairs is undefined"):
        threshold_at_fmr(scores, 0)


NON_MATED = np.linspace(0, 0.5, 1000, dtype=np.float32)  # FMR 1e-2 lies a little below .5


def some_pairs(pairs, error):
    wrong = np.arange(pairs) < pairs * error
    return np.where(wrong, 0.1, 0.9).astype(np.float32), wrong


def test_constant_uncertainty_is_random_discard():
    scores, _ = some_pairs(1000, 0.03)
    found = relative_edc(scores, np.ones(1000, np.float32), NON_MATED, 1e-2)
    assert found.auerc30 == pytest.approx(1.0)
    assert found.fnmr == pytest.approx([0.03] * 5)
    assert found.point.false_non_matches == 30
    assert found.point.false_matches == 10


@pytest.mark.parametrize("error", [0.02, 0.2, 0.6])
def test_perfect_uncertainty_has_the_closed_form_area(error):
    scores, wrong = some_pairs(50_000, error)
    found = relative_edc(scores, wrong.astype(np.float32), NON_MATED, 1e-2)
    limit = min(error, 0.3)
    area = limit + (1 - error) * math.log(1 - limit)
    assert found.auerc30 == pytest.approx(area / (0.3 * error), rel=2e-3)
    assert found.optimum == pytest.approx(found.auerc30, rel=1e-4)
    for share, value in zip((0, 0.05, 0.1, 0.2, 0.3), found.fnmr, strict=True):
        assert value == pytest.approx(max(error - share, 0) / (1 - share), abs=1e-4)


def test_relative_edc_equals_brute_force():
    rng = np.random.default_rng(5)
    scores = rng.uniform(0.3, 1, 41).astype(np.float32)
    uncertainty = rng.permutation(41).astype(np.float32)
    found = relative_edc(scores, uncertainty, NON_MATED, 1e-2)
    order = np.argsort(-uncertainty)
    wrong = scores[order] < found.point.threshold
    curve = [wrong[discarded:].mean() for discarded in range(41)]
    area = sum(
        value * (min(0.3, (step + 1) / 41) - min(0.3, step / 41))
        for step, value in enumerate(curve)
    )
    assert found.auerc30 == pytest.approx(area / (0.3 * wrong.mean()))
    assert found.fnmr == pytest.approx([curve[0], curve[2], curve[4], curve[8], curve[12]])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_order_monotone_maps_and_duplicates_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.2, 1, 30).astype(np.float32)
    scores[0] = 0.0
    uncertainty = rng.integers(0, 6, 30).astype(np.float32)
    order = rng.permutation(30)
    first = relative_edc(scores, uncertainty, NON_MATED, 1e-2)
    second = relative_edc(scores[order], np.exp(uncertainty[order]), NON_MATED, 1e-2)
    assert first.auerc30 == pytest.approx(second.auerc30)
    assert first.fnmr == pytest.approx(second.fnmr)
    assert first.optimum <= first.auerc30 + 1e-12
    # a step of one pair against a gradual one: half a step of at most e, or .5 / 30 / .3
    untied = uncertainty + rng.random(30).astype(np.float32) / 4
    many = relative_edc(np.repeat(scores, 200), np.repeat(untied, 200), NON_MATED, 1e-2)
    assert many.auerc30 == pytest.approx(
        relative_edc(scores, untied, NON_MATED, 1e-2).auerc30, abs=0.06
    )


def test_no_false_non_match_has_no_ratio():
    found = relative_edc(np.ones(20, np.float32), np.ones(20, np.float32), NON_MATED, 1e-2)
    assert math.isnan(found.auerc30)
    assert found.fnmr == (0.0,) * 5


def test_unsound_input_is_refused():
    ones = np.ones(3, np.float32)
    with pytest.raises(ValueError, match=r"\(3,\) scores for \(2,\) uncertainties"):
        relative_edc(ones, ones[:2], NON_MATED, 1e-2)
    with pytest.raises(ValueError, match="1 of 3 uncertainties are NaN"):
        relative_edc(ones, np.array([1, np.nan, 1], np.float32), NON_MATED, 1e-2)
    with pytest.raises(ValueError, match="over 0 non-mated pairs is undefined"):
        relative_edc(ones, ones, NON_MATED[:0], 1e-2)

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.metrics.edc import areas, fixed_threshold_edc, optimum, recomputed_threshold_edc
from evaluation.metrics.error_rates import OperatingPoint, error_rates
from evaluation.metrics.kept import GRID, SHOWN, count_below, kept_sets, percentiles
from evaluation.metrics.kept_rates import equal_error_rates_of_kept, rates_of_kept
from evaluation.metrics.scores import fuse_pairs, image_uncertainties

CASES = [(name, block) for name in "CDJ" for block in (0,)] + [("H", 0), ("H", 1)]


@pytest.mark.parametrize("variant", ["fnmr_fixed", "mcdropout_max", "mcdropout_add"])
@pytest.mark.parametrize(("name", "block"), CASES)
def test_all_points_equal_the_original(
    name, block, variant, golden_features, golden_scores, golden_numbers
):
    scores, mated = golden_scores[name], golden_features[name].issame
    values = image_uncertainties(golden_features[name].sigma_sq)[block].values
    kept = kept_sets(fuse_pairs(values, "sum" if variant.endswith("add") else "max"))
    rates = rates_of_kept(scores, mated, kept, range(100))

    def expected(column):
        return golden_numbers[f"{name}/{variant}/{column}"][100 * block : 100 * block + 100]

    np.testing.assert_array_equal(kept.counts(), expected("keep"))
    np.testing.assert_array_equal(kept.thresholds, expected("risk_threshold"))
    np.testing.assert_array_equal([one.equal_error_rate().value for one in rates], expected("eer"))
    for column, target in (("fmr100", 1e-2), ("fmr1000", 1e-3)):
        curve = recomputed_threshold_edc(rates, GRID, target)
        np.testing.assert_array_equal(curve.fnmr, expected(column))
        if variant == "fnmr_fixed":
            point = error_rates(scores, mated).at_nearest_fmr(target)
            curve = fixed_threshold_edc(scores, mated, kept, point, target)
            np.testing.assert_array_equal(curve.fnmr, expected(f"fixed_{column}"))
    found = areas(curve)
    for column, value in (
        ("AUERC", found.auerc),
        ("AUERC30", found.auerc30),
        ("AUC", found.auc),
        ("AUC30", found.auc30),
        ("fmr1000_mean", found.mean),
    ):
        assert value == golden_numbers[f"{name}/{variant}/{column}"][block], column


finite32 = st.floats(-100, 100, width=32)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.integers(1, 60), elements=finite32))
def test_percentiles_equal_numpy_bit_for_bit(values):
    asked = (1 - GRID) * 100
    expected = np.percentile(values, asked)
    np.testing.assert_array_equal(percentiles(np.sort(values), asked / 100), expected)


@pytest.mark.parametrize("size", [101, 201, 1001, 7001])
def test_percentiles_that_fall_on_samples_equal_numpy(size):
    """(N - 1) x is whole, so the last bit of the percentile decides whether a pair is kept."""
    values = np.random.default_rng(size).random(size).astype(np.float32)
    kept = kept_sets(values)
    for index, x in enumerate(GRID):
        threshold = np.percentile(values, (1 - x) * 100)
        assert kept.thresholds[index] == threshold
        assert kept.counts()[index] == int((values <= threshold).sum())


drawn_pairs = st.lists(
    st.tuples(st.integers(-5, 5), st.booleans(), st.integers(0, 6)), min_size=2, max_size=40
)


def brute_force(scores, mated, uncertainty, threshold):
    """The fixed-threshold curve from its definition, pair by pair."""
    curve = []
    for limit in np.percentile(uncertainty, (1 - GRID) * 100):
        rows = [row for row in range(len(scores)) if uncertainty[row] <= limit]
        candidates = sorted({float(scores[row]) for row in rows})
        nearest = min(candidates, key=lambda score: (abs(score - threshold), score))
        genuine = [row for row in rows if mated[row]]
        misses = sum(float(scores[row]) < nearest for row in genuine)
        curve.append(misses / len(genuine) if genuine else (curve[-1] if curve else 0.0))
    return curve


@settings(max_examples=40, deadline=None)
@given(drawn_pairs)
def test_fixed_threshold_curve_equals_brute_force(drawn):
    scores, mated, uncertainty = (np.array(column) for column in zip(*drawn, strict=True))
    scores, uncertainty = scores.astype(np.float32) / 3, uncertainty.astype(np.float32) / 7
    point = error_rates(scores, mated).at_nearest_fmr(1e-2)
    curve = fixed_threshold_edc(scores, mated, kept_sets(uncertainty), point, 1e-2)
    assert curve.fnmr.tolist() == brute_force(scores, mated, uncertainty, point.threshold)


@settings(max_examples=20, deadline=None)
@given(drawn_pairs)
def test_recomputed_rates_are_those_of_the_kept_pairs_alone(drawn):
    scores, mated, uncertainty = (np.array(column) for column in zip(*drawn, strict=True))
    scores, uncertainty = scores.astype(np.float32), uncertainty.astype(np.float32)
    kept = kept_sets(uncertainty)
    for index, rates in enumerate(rates_of_kept(scores, mated, kept, range(100))):
        rows = kept.rows(index)
        alone = error_rates(scores[rows], mated[rows])
        np.testing.assert_array_equal(rates.thresholds, alone.thresholds)
        np.testing.assert_array_equal(rates.false_non_matches, alone.false_non_matches)
        np.testing.assert_array_equal(rates.false_matches, alone.false_matches)


@settings(max_examples=60, deadline=None)
@given(drawn_pairs, st.randoms(use_true_random=False))
def test_order_of_pairs_and_scale_of_scores_leave_the_curve_alone(drawn, random):
    def curve(rows):
        scores, mated, uncertainty = (np.array(column) for column in zip(*rows, strict=True))
        scores = scores.astype(np.float32)
        point = error_rates(scores, mated).at_nearest_fmr(1e-1)
        kept = kept_sets(uncertainty.astype(np.float32))
        return fixed_threshold_edc(scores, mated, kept, point, 1e-1).fnmr.tolist()

    expected = curve(drawn)
    assert curve(random.sample(drawn, len(drawn))) == expected
    # doubling is a monotone map that keeps "nearest" what it was
    assert curve([(2 * score, mated, value) for score, mated, value in drawn]) == expected


def test_a_quirk_reading_at_the_nearest_kept_score_can_be_one_pair_low():
    scores = np.array([0.50, 0.49, 0.2, 0.8, 0.1, 0.7], np.float32)
    mated = np.array([False, True, False, True, False, True])
    uncertainty = np.array([9, 1, 1, 1, 1, 1], np.float32)
    point = OperatingPoint(float(np.float32(0.5)), 1, 3, 1, 3)
    kept = kept_sets(uncertainty, np.array([0.0, 0.5]))
    curve = fixed_threshold_edc(scores, mated, kept, point, 1e-3)
    assert curve.false_non_matches.tolist() == [1, 0]  # .49 < .5, but .49 is read at itself
    assert curve.score_threshold[1] == np.float32(0.49)


def test_ties_keep_more_than_was_asked_for():
    kept = kept_sets(np.array([1, 1, 1, 2], np.float32), np.array([0.0, 0.5]))
    assert kept.counts().tolist() == [4, 3]


def test_constant_uncertainty_never_discards():
    assert set(kept_sets(np.full(37, 0.3, np.float32)).counts()) == {37}


def best_case(pairs, mated_share, error):
    """Mated pairs first; false non-matches are the most uncertain pairs."""
    mated = np.arange(pairs) < pairs * mated_share
    wrong = np.arange(pairs) < pairs * mated_share * error
    scores = np.where(mated & ~wrong, 0.9, 0.1).astype(np.float32)
    scores += np.linspace(0, 1e-3, pairs, dtype=np.float32)
    uncertainty = wrong + np.linspace(0, 1e-3, pairs)
    return scores, mated, uncertainty.astype(np.float32)


def test_the_optimum_is_the_curve_of_a_perfect_uncertainty_and_has_the_closed_area():
    share, error = 0.5, 0.1
    scores, mated, uncertainty = best_case(20_000, share, error)
    point = OperatingPoint(0.5, 1000, 10_000, 0, 10_000)
    kept = kept_sets(uncertainty)
    curve = fixed_threshold_edc(scores, mated, kept, point, 1e-3)
    np.testing.assert_allclose(curve.fnmr, optimum(curve, GRID), atol=2e-4)
    assert curve.fnmr[5] < 1e-3  # zero from x = share * error = .05 on
    fine = np.linspace(0, 0.99, 99_001)
    area = np.trapezoid(optimum(curve, fine), fine)
    assert area == pytest.approx(share * (error + (1 - error) * math.log(1 - error)), rel=1e-4)


def test_random_discard_keeps_the_error():
    rng = np.random.default_rng(0)
    mated = np.ones(200_000, bool)
    scores = np.where(rng.random(200_000) < 0.1, 0.1, 0.9).astype(np.float32)
    point = OperatingPoint(0.9, 0, 0, 0, 0)
    curve = fixed_threshold_edc(scores, mated, kept_sets(rng.random(200_000)), point, 1e-3)
    np.testing.assert_allclose(curve.fnmr[:90], 0.1, atol=0.01)


def test_areas_by_hand():
    point = OperatingPoint(float(np.float32(0.9)), 1, 2, 0, 0)
    scores, kept = np.array([0.1, 0.9], np.float32), kept_sets(np.ones(2, np.float32))
    found = areas(fixed_threshold_edc(scores, np.ones(2, bool), kept, point, 1e-3))
    assert found.auerc == pytest.approx(0.5 * 0.99)
    assert found.auerc30 == pytest.approx(0.5 * 0.29)
    assert found.auc == pytest.approx(0.5 * 0.99 - 0.5**2 / 2)
    assert found.auc30 == pytest.approx(0.5 * 0.29 - 0.5 * 0.3 / 2)
    assert found.mean == 0.5


def test_no_mated_pair_left_holds_the_last_value():
    scores = np.array([0.9, 0.1, 0.2, 0.3], np.float32)
    mated = np.array([True, True, False, False])
    uncertainty = np.array([3, 4, 1, 2], np.float32)
    kept = kept_sets(uncertainty, np.array([0.0, 0.3, 0.6]))
    point = OperatingPoint(float(np.float32(0.2)), 1, 2, 2, 2)
    curve = fixed_threshold_edc(scores, mated, kept, point, 1e-3)
    assert curve.mated.tolist() == [2, 1, 0]
    assert curve.fnmr.tolist() == [0.5, 0.0, 0.0]
    rates = rates_of_kept(scores, mated, kept, range(3))
    assert rates[2].equal_error_rate().value == 1.0
    assert recomputed_threshold_edc(rates, kept.fractions, 1e-3).fnmr[2] == 0.0


def test_no_non_mated_pair_left_gives_zero_when_recomputed_and_goes_on_when_fixed():
    scores = np.array([0.5, 0.125, 0.25, 0.3125], np.float32)
    mated = np.array([True, True, False, False])
    uncertainty = np.array([1, 2, 3, 4], np.float32)
    kept = kept_sets(uncertainty, np.array([0.0, 0.6]))
    point = OperatingPoint(0.3125, 1, 2, 1, 2)
    rates = rates_of_kept(scores, mated, kept, range(2))
    assert recomputed_threshold_edc(rates, kept.fractions, 1e-3).fnmr[1] == 0.0
    curve = fixed_threshold_edc(scores, mated, kept, point, 1e-3)
    assert curve.non_mated.tolist() == [2, 0]
    assert curve.score_threshold[1] == 0.125  # .125 and .5 are equally near: the lower


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_eer_of_kept_pairs_is_that_of_all_their_thresholds(decimals):
    rng = np.random.default_rng(4)
    for _ in range(40):
        count = int(rng.integers(10, 600))
        scores = rng.normal(size=count).astype(np.float32)
        uncertainty = rng.random(count).astype(np.float32)
        if decimals is not None:
            scores, uncertainty = scores.round(decimals), uncertainty.round(decimals + 1)
        mated = rng.random(count) < rng.choice([0.02, 0.3, 0.9])
        kept = kept_sets(uncertainty)
        expected = [rates.equal_error_rate() for rates in rates_of_kept(scores, mated, kept, SHOWN)]
        assert equal_error_rates_of_kept(scores, mated, kept, SHOWN) == expected


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("decimals", [None, 2, 0])
def test_count_below_is_a_search(scale, decimals):
    rng = np.random.default_rng(5)
    for _ in range(30):
        values = (rng.standard_cauchy(500)).astype(np.float32)
        values = (values if decimals is None else values.round(decimals)) * np.float32(scale)
        bounds = np.unique(rng.choice(values, 20)).astype(np.float64)
        bounds = np.sort(np.concatenate([bounds, [bounds[0] - scale, bounds[-1] + scale, 0.1]]))
        np.testing.assert_array_equal(
            count_below(bounds, values), np.searchsorted(bounds, values.astype(np.float64))
        )


def test_fnmr_is_read_at_the_nearest_kept_score():
    rng = np.random.default_rng(6)
    for _ in range(40):
        count = int(rng.integers(10, 400))
        scores = rng.normal(size=count).astype(np.float32).round(int(rng.integers(1, 6)))
        mated, uncertainty = rng.random(count) < 0.5, rng.random(count).astype(np.float32)
        kept = kept_sets(uncertainty)
        point = error_rates(scores, mated).at_nearest_fmr(0.05)
        curve = fixed_threshold_edc(scores, mated, kept, point, 0.05)
        for place in range(0, 100, 9):
            rows = uncertainty <= kept.thresholds[place]
            left = np.sort(scores[rows].astype(np.float64))
            read_at = left[np.argmin(np.abs(left - point.threshold))]
            below = scores[rows] < read_at
            assert curve.score_threshold[place] == read_at
            assert curve.false_non_matches[place] == (below & mated[rows]).sum()
            assert curve.false_matches[place] == (~below & ~mated[rows]).sum()
            assert curve.mated[place] == mated[rows].sum()
            assert curve.non_mated[place] == (~mated[rows]).sum()

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from evaluation.metrics.thresholds import error_rates
from tests.test_evaluation.factories import point_of

POINTS = {"fmr0": 0.0, "fmr1000": 1e-3, "fmr100": 1e-2, "fmr20": 0.05, "fmr10": 0.1}


def scores_of(gen, imp):
    return np.array([*gen, *imp], np.float64), np.array([True] * len(gen) + [False] * len(imp))


def assert_equals_pyeer(scores, mated, stats):
    for name, target in POINTS.items():
        point = point_of(scores, mated, "nearest", target)
        assert (point.fnmr, point.threshold) == (stats[name], stats[f"{name}_th"]), name
    point = point_of(scores, mated, "starting_error", 0.0)
    assert point.threshold == stats["fnmr0_th"]
    assert point.fmr == stats["fnmr0"] or math.isnan(point.fmr)
    rates = error_rates(scores, mated)
    eer = rates.equal_error_rate()
    assert eer == (stats["eer"], stats["eer_low"], stats["eer_high"], stats["eer_th"])
    if "thrs_len" in stats:
        assert len(rates.thresholds) == stats["thrs_len"]
        assert rates.fnmr.sum() == pytest.approx(stats["sum_fnmr"], rel=1e-12)
        assert rates.fmr.sum() == pytest.approx(stats["sum_fmr"], rel=1e-12)


def drawn_share(scores, mated, share):
    """The part of the pairs that the reference drew for it."""
    if share == "1.0":
        return scores, mated
    rng = np.random.RandomState(5)  # noqa: NPY002
    rows = rng.choice(len(scores), int(len(scores) * float(share)), replace=False)
    return scores[rows], mated[rows]


@pytest.mark.parametrize("share", ["1.0", "0.5", "0.05"])
@pytest.mark.parametrize("name", ["C_ties6000_1col", "D_const600", "H_2col1200", "J_fewimpostors"])
def test_operating_points_equal_pyeer(name, share, golden_dir, golden_features, golden_scores):
    stats = json.loads((golden_dir / "pyeer_stats.json").read_text())[f"{name}/{share}"]
    scores, mated = golden_scores[name[0]], golden_features[name[0]].issame
    assert_equals_pyeer(*drawn_share(scores, mated, share), stats)


@pytest.mark.parametrize("name", ["ties", "perfect", "inverted", "one_imp", "imp_on_top", "no_imp"])
def test_hand_made_cases_equal_pyeer(name, golden_dir):
    stats = json.loads((golden_dir / "pyeer_stats.json").read_text())[f"hand/{name}"]
    scores, mated = scores_of(stats["gen"], stats["imp"])
    assert_equals_pyeer(scores, mated, stats)
    rates = error_rates(scores, mated)
    assert rates.thresholds.tolist() == stats["thrs"]
    assert rates.fnmr.tolist() == stats["fnmr"]
    expected = [math.nan if value == "nan" else value for value in stats["fmr"]]
    np.testing.assert_array_equal(rates.fmr, expected)


def test_drawn_cases_with_an_exact_midpoint_equal_pyeer(golden_dir):
    stats = json.loads((golden_dir / "pyeer_stats.json").read_text())
    rng = np.random.RandomState(0)  # noqa: NPY002  how the reference drew its scores
    for count in (500, 2500):
        scores, mated = scores_of(rng.normal(2, 1, 500), rng.normal(0, 1, count))
        assert_equals_pyeer(scores, mated, stats[f"hand/imp{count}"])


pairs = st.lists(st.tuples(st.integers(-6, 6), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_counts_equal_the_definition(drawn):
    gen = [score for score, mated in drawn if mated]
    imp = [score for score, mated in drawn if not mated]
    rates = error_rates(*scores_of(gen, imp))
    assert rates.thresholds.tolist() == sorted({score for score, _ in drawn})
    misses = [sum(score < threshold for score in gen) for threshold in rates.thresholds]
    matches = [sum(score >= threshold for score in imp) for threshold in rates.thresholds]
    assert (rates.false_non_matches.tolist(), rates.false_matches.tolist()) == (misses, matches)
    assert (rates.mated, rates.non_mated) == (len(gen), len(imp))


def test_rates_lie_on_the_roc_curve_of_scikit_learn():
    rng = np.random.default_rng(3)
    mated = rng.random(500) < 0.4
    scores = np.round(rng.normal(size=500) + mated, 2)
    rates = error_rates(scores, mated)
    fmr, tpr, thresholds = roc_curve(mated, scores, drop_intermediate=False)
    np.testing.assert_array_equal(rates.thresholds, thresholds[1:][::-1])
    np.testing.assert_allclose(rates.fmr, fmr[1:][::-1])
    np.testing.assert_allclose(1 - rates.fnmr, tpr[1:][::-1])


def test_one_class_missing_gives_eer_one():
    for gen, imp in (([], [0.1, 0.2]), ([0.1, 0.2], [])):
        assert error_rates(*scores_of(gen, imp)).equal_error_rate().value == 1.0


def test_unsound_scores_are_refused():
    with pytest.raises(ValueError, match=r"1 of 2 scores are NaN"):
        error_rates(np.array([0.1, math.nan]), np.array([True, False]))
    with pytest.raises(ValueError, match="need one label each"):
        error_rates(np.array([0.1]), np.array([True, False]))
    with pytest.raises(ValueError, match="need one label each"):
        error_rates(np.array([]), np.array([], bool))


def test_rates_that_never_meet_give_an_eer_of_one_at_the_lowest_score():
    scores = np.array([0.1, 0.9, 0.9], np.float32)
    found = error_rates(scores, np.array([False, True, False])).equal_error_rate()
    assert found == (1.0, 1.0, 1.0, pytest.approx(0.1))

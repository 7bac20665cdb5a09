import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from evaluation.metrics.curve import protocol_curve
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.thresholds import error_rates, operating_point, tar_at_far
from tests.test_evaluation.factories import nearest_of_all, one_each


def drawn(seed, mated=150, others=400, values=None):
    rng = np.random.default_rng(seed)
    own, rest = rng.normal(1.5, 1, mated), rng.normal(0, 1, others)
    if values is not None:
        own, rest = np.round(own * values), np.round(rest * values)
    return own.astype(np.float32), rest.astype(np.float32)


def roc_of(own, rest):
    """scikit-learn's ROC without the point at infinity: FMR, FNMR, thresholds ascending."""
    labels = np.repeat([1, 0], [len(own), len(rest)])
    fmr, tpr, thresholds = roc_curve(labels, np.concatenate([own, rest]), drop_intermediate=False)
    return fmr[:0:-1], 1 - tpr[:0:-1], thresholds[:0:-1]


@pytest.mark.parametrize("values", [None, 2, 20])
@pytest.mark.parametrize("target", [1e-3, 2.5e-3, 0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(3))
def test_rules_that_aim_at_an_fmr_against_sklearn(values, target, seed):
    own, rest = drawn(seed, values=values)
    fmr, fnmr, thresholds = roc_of(own, rest)
    point = operating_point(own, rest, "nearest", target)
    place = np.flatnonzero(np.abs(fmr - target) == np.abs(fmr - target).min())[0]
    assert point.threshold == thresholds[place]
    assert (point.fmr, point.fnmr) == pytest.approx((fmr[place], fnmr[place]))
    point = operating_point(own, rest, "conservative", target)
    if (fmr <= target).any():
        place = np.flatnonzero(fmr <= target)[0]
        assert (point.fmr, point.fnmr) == pytest.approx((fmr[place], fnmr[place]))
    else:
        assert point.fmr == 0
    below = np.nextafter(np.float32(point.threshold), np.float32(-np.inf))
    assert np.count_nonzero(rest >= below) / len(rest) > target
    _, _, distinct = roc_of(rest, rest)
    share = [np.count_nonzero(rest >= t) / len(rest) for t in distinct]
    between = operating_point(own, rest, "interpolated", target)
    if share[-1] <= target:
        expected = np.interp(target, share[::-1], distinct[::-1])
        assert between.threshold == pytest.approx(expected, rel=1e-12)
    assert between.fmr <= target
    assert between.threshold >= point.threshold or between.fnmr == point.fnmr


@pytest.mark.parametrize("target", [0.01, 0.049, 0.05, 0.2, 0.99])
@pytest.mark.parametrize("values", [None, 2])
def test_a_starting_error_is_the_nearest_and_near_the_quantile(target, values):
    own, rest = drawn(7, values=values)
    point = operating_point(own, rest, "starting_error", target)
    rates = {t: np.mean(own < t) for t in own}
    best = min(abs(rate - target) for rate in rates.values())
    assert abs(point.fnmr - target) == best
    assert point.threshold == max(t for t in own if abs(rates[t] - target) == best)
    if values is None:
        at_quantile = np.count_nonzero(own < np.quantile(own.astype(np.float64), target))
        assert abs(point.false_non_matches - at_quantile) <= 1


def test_an_allowed_count_that_is_whole_is_reached():
    for count in (1000, 3000, 7000, 10_000):
        own, rest = np.float32([2.0]), np.arange(count, dtype=np.float32)
        point = operating_point(own, rest, "conservative", 1e-3)
        assert point.false_matches == count // 1000
        assert operating_point(own, rest, "nearest", 1e-3).false_matches == count // 1000


@pytest.mark.parametrize("target", [0.29, 0.57, 0.58])
def test_rounding_of_the_target_costs_no_pair(target):
    assert int(target * 100) < round(target * 100)  # the products are a hair below a whole number
    own, rest = np.float32([200.0]), np.arange(100, dtype=np.float32)
    found = operating_point(own, rest, "conservative", target)
    assert found.false_matches == round(target * 100)


def test_pyeer_takes_four_of_3500():
    own, rest = drawn(0, others=3500)
    assert operating_point(own, rest, "nearest", 1e-3).false_matches == 4
    assert operating_point(own, rest, "conservative", 1e-3).false_matches == 3


def test_missing_kinds():
    own = np.float32([0.3, 0.7])
    none = np.float32([])
    assert operating_point(own, none, "nearest", 0.1)[:3] == (pytest.approx(0.3), 0, 2)
    with pytest.raises(ValueError, match="no mated pair: there is no FNMR to measure"):
        operating_point(none, own, "nearest", 0.1)


def test_only_the_listed_end_is_looked_at():
    own, rest = drawn(3)
    listed_from = float(np.sort(rest)[-40])
    high = rest[rest >= listed_from]
    unlisted = {"unlisted": len(rest) - len(high), "listed_from": listed_from}
    for rule in ("nearest", "conservative", "interpolated"):
        for target in (0.0025, 0.01, 0.09):
            assert operating_point(own, high, rule, target, **unlisted) == operating_point(
                own, rest, rule, target
            )
        with pytest.raises(ValueError, match=r"FMR 0.11 lies below .* of 400 .* only the 40 above"):
            operating_point(own, high, rule, 0.11, **unlisted)


@given(
    st.integers(0, 10_000),
    st.sampled_from(["nearest", "conservative", "interpolated"]),
    st.sampled_from([0.002, 0.01, 0.05]),
    st.sampled_from(["threshold", "above_threshold"]),
)
def test_a_threshold_per_subset_is_that_of_the_kept_scores_alone(seed, rule, target, read_at):
    """Found from the high end of the scores; uncertainty goes with the score."""
    rng = np.random.default_rng(seed)
    mated = rng.random(900) < rng.uniform(0.05, 0.5)
    mated[0], values = True, int(rng.choice([8, 64, 4096]))
    scores = (np.round((rng.normal(size=900) + 2 * mated) * values) / values).astype(np.float32)
    uncertainty = (rng.normal(size=900) + rng.uniform(-3, 3) * scores).astype(np.float32)
    protocol = Protocol(name="p", threshold="per_subset", rule=rule, read_at=read_at, grid="by_5")
    edc = protocol_curve(one_each(scores, mated, uncertainty), protocol, target).edc
    for index, fraction in enumerate(edc.fractions):
        rows = uncertainty <= np.percentile(uncertainty, (1 - fraction) * 100)
        own, rest = scores[rows & mated], scores[rows & ~mated]
        counts = edc.false_non_matches, edc.mated, edc.false_matches, edc.non_mated
        counts = tuple(int(column[index]) for column in counts)
        if not len(own):
            assert counts == (0, 0, 0, len(rest))
            continue
        expected = operating_point(own, rest, rule, target)
        if read_at == "above_threshold" and len(rest):
            misses = np.count_nonzero(own <= np.float64(expected.threshold))
            expected = expected._replace(false_non_matches=misses)
        assert (edc.score_threshold[index], *counts) == expected


TARGETS = (0, 1e-3, 0.05, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1)
SCORES = st.lists(st.integers(0, 12), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None)
@given(SCORES, SCORES)
def test_points_are_those_of_the_counts_at_every_threshold(mated, non_mated):
    scores = np.array(mated + non_mated, np.float32) / 7
    labels = np.arange(len(scores)) < len(mated)
    for row in tar_at_far(scores, labels, TARGETS):
        assert row.point == nearest_of_all(scores, labels, row.target)
    for row in tar_at_far(scores, labels, TARGETS, rule="conservative"):
        rates = error_rates(scores, labels)
        allowed = np.flatnonzero(rates.fmr <= row.target)
        if len(allowed):
            assert row.point.threshold == rates.thresholds[allowed[0]]
            assert row.point.false_matches == rates.false_matches[allowed[0]]
        else:
            assert row.point[1:] == (len(mated), len(mated), 0, len(non_mated))


def test_true_accept_rate_by_hand():
    scores = np.concatenate([np.linspace(0, 1, 1001), [0.3, 0.9895, 2]]).astype(np.float32)
    labels = np.arange(1004) > 1000
    (row,) = tar_at_far(scores, labels, [1e-2])
    assert (row.target, row.matches, row.point.mated) == (1e-2, 1, 3)
    assert row.tar == pytest.approx(1 / 3)
    assert (row.point.false_matches, row.point.non_mated) == (10, 1001)
    assert row.point.threshold == np.float32(0.991)
    assert row.caution is None


def test_caution_where_fewer_than_five_false_matches_are_expected():
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

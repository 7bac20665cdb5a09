"""What is kept at each discard fraction and where FNMR is read: the original, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.metrics.comparisons import image_uncertainties
from evaluation.metrics.curve import GRID, CurveEngine, edc_of, image_values, percentiles
from evaluation.metrics.protocols import PROTOCOLS, Protocol
from evaluation.metrics.thresholds import Ranked, error_rates
from evaluation.original import SHOWN, equal_error_rates, original_areas
from tests.test_evaluation.factories import ORIGINALS, apart, one_each
from tests.test_evaluation.test_metrics.test_curve import small_set


def engine_of(comparisons, **switches):
    return CurveEngine(comparisons, Protocol(name="p", **switches))


@pytest.mark.parametrize("variant", ORIGINALS)
@pytest.mark.parametrize(("name", "block"), [("C", 0), ("D", 0), ("J", 0), ("H", 0), ("H", 1)])
def test_all_points_equal_the_original(
    name, block, variant, golden_features, golden_scores, golden_numbers
):
    scores, mated = golden_scores[name], golden_features[name].issame
    values = image_uncertainties(golden_features[name].sigma_sq)[block].values
    engine = CurveEngine(apart(scores, mated, values), PROTOCOLS[ORIGINALS[variant]])

    def expected(column):
        return golden_numbers[f"{name}/{variant}/{column}"][100 * block : 100 * block + 100]

    kept, cuts = engine.kept(), engine.cuts()
    np.testing.assert_array_equal(cuts.kept, expected("keep"))
    np.testing.assert_array_equal(kept.thresholds, expected("risk_threshold"))
    eer = equal_error_rates(scores, mated, kept, range(100))
    np.testing.assert_array_equal([rate.value for rate in eer], expected("eer"))
    prefix = "fixed_" if variant == "fnmr_fixed" else ""
    for column, target in (("fmr100", 1e-2), ("fmr1000", 1e-3)):
        edc = edc_of(engine, cuts, target)
        np.testing.assert_array_equal(edc.fnmr, expected(prefix + column))
    under = original_areas(edc)
    for column, value in (
        ("AUERC", under.auerc),
        ("AUERC30", under.auerc30),
        ("AUC", under.auc),
        ("AUC30", under.auc30),
        ("fmr1000_mean", under.mean),
    ):
        assert value == golden_numbers[f"{name}/{variant}/{column}"][block], column


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32)))
def test_percentiles_equal_numpy_bit_for_bit(values):
    percent = (1 - GRID) * 100
    expected = np.percentile(values, percent)
    np.testing.assert_array_equal(percentiles(Ranked.of(values), percent / 100), expected)


@pytest.mark.parametrize("size", [101, 201, 1001, 7001])
def test_percentiles_that_fall_on_samples_equal_numpy(size):
    """(N - 1) x is whole, so the last bit of the percentile decides whether a pair is kept."""
    values = np.random.default_rng(size).random(size).astype(np.float32)
    cuts = engine_of(one_each(values, np.ones(size), values)).cuts()
    for index, x in enumerate(GRID):
        threshold = np.percentile(values, (1 - x) * 100)
        assert cuts.thresholds[index] == threshold
        assert cuts.kept[index] == int((values <= threshold).sum())


def made(seed, levels=12):
    return small_set(seed, pairs=400, rows=90, levels=levels)


@pytest.mark.parametrize("over", ["all", "mated", "each_kind", "images"])
@pytest.mark.parametrize(("ties", "grid"), [("keep", "by_5"), ("together", "exact")])
def test_masks_agree_with_the_counts(over, ties, grid):
    comparisons = made(3)
    engine = engine_of(comparisons, discard_over=over, ties=ties, grid=grid)
    kept, edc = engine.kept(), edc_of(engine, engine.cuts(), 0.1)
    rows = np.array([kept.rows(index) for index in range(len(kept.fractions))])
    np.testing.assert_array_equal(rows[:, comparisons.mated].sum(axis=1), edc.mated)
    np.testing.assert_array_equal(rows[:, ~comparisons.mated].sum(axis=1), edc.non_mated)
    np.testing.assert_array_equal(rows.sum(axis=0), kept.times_kept(range(len(rows))))
    assert rows[0].all()


def test_each_kind_loses_the_same_share():
    comparisons = made(1, levels=1_000_000)
    kept = engine_of(comparisons, discard_over="each_kind", ties="together").kept()
    for chosen in (comparisons.mated, ~comparisons.mated):
        for index in range(0, 100, 9):
            left = chosen.sum() - np.floor(kept.fractions[index] * chosen.sum() + 1e-9)
            # pairs share their worse image, so a group may not fit
            assert left <= kept.rows(index)[chosen].sum() <= left + 12


def test_an_image_leaves_with_all_its_pairs():
    comparisons = made(2)
    values, row = image_values(comparisons)
    kept = engine_of(comparisons, discard_over="images", ties="together", grid="exact").kept()
    for index, threshold in enumerate(kept.thresholds):
        gone = row[comparisons.pairs][..., None] == np.flatnonzero(values > threshold)
        np.testing.assert_array_equal(kept.rows(index), ~gone.any(axis=(1, 2)))
        assert kept.fractions[index] == pytest.approx(np.mean(values > threshold))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 99))
def test_as_many_whole_groups_leave_as_fit(values, percent):
    cuts = engine_of(one_each(values, np.ones(len(values)), values), ties="together").cuts()
    values, left = np.array(values), cuts.kept[percent]
    room = percent * len(values) / 100 + 1e-9
    assert len(values) - left <= room
    inside = values[values <= cuts.thresholds[percent]]
    assert len(inside) == left
    next_group = np.count_nonzero(inside == inside.max())
    assert len(values) - left + next_group > room or next_group == left


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_exact_grid_has_a_step_per_distinct_value(values):
    comparisons = one_each(values, np.ones(len(values)), values)
    cuts = engine_of(comparisons, ties="together", grid="exact").cuts()
    distinct = sorted(set(values), reverse=True)
    assert cuts.thresholds.tolist() == distinct
    assert cuts.kept.tolist() == [sum(v <= d for v in values) for d in distinct]
    np.testing.assert_allclose(cuts.fractions, 1 - cuts.kept / len(values), atol=1e-12)


def test_a_quirk_reading_at_the_nearest_kept_score_can_be_one_pair_low():
    scores, mated = [0.50, 0.49, 0.2, 0.8, 0.1, 0.7], [0, 1, 0, 1, 0, 1]
    engine = engine_of(one_each(scores, mated, [9, 1, 1, 1, 1, 1]))
    read_at, misses, _, _ = engine.fixed(float(np.float32(0.5)), engine.cuts())
    assert misses[[0, 50]].tolist() == [1, 0]  # .49 < .5, but .49 is read at itself
    assert read_at[50] == np.float32(0.49)


def test_no_kind_left():
    scores = [0.5, 0.125, 0.25, 0.3125]
    engine = engine_of(one_each(scores, [1, 1, 0, 0], [1, 2, 3, 4]))
    read_at, misses, mated, _ = engine.fixed(0.3125, engine.cuts())
    assert mated[60] == 2
    assert read_at[60] == 0.125  # .125 and .5 are equally near: the lower
    assert misses[60] == 0
    recomputed = engine_of(one_each(scores, [1, 1, 0, 0], [1, 2, 3, 4]), threshold="per_subset")
    edc = edc_of(recomputed, recomputed.cuts(), 1e-3)
    assert (edc.non_mated[60], edc.fnmr[60]) == (0, 0)
    eer = equal_error_rates(np.float32(scores), np.array([1, 1, 0, 0], bool), engine.kept(), [60])
    assert eer[0].value == 1


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_eer_of_kept_pairs_is_that_of_the_kept_pairs_alone(decimals):
    rng = np.random.default_rng(4)
    for _ in range(40):
        count = int(rng.integers(10, 600))
        scores = rng.normal(size=count).astype(np.float32)
        uncertainty = rng.random(count).astype(np.float32)
        if decimals is not None:
            scores, uncertainty = scores.round(decimals), uncertainty.round(decimals + 1)
        mated = rng.random(count) < rng.choice([0.02, 0.3, 0.9])
        mated[0] = True
        kept = engine_of(one_each(scores, mated, uncertainty)).kept()
        rows = [kept.rows(index) for index in SHOWN]
        expected = [error_rates(scores[row], mated[row]).equal_error_rate() for row in rows]
        assert equal_error_rates(scores, mated, kept, SHOWN) == expected

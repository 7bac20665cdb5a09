import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.metrics.areas import Start, area_under, best_fnmr
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.discard import count_up_to, cut, find_discard, image_values, kept_sets
from evaluation.metrics.kept import kept_sets as original_kept_sets
from evaluation.metrics.protocols import PROTOCOLS, Protocol


def made(seed=0, pairs=400, rows=90, levels=12):
    rng = np.random.default_rng(seed)
    return Comparisons(
        "made",
        rng.normal(size=pairs).astype(np.float32),
        rng.random(pairs) < 0.4,
        rng.integers(0, rows, (pairs, 2)).astype(np.int32),
        rng.integers(0, levels, rows).astype(np.float32),
        image=np.arange(rows) // 3,
    )


@pytest.mark.parametrize("levels", [3, 12, 10_000])
def test_original_kept_sets_are_those_of_edc(levels):
    c = made(levels=levels)
    mine, original = kept_sets(c, PROTOCOLS["original"]), original_kept_sets(c.pair_uncertainty())
    np.testing.assert_array_equal(mine.thresholds, original.thresholds)
    np.testing.assert_array_equal(mine.counts(), original.counts())
    np.testing.assert_array_equal(mine.counts(c.mated), original.counts(c.mated))
    for index in range(0, 100, 7):
        np.testing.assert_array_equal(mine.rows(index), original.rows(index))


@pytest.mark.parametrize("over", ["all", "mated", "each_kind", "images"])
@pytest.mark.parametrize(("ties", "grid"), [("keep", "by_5"), ("together", "exact")])
def test_kept_sets_agree_with_the_counts(over, ties, grid):
    c = made(3)
    protocol = Protocol(name="p", discard_over=over, ties=ties, grid=grid)
    found, kept = find_discard(c, protocol), kept_sets(c, protocol)
    np.testing.assert_array_equal(kept.counts(c.mated), count_up_to(found.mated, found.mated_cut))
    if over == "mated":
        assert found.non_mated is None
        assert (kept.counts(~c.mated) == (~c.mated).sum()).all()
    else:
        others = count_up_to(found.non_mated, found.non_mated_cut)
        np.testing.assert_array_equal(kept.counts(~c.mated), others)
    assert kept.rows(0).all()


def test_each_kind_loses_the_same_share():
    c = made(1, levels=1_000_000)
    protocol = Protocol(name="p", discard_over="each_kind", ties="together")
    kept = kept_sets(c, protocol)
    for chosen in (c.mated, ~c.mated):
        total = chosen.sum()
        left = total - np.floor(kept.fractions * total + 1e-9)
        # pairs share their worse image, so a group may not fit: never fewer than asked for are kept
        assert (kept.counts(chosen) >= left).all()
        assert (kept.counts(chosen) <= left + 12).all()


def test_an_image_leaves_with_all_its_pairs():
    c = made(2)
    values, row = image_values(c)
    kept = kept_sets(c, Protocol(name="p", discard_over="images", ties="together", grid="exact"))
    for index, threshold in enumerate(kept.thresholds):
        gone = row[c.pairs][..., None] == np.flatnonzero(values > threshold)
        np.testing.assert_array_equal(kept.rows(index), ~gone.any(axis=(1, 2)))
        assert kept.fractions[index] == pytest.approx(np.mean(values > threshold))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 99))
def test_as_many_whole_groups_leave_as_fit(values, percent):
    values = np.float32(values)
    found = cut(values, "together", "percent")
    left = found.kept[percent]
    room = percent * len(values) / 100 + 1e-9
    assert len(values) - left <= room
    inside = values[values <= found.thresholds[percent]]
    assert len(inside) == left
    next_group = np.count_nonzero(inside == inside.max())
    assert len(values) - left + next_group > room or next_group == left


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
def test_exact_grid_has_a_step_per_distinct_value(values):
    found = cut(np.float32(values), "together", "exact")
    distinct = sorted(set(values), reverse=True)
    assert found.thresholds.tolist() == distinct
    assert found.kept.tolist() == [sum(v <= d for v in values) for d in distinct]
    np.testing.assert_allclose(found.fractions, 1 - found.kept / len(values), atol=1e-12)


X, Y = np.array([0.0, 0.1, 0.25]), np.array([0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("limit", "how", "ends", "area", "width"),
    [
        (0.25, "step", "at_limit", 0.04 + 0.03, 0.25),
        (0.3, "step", "at_limit", 0.04 + 0.03 + 0.005, 0.3),
        (1.0, "step", "at_limit", 0.04 + 0.03 + 0.075, 1.0),
        (0.05, "step", "at_limit", 0.02, 0.05),
        (0.2, "trapezoid", "at_limit", 0.03 + (0.2 + 0.4 / 3) / 2 * 0.1, 0.2),
        (0.3, "trapezoid", "at_limit", 0.03 + 0.0225 + 0.005, 0.3),
        (0.25, "trapezoid", "before_limit", 0.03, 0.1),
        (0.3, "trapezoid", "before_limit", 0.03 + 0.0225, 0.25),
        (0.3, "step", "before_limit", 0.04 + 0.03, 0.25),
        (0.05, "trapezoid", "before_limit", 0.0, 0.0),
    ],
)
def test_areas_by_hand(limit, how, ends, area, width):
    assert area_under(X, Y, limit, how, ends) == pytest.approx((area, width))


def test_best_order_by_hand():
    """Four errors of ten mated pairs among twenty pairs: all of them gone at .2."""
    start = Start(4, 10, 20)
    expected = [4 / 10, 3 / 9, 2 / 8, 0, 0]
    np.testing.assert_allclose(best_fnmr(start, np.array([0, 0.05, 0.1, 0.2, 0.9])), expected)

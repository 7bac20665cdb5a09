"""Groups against counting by hand on really repeated rows, and ratios whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import gmean

from benchmarks.coverage import simulate_groups
from evaluation.confidence.bootstrap import Resampling
from evaluation.confidence.differentials import (
    KINDS,
    REFUSED,
    SHARES,
    differential,
    group_results,
)
from evaluation.metrics.protocols import PROTOCOLS
from evaluation.metrics.thresholds import operating_point
from evaluation.sets.groups import Grouping
from tests.test_evaluation.factories import doubtful, truncated

FMR = 0.01


@pytest.fixture(scope="module")
def faces():
    return doubtful(np.random.default_rng(3), people=75, images=4)


@pytest.fixture(scope="module")
def grouping(faces):
    place = faces.identity % 3
    place[faces.identity >= 70] = -1
    return Grouping("made", ("a", "b", "c"), place)


def by_hand(faces, place, weights, protocol):
    """(3, 2, G) errors and totals of `KINDS`, and (G, 2, F) of the kept, of repeated rows."""
    rows = np.repeat(np.arange(len(weights)), weights)
    scores, mated, pairs = faces.scores[rows], faces.mated[rows], faces.pairs[rows]
    point = operating_point(scores[mated], scores[~mated], protocol.rule, FMR)
    group = np.where(place[pairs[:, 0]] == place[pairs[:, 1]], place[pairs[:, 0]], -1)
    doubt = faces.uncertainty[pairs].max(axis=1)
    over = np.sort(doubt[mated] if protocol.discard_over == "mated" else doubt)
    limits = []
    for share in SHARES:
        if protocol.ties == "keep":
            limits.append(np.percentile(over, (1 - share) * 100))
        else:  # the lowest value above which no more than the share lies
            fits = [v for v in np.unique(over) if (over > v).mean() <= share + 1e-9]
            limits.append(fits[0])
    rates, kept = np.zeros((3, 2, 3)), np.zeros((3, 2, len(SHARES)))
    for g in range(3):
        own, others = (group == g) & mated, (group == g) & ~mated
        missed = own & (scores < np.float64(point.threshold))
        refused = doubt > limits[SHARES.index(REFUSED)]
        rates[:, :, g] = [
            (missed.sum(), own.sum()),
            ((others & (scores >= np.float64(point.threshold))).sum(), others.sum()),
            ((own & refused).sum(), own.sum()),
        ]
        for f, limit in enumerate(limits):
            kept[g, :, f] = (missed & (doubt <= limit)).sum(), (own & (doubt <= limit)).sum()
    return rates, kept


@pytest.mark.parametrize("name", ["iso29794", "original"])
def test_counts_and_intervals_are_those_of_repeated_rows(faces, grouping, name):
    protocol = PROTOCOLS[name]
    [found] = group_results(faces, [grouping], protocol, FMR, replicates=5, seed=2)
    own, kept = by_hand(faces, grouping.place, np.ones(len(faces.scores), int), protocol)
    for g, row in enumerate(found.rows):
        assert [list(row.counts[kind]) for kind in KINDS] == own[:, :, g].tolist()
        assert list(map(list, row.kept)) == kept[g].T.tolist()
        assert row.after == row.kept[2]
    resampling = Resampling(faces, "identity", FMR, 2)
    draws = np.array(
        [by_hand(faces, grouping.place, resampling.row_weights(r), protocol)[0] for r in range(5)]
    )
    for k, kind in enumerate(KINDS):
        for g, row in enumerate(found.rows):
            expected = np.quantile(draws[:, k, 0, g] / draws[:, k, 1, g], (0.025, 0.975))
            assert row.intervals[kind] == pytest.approx(tuple(expected))
        errors, totals = own[k]
        rates, part = errors / totals, found.differentials[k]
        assert part.worst == "abc"[rates.argmax()]
        assert part.ratio == pytest.approx(rates.max() / gmean(rates))
        assert part.to_best == pytest.approx(rates.max() / rates.min())
        # every group at once: the estimate and the largest of the standardised deviations
        logs, centre = (
            np.log((e + 0.5) / (t + 0.5)) for e, t in ((draws[:, k, 0], draws[:, k, 1]), own[k])
        )
        away = logs - logs.mean(1)[:, None] - centre + centre.mean()
        reach = np.quantile(np.abs(away / away.std(0)).max(1), 0.95) * away.std(0)
        ends = np.exp(np.log(rates / gmean(rates)) + np.outer((-1, 1), reach))
        for g, group in enumerate("abc"):
            assert part.relative[group][1] == pytest.approx(tuple(ends[:, g]))
        assert part.interval == pytest.approx((max(1, ends[0].max()), ends[1].max()))
        highest = ends[1].max() / ends[0].min()
        lowest = max(1, ends[0].max() / ends[1].min())
        assert part.to_best_interval == pytest.approx((lowest, highest))


def test_what_is_in_no_group_is_counted(faces, grouping):
    [found] = group_results(faces, [grouping], PROTOCOLS["iso29794"], FMR, replicates=0)
    first, second = grouping.place[faces.pairs].T
    match = ~faces.mated & (faces.scores >= np.float64(found.score_threshold))
    across = (first != second) & (first >= 0) & (second >= 0) & ~faces.mated
    unknown = np.minimum(first, second) < 0
    assert found.across == (0, (int((across & match).sum()), int(across.sum())))
    others = unknown & ~faces.mated
    assert found.unknown == (
        int((unknown & faces.mated).sum()),
        (int((others & match).sum()), int(others.sum())),
    )
    assert not found.rows[0].intervals
    assert math.isnan(found.differentials[0].interval.high)


def test_a_list_of_the_high_end_gives_the_same(faces, grouping):
    options = {"replicates": 20, "seed": 1}
    lists = (faces, truncated(faces, 0.15))
    whole, cut = (
        group_results(each, [grouping], PROTOCOLS["iso29794"], FMR, **options)[0] for each in lists
    )
    assert cut.rows == whole.rows
    assert (cut.across, cut.unknown) == (whole.across, whole.unknown)


def test_groups_of_photos_leave_mated_pairs_across(faces):
    place = np.arange(len(faces.identity)) % 2
    grouping = Grouping("photo:half", ("even", "odd"), place)
    [found] = group_results(faces, [grouping], PROTOCOLS["iso29794"], FMR, replicates=0)
    assert found.across[0] == 75 * 4
    assert [row.counts["fnmr"].total for row in found.rows] == [75, 75]


def test_small_groups_are_not_compared(faces):
    place = np.where(faces.identity < 19, 0, np.where(faces.identity < 45, 1, 2))
    grouping = Grouping("size", ("nineteen", "b", "c"), place)
    [found] = group_results(faces, [grouping], PROTOCOLS["iso29794"], FMR, replicates=0)
    assert [bool(row.too_small) for row in found.rows] == [True, False, False]
    assert found.differentials[0].worst in ("b", "c")
    # 26 people, but 26 * 6 mated pairs at an FNMR of so little are not 5 errors
    better = replace(faces, scores=np.where(faces.mated, faces.scores + 0.5, faces.scores))
    [found] = group_results(better, [grouping], PROTOCOLS["iso29794"], FMR, replicates=0)
    assert "fnmr" in found.rows[1].too_small
    assert "refused" not in found.rows[1].too_small


def test_a_rate_of_zero_leaves_the_ratio_undefined():
    errors, totals = np.array([0.0, 30.0]), np.array([1000.0, 1000.0])
    found = differential("fmr", ["a", "b"], errors, totals, np.empty((0, 2, 2)), 0.95)
    assert math.isnan(found.ratio)
    assert found.worst == "b"
    none = -math.log(0.05) / 1000  # the rule of three
    assert found.at_least == pytest.approx(0.03 / math.sqrt(0.03 * none))
    nothing = differential("fmr", ["a", "b"], errors * 0, totals, np.empty((0, 2, 2)), 0.95)
    assert nothing.worst == ""
    assert math.isnan(nothing.at_least)


@pytest.mark.parametrize(
    ("protocol", "unit", "message"),
    [
        ("crfiqa", None, "no one threshold"),
        ("iso29794", "pair", "by identity or image"),
    ],
)
def test_what_is_refused(faces, grouping, protocol, unit, message):
    with pytest.raises(ValueError, match=message):
        group_results(faces, [grouping], PROTOCOLS[protocol], FMR, unit=unit)


SETS = 30


def simulated(design, name):
    """(SETS, 3) of a value and its interval; benchmarks/coverage.py has more sets and values."""
    return np.array([values[name] for values in simulate_groups(design, SETS, 80)])


def test_a_ratio_holds_1_where_groups_are_alike():
    """By chance alone the highest is above the mean in every set."""
    ratio, low, _ = simulated("alike", "fnmr: worst / mean").T
    assert ratio.min() > 1
    assert np.median(ratio) > 1.1
    assert (low == 1).mean() > 0.85


def test_a_ratio_holds_the_truth_and_sees_the_difference():
    """`true_groups("unlike")` of the benchmark: 1.897."""
    _, low, high = simulated("unlike", "fnmr: worst / mean").T
    assert ((low <= 1.897) & (high >= 1.897)).mean() > 0.85
    assert (low > 1).mean() > 0.8
    assert np.median(high) < 4

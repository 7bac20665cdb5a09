import dataclasses

import numpy as np
import pytest

from evaluation.confidence.bootstrap import Measure, Resampling
from evaluation.confidence.risk_control import select
from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.protocols import Protocol
from evaluation.metrics.thresholds import operating_point
from tests.test_evaluation.factories import all_pairs, truncated


def labelled(seed, people=12, images=3, decimals=2, sample=None):
    """All mated pairs and all or a sample of the non-mated ones; few distinct scores: ties."""
    rng = np.random.default_rng(seed)
    identity, pairs, mated = all_pairs(people, images)
    identity = identity * 7 + 3
    if sample is not None:
        others = rng.choice(np.flatnonzero(~mated), sample)
        pairs = np.concatenate([pairs[mated], pairs[others]])
        mated = np.arange(len(pairs)) < mated.sum()
        order = rng.permutation(len(pairs))
        pairs, mated = pairs[order], mated[order]
    scores = np.round(rng.normal(np.where(mated, 0.6, 0.1), 0.2), decimals).astype(np.float32)
    uncertainty = rng.random(len(identity)).astype(np.float32)
    image = np.arange(len(identity)) * 5
    return Comparisons("made", scores, mated, pairs, uncertainty, identity, image)


def high_end(comparisons, share):
    """The same set with only the highest non-mated scores listed."""
    others = comparisons.scores[~comparisons.mated]
    return truncated(comparisons, float(np.quantile(others, 1 - share)))


def copies(comparisons, unit, drawn):
    """How often each comparison exists once units are copied as drawn, counted pair by pair."""
    ids = comparisons.identity if unit == "identity" else comparisons.image
    times = dict(zip(np.unique(ids), drawn, strict=True))
    counted = []
    for first, second in comparisons.pairs:
        one, other = ids[first], ids[second]
        if one == other:
            counted.append(times[one])
        else:
            counted.append(sum(1 for _ in range(times[one]) for _ in range(times[other])))
    return np.array(counted)


@pytest.mark.parametrize("unit", ["identity", "image"])
@pytest.mark.parametrize("sample", [None, 300])
def test_weights_count_the_copies_of_each_comparison(unit, sample):
    comparisons = labelled(0, sample=sample)
    resampling = Resampling(comparisons, unit, 0.05, seed=4)
    units = 12 if unit == "identity" else 36
    for replicate in range(3):
        drawn = np.bincount(
            np.random.default_rng([4, replicate]).integers(units, size=units), minlength=units
        )
        expected = copies(comparisons, unit, drawn)
        rows, sample_ = resampling.row_weights(replicate), resampling.sample(replicate)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(sample_.mated, expected[resampling.mated_rows])
        np.testing.assert_array_equal(sample_.tail, expected[resampling.tail_rows])
        assert sample_.total == expected[~comparisons.mated].sum()


def test_pairs_are_drawn_within_each_kind():
    comparisons = labelled(0, sample=5000)
    resampling = Resampling(comparisons, "pair", 0.01)
    assert len(resampling.tail_rows) < 5000
    sums = []
    for replicate in range(400):
        rows, sample = resampling.row_weights(replicate), resampling.sample(replicate)
        assert rows[comparisons.mated].sum() == comparisons.mated.sum()
        assert rows[~comparisons.mated].sum() == sample.total == 5000
        np.testing.assert_array_equal(sample.tail, rows[resampling.tail_rows])
        np.testing.assert_array_equal(sample.mated, rows[resampling.mated_rows])
        sums.append(rows)
    mean, variance = np.mean(sums, axis=0), np.var(sums, axis=0)
    assert np.abs(mean - 1).max() < 5 / np.sqrt(400)
    assert abs(variance.mean() - 1) < 0.02


@pytest.mark.parametrize("unit", ["identity", "image"])
def test_total_of_unlisted_comparisons_is_exact(unit):
    comparisons = labelled(1, people=20)
    whole, part = (Resampling(one, unit, 0.01) for one in (comparisons, high_end(comparisons, 0.1)))
    assert not part.approximate_total
    for replicate in range(5):
        assert part.sample(replicate).total == whole.sample(replicate).total


def test_total_of_an_unlisted_sample_is_in_proportion():
    comparisons = high_end(labelled(1, people=20, sample=900), 0.1)
    resampling = Resampling(comparisons, "identity", 0.01)
    assert resampling.approximate_total
    totals = [resampling.sample(replicate).total for replicate in range(300)]
    assert abs(np.mean(totals) / 900 - (1 - 1 / 20)) < 0.02


def measure_of(resampling, rule, target):
    protocol = Protocol(
        name="p", rule=rule, start_fnmr=target, discard_over="mated", read_at="threshold"
    )
    return Measure(resampling, [resampling.comparisons], protocol, target)


def test_a_tail_that_is_too_short_is_extended(monkeypatch):
    monkeypatch.setattr("evaluation.confidence.bootstrap.TAIL_LEAST", 1)
    monkeypatch.setattr("evaluation.confidence.bootstrap.TAIL_FACTOR", 1)
    comparisons = labelled(3, people=15)
    resampling = Resampling(comparisons, "identity", 0.02)
    measure = measure_of(resampling, "conservative", 0.02)
    extended = 0
    for replicate in range(40):
        sample = resampling.sample(replicate)
        extended += sample.tail.sum() <= 0.02 * sample.total
        rows = np.repeat(np.arange(len(comparisons.scores)), resampling.row_weights(replicate))
        scores, mated = comparisons.scores[rows], comparisons.mated[rows]
        expected = operating_point(scores[mated], scores[~mated], "conservative", 0.02)
        assert measure.threshold(sample, replicate) == expected.threshold
    assert extended > 5


def test_a_threshold_below_the_listed_scores_is_counted():
    comparisons = high_end(labelled(3, people=15), 0.025)
    resampling = Resampling(comparisons, "identity", 0.02)
    measure = measure_of(resampling, "conservative", 0.02)
    found = [measure.threshold(resampling.sample(replicate), replicate) for replicate in range(40)]
    assert 0 < measure.beyond_list < 40
    assert found.count(comparisons.listed_from) == measure.beyond_list


def test_what_cannot_be_drawn():
    comparisons = labelled(0)
    anonymous = dataclasses.replace(comparisons, identity=None, image=None)
    with pytest.raises(ValueError, match="made: cannot draw by identity, .*; draw by pair"):
        Resampling(anonymous, "identity", 0.01)
    alone = select(comparisons, np.flatnonzero(comparisons.mated))
    with pytest.raises(ValueError, match="made: .* there are 36 mated and 0 non-mated ones"):
        Resampling(alone, "pair", 0.01)

"""Reliability bins, calibration error, held-out people, and the operating table."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

from evaluation.calibration_run import held_out_reliability, operating_table, reliability
from evaluation.confidence.calibration import Calibration
from evaluation.confidence.intervals import clopper_pearson
from evaluation.metrics.comparisons import Comparisons
from tests.test_evaluation.factories import some_pairs


def people_set(people=400, images=4, seed=0, strength=0.3):
    """Mated pairs of each person, wrong with probability strength * max uncertainty ** 2."""
    rng = np.random.default_rng(seed)
    identity, pairs, mated = some_pairs(rng, people, images, others=0)
    uncertainty = rng.random(people * images).astype(np.float32)
    wrong = rng.random(len(pairs)) < strength * uncertainty[pairs].max(axis=1) ** 2
    scores = np.where(wrong, 0, 1).astype(np.float32)
    return Comparisons("made-up", scores, mated, pairs, uncertainty, identity)


def test_bins_of_equal_counts():
    predicted = np.arange(1, 101) / 200
    errors = np.arange(100) % 2 == 0
    found = reliability(predicted, errors, bins=4)
    assert [one.count for one in found.bins] == [25] * 4
    assert [one.errors for one in found.bins] == [13, 12, 13, 12]
    assert found.bins[0].predicted == pytest.approx(13 / 200)
    assert found.bins[0].observed == 13 / 25
    assert found.bins[1].interval == clopper_pearson(12, 25)
    gaps = [abs(one.observed - one.predicted) for one in found.bins]
    assert found.calibration_error == pytest.approx(np.mean(gaps))


def test_equal_predictions_stay_together():
    predicted = np.repeat([0.1, 0.2, 0.7], [50, 45, 5])
    found = reliability(predicted, predicted > 0.5, bins=10)
    assert [one.count for one in found.bins] == [50, 45, 5]
    shuffled = np.random.default_rng(0).permutation(100)
    assert reliability(predicted[shuffled], (predicted > 0.5)[shuffled], bins=10) == found


def test_chance_is_the_mean_distance_of_a_perfect_prediction():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0, 0.05, 2000)
    distances = [
        reliability(predicted, rng.random(2000) < predicted).calibration_error for _ in range(300)
    ]
    chance = reliability(predicted, predicted > 1).chance
    assert np.mean(distances) == pytest.approx(chance, rel=0.05)


@pytest.mark.parametrize(("count", "rate"), [(1, 0.3), (7, 0.5), (40, 0.01), (40, 1.0), (3, 0.0)])
def test_chance_of_one_bin_by_summing(count, rate):
    outcomes = np.arange(count + 1)
    expected = (binom.pmf(outcomes, count, rate) * np.abs(outcomes - count * rate)).sum() / count
    found = reliability(np.full(count, rate), np.zeros(count, np.bool_))
    assert found.chance == pytest.approx(expected, abs=1e-12)


def test_a_sound_map_errs_no_more_than_chance_and_a_wrong_one_does():
    made = people_set(people=3000)
    found = held_out_reliability(made, score_threshold=0.5)
    assert sum(one.count for one in found.bins) == len(made.scores)
    assert found.calibration_error < 2.5 * found.chance
    constant = np.full(len(made.scores), 0.5)
    assert reliability(constant, made.scores < 0.5).calibration_error > 10 * found.chance


def test_nobody_is_predicted_by_a_map_that_knows_them():
    """Each person has one uncertainty and is always or never wrong: memory would be perfect."""
    rng = np.random.default_rng(1)
    made = people_set(people=200)
    bad = rng.random(200) < 0.3
    made = dataclasses.replace(
        made,
        uncertainty=np.repeat(rng.random(200), 4).astype(np.float32),
        scores=np.where(bad[made.identity[made.pairs[:, 0]]], 0, 1).astype(np.float32),
    )
    found = held_out_reliability(made, score_threshold=0.5, bins=4)
    assert all(0.05 < one.predicted < 0.6 for one in found.bins)
    assert found == held_out_reliability(made, score_threshold=0.5, bins=4)
    assert found != held_out_reliability(made, score_threshold=0.5, bins=4, seed=1)


def test_the_operating_table_counts():
    made = people_set()
    fitted = Calibration.fit(made, score_threshold=0.5)
    uncertainty, wrong = made.pair_uncertainty(), made.scores < 0.5
    rows = operating_table(made, fitted, accepted=(1.0, 0.9, 0.5))
    assert [round(row.accepted, 2) for row in rows] == [1, 0.9, 0.5]
    for row in rows:
        kept = uncertainty <= row.uncertainty
        assert row.misses == (wrong[kept].sum(), kept.sum())
        assert row.accepted == kept.mean()
        assert row.interval == clopper_pearson(*row.misses)
        assert row.percentile == fitted.percentile(row.uncertainty)
        assert row.iso_quality == fitted.iso_quality(row.uncertainty)[0]


@pytest.mark.parametrize(
    ("predicted", "errors", "message"),
    [
        ([], [], "0,.* predictions for"),
        ([0.1, 0.2], [True], r"\(2,\) predictions for \(1,\) outcomes"),
        ([0.1, np.nan], [True, False], "must lie in 0..1"),
        ([0.1, 1.1], [True, False], "must lie in 0..1"),
    ],
)
def test_mistakes_are_named(predicted, errors, message):
    with pytest.raises(ValueError, match=message):
        reliability(np.array(predicted, np.float64), np.array(errors, np.bool_))

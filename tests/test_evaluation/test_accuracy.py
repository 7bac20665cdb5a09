import math

import numpy as np
import pytest
from sklearn.model_selection import KFold

from evaluation.metrics.comparisons import fuse_sides, image_uncertainties
from evaluation.metrics.curve import CurveEngine
from evaluation.metrics.protocols import Protocol
from evaluation.original import SHOWN, best_threshold, ten_fold_accuracy
from tests.test_evaluation.factories import one_each


@pytest.mark.parametrize("how", ["max", "add"])
@pytest.mark.parametrize("name", ["C", "D", "H", "J"])
def test_accuracy_at_discards_equals_the_original(
    name, how, golden_features, golden_scores, golden_numbers
):
    scores, mated = golden_scores[name], golden_features[name].issame
    found = []
    for one in image_uncertainties(golden_features[name].sigma_sq):
        fuse = "max" if how == "max" else "sum"
        uncertainty = fuse_sides(one.values[::2], one.values[1::2], fuse)
        kept = CurveEngine(one_each(scores, mated, uncertainty), Protocol(name="p")).kept()
        found += [ten_fold_accuracy(scores[kept.rows(i)], mated[kept.rows(i)]) for i in SHOWN]
    values, thresholds = (np.array(column) for column in zip(*found, strict=True))
    np.testing.assert_array_equal(values, golden_numbers[f"{name}/acc_{how}/acc"])
    np.testing.assert_array_equal(thresholds, golden_numbers[f"{name}/acc_{how}/threshold"])


def test_accuracy_equals_a_slow_search_over_scikit_learn_folds():
    rng = np.random.default_rng(0)
    mated = rng.random(133) < 0.5
    scores = (np.round(rng.normal(size=133), 1) + mated).astype(np.float32)
    values, thresholds = [], []
    for train, test in KFold(10).split(scores):
        candidates = np.sort(scores[train][mated[train]])
        right = [np.mean((scores[train] >= one) == mated[train]) for one in candidates]
        threshold = np.mean(candidates[np.array(right) == max(right)])
        thresholds.append(threshold)
        values.append(np.mean((scores[test] >= threshold) == mated[test]))
    found = ten_fold_accuracy(scores, mated)
    assert found.value == pytest.approx(np.mean(values), abs=1e-6)
    assert found.threshold == pytest.approx(np.mean(thresholds), abs=1e-6)


def test_best_threshold_by_hand():
    scores = np.array([0.1, 0.4, 0.5, 0.9], np.float32)
    assert best_threshold(scores, np.array([False, False, True, True])) == np.float32(0.5)


def test_undefined_accuracies_are_nan():
    scores = np.linspace(0, 1, 9, dtype=np.float32)
    assert math.isnan(ten_fold_accuracy(scores, np.ones(9, bool)).value)
    scores = np.linspace(0, 1, 20, dtype=np.float32)
    assert math.isnan(ten_fold_accuracy(scores, np.zeros(20, bool)).value)
    lone = np.arange(20) == 3  # without that fold no mated pair is left to train on
    assert math.isnan(ten_fold_accuracy(scores, lone).threshold)

"""The map from uncertainty to probability, percentile and ISO quality, and its file."""

import dataclasses
import json
import math

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from evaluation.confidence.calibration import PRIOR, Calibration
from tests.test_evaluation.factories import apart, disjoint_pairs


@pytest.fixture(scope="module")
def made():
    return disjoint_pairs()


@pytest.fixture(scope="module")
def fitted(made):
    return Calibration.fit(made, score_threshold=0.5, method="trained_head")


@pytest.mark.parametrize("decimals", [6, 2])
def test_blocks_are_those_of_scikit_learn(decimals):
    made = disjoint_pairs(decimals=decimals)
    fitted = Calibration.fit(made, score_threshold=0.5)
    uncertainty = made.pair_uncertainty()[made.mated].astype(np.float64)
    errors = made.scores[made.mated] < 0.5
    rate = IsotonicRegression().fit_transform(uncertainty, errors)
    overall = (errors.sum() + 0.5) / (len(errors) + 1)
    blocks = [rate == level for level in np.unique(rate)]
    centres = [uncertainty[block].mean() for block in blocks]
    weights = [block.sum() + PRIOR for block in blocks]
    mixed = [
        (errors[block].sum() + PRIOR * overall) / weight
        for block, weight in zip(blocks, weights, strict=True)
    ]
    expected = IsotonicRegression().fit_transform(centres, mixed, sample_weight=weights)
    assert len(blocks) > 5
    np.testing.assert_allclose(fitted.uncertainty, centres)
    np.testing.assert_allclose(fitted.probabilities, expected)


def test_the_true_rate_is_found():
    fitted = Calibration.fit(disjoint_pairs(count=60_000, seed=1), score_threshold=0.5)
    at = np.linspace(0.2, 0.98, 40)
    np.testing.assert_allclose(fitted.probability(at), 0.3 * at**2, atol=0.03)


@pytest.mark.parametrize("threshold", [-1.0, 5.0])
def test_no_map_is_certain(made, threshold):
    fitted = Calibration.fit(made, score_threshold=threshold)
    mated = fitted.false_non_matches.total
    (chance,) = np.unique(fitted.probability([-10, 0, 0.5, 1, 10]))
    errors = 0 if threshold < 0 else mated
    overall = (errors + 0.5) / (mated + 1)
    assert chance == pytest.approx((errors + PRIOR * overall) / (mated + PRIOR))
    assert 0 < chance < 1


def test_probability_never_falls_and_ends_flat(fitted):
    at = np.sort(np.random.default_rng(0).normal(0.5, 1, 10_000))
    assert (np.diff(fitted.probability(at)) >= 0).all()
    assert fitted.probability([-1e30])[0] == fitted.probabilities[0]
    assert fitted.probability([1e30])[0] == fitted.probabilities[-1]
    assert np.isnan(fitted.probability([np.nan])).all()


def test_percentile_is_the_share_of_more_certain_images(made, fitted):
    for value in (0.01, 0.3, 0.77):
        below = 100 * np.mean(made.uncertainty < value)
        assert fitted.percentile([value])[0] == pytest.approx(below, abs=0.1)


def test_half_of_equal_images_count():
    made = apart([1, 0], [True, False], [1, 2, 2, 4])
    fitted = Calibration.fit(made, score_threshold=0.5)
    np.testing.assert_allclose(fitted.percentile([0, 1, 2, 3, 4]), [12.5, 12.5, 50, 68.75, 87.5])
    assert fitted.iso_quality([1, 2, 4]).tolist() == [88, 50, 12]


def test_iso_quality(fitted):
    assert fitted.iso_quality([-9, 0.5, 9]).tolist() == [100, 50, 0]
    assert fitted.iso_quality([np.nan, np.inf, -np.inf]).tolist() == [255, 255, 255]
    assert fitted.iso_quality(0.5).tolist() == [50]
    assert fitted.iso_quality([0.5]).dtype == np.uint8


def test_the_threshold_is_the_lowest_with_the_fmr():
    made = disjoint_pairs()
    fitted = Calibration.fit(made, fmr_target=0.01)
    others = made.scores[~made.mated]
    assert fitted.false_matches == ((others >= fitted.score_threshold).sum(), len(others))
    assert fitted.false_matches.errors == 20
    below = np.nextafter(np.float32(fitted.score_threshold), np.float32(-1))
    assert (others >= below).sum() == 21
    errors = made.scores[made.mated] < fitted.score_threshold
    assert fitted.false_non_matches == (errors.sum(), len(errors))


def test_unlisted_scores_count(made):
    more = dataclasses.replace(made, unlisted=18_000, listed_from=-1.0)
    fitted = Calibration.fit(more, fmr_target=0.001)
    assert fitted.false_matches == (20, 20_000)


def test_file_and_back(fitted, tmp_path):
    path = tmp_path / "run" / "calibration.json"
    fitted.save(path)
    loaded = Calibration.load(path)
    assert loaded.to_dict() == fitted.to_dict()
    assert isinstance(loaded.uncertainty, np.ndarray)
    stored = json.loads(path.read_text())
    assert (stored["version"], stored["direction"]) == (1, "uncertainty: larger = less reliable")
    assert (stored["name"], stored["method"]) == ("made-up", "trained_head")
    assert stored["false_non_matches"] == fitted.false_non_matches._asdict()


def test_the_hash_tells_inputs_apart(made, fitted):
    assert Calibration.fit(made, score_threshold=0.4).inputs == fitted.inputs
    for name in ("scores", "uncertainty"):
        changed = getattr(made, name).copy()
        changed[7] += np.float32(1e-3)
        other = dataclasses.replace(made, **{name: changed})
        assert Calibration.fit(other, score_threshold=0.5).inputs != fitted.inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 of a calibration is not known"),
        ({"version": None}, "version None"),
        ({"direction": "quality"}, "direction 'quality' must be"),
        ({"uncertainty": [0.0, 0.5, 0.5]}, "uncertainty must ascend"),
        ({"probabilities": [0.1, 0.3, 0.2]}, "probabilities must not fall"),
        ({"probabilities": [0.1, 0.2, 1.0]}, "no map is certain"),
        ({"probabilities": [0.0, 0.2, 0.3]}, "no map is certain"),
        ({"probabilities": [0.1, float("nan"), 0.3]}, "expected a finite number"),
        ({"probabilities": [0.1, 0.2]}, "do not fit"),
        ({"uncertainty": ["a", "b", "c"]}, "expected a finite number"),
        ({"percentiles": [0.0, 101.0]}, "percentiles must lie in 0..100"),
        ({"false_matches": [1, 2]}, "false_matches = .* expected errors, total"),
        ({"weights_sha256": {"head": 1}}, "weights_sha256.head = 1: expected str"),
        ({"false_matches": {"errors": -1, "total": 9}}, "false_matches = .* must be a count"),
        ({"false_non_matches": {"errors": 7, "total": 3}}, "must be a count and its total"),
        ({"false_non_matches": {"errors": 0, "total": 0}}, "must be of some comparisons"),
        ({"false_matches": {"errors": math.inf, "total": 1}}, "expected int"),
        ({"score_threshold": math.nan}, "score_threshold = nan: expected a finite number"),
        ({"score_threshold": "0.5"}, "expected a finite number"),
        ({"score_threshold": -1e30}, "score_threshold = -1e.30: must be in -1e.15 to 1e.15"),
        ({"score_threshold": 1.02, "weights_sha256": {"head": "a"}}, "must be in -1.01 to 1.01"),
        ({"uncertainty": [0.0, 1e300], "probabilities": [0.1, 0.2]}, "values that no float32 has"),
        ({"fmr_target": -1.0}, "fmr_target = -1.0: must be in"),
        ({"fmr_target": 10**400}, "fmr_target"),
        ({"name": 3}, "name = 3: expected str"),
        ({"extra": 1}, "missing or unknown entries: extra"),
    ],
)
def test_files_that_cannot_be_trusted_are_refused(fitted, tmp_path, change, message):
    stored = fitted.to_dict() | {
        "uncertainty": [0.1, 0.2, 0.3],
        "probabilities": [0.1, 0.2, 0.3],
        "percentile_at": [0.1, 0.2],
        "percentiles": [0.0, 100.0],
    }
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(stored))
    Calibration.load(path)
    path.write_text(json.dumps(stored | change))
    with pytest.raises(ValueError, match=message) as error:
        Calibration.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b"{}", b'{"version": 1', b"score,mated\n", b"PK\x03\x04\xff"]
)
def test_what_is_no_calibration_is_refused(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"calibration.json is not a calibration file that eval"):
        Calibration.load(path)
    with pytest.raises(ValueError, match="no calibration file .*: make one with"):
        Calibration.load(tmp_path / "none.json")


def test_missing_kinds_are_named(made):
    rows = made.mated
    parts = {"scores": made.scores[rows], "mated": rows[rows], "pairs": made.pairs[rows]}
    mated_alone = dataclasses.replace(made, **parts)
    with pytest.raises(ValueError, match="made-up: no non-mated comparison"):
        Calibration.fit(mated_alone, fmr_target=0.01)
    assert Calibration.fit(mated_alone, score_threshold=0.5).false_matches == (0, 0)
    with pytest.raises(ValueError, match="made-up: no mated comparison"):
        Calibration.fit(dataclasses.replace(made, mated=~made.mated & False), fmr_target=0.01)
    with pytest.raises(ValueError, match="either an FMR target or a score threshold"):
        Calibration.fit(made)


@pytest.mark.parametrize("threshold", [np.nan, np.inf])
def test_a_score_threshold_that_is_no_number_is_refused(made, threshold):
    with pytest.raises(ValueError, match="score_threshold .* is not a finite number"):
        Calibration.fit(made, score_threshold=threshold)

"""Accept, ask again, refuse: cut-offs against a search over all uncertainties, and their file."""

import dataclasses
import json
import re

import numpy as np
import pytest

from evaluation.confidence.calibration import Calibration, Decision
from evaluation.confidence.risk_control import control_risk
from tests.test_evaluation.factories import disjoint_pairs

NAN, INF = float("nan"), float("inf")


def fit(**options):
    return Calibration.fit(disjoint_pairs(**options), score_threshold=0.5)


@pytest.fixture(scope="module")
def fitted():
    return fit()


@pytest.mark.parametrize(("target", "refuse"), [(0.05, 0.2), (0.1, 0.1), (0.01, 0.25)])
def test_cut_offs_are_where_the_probability_passes_the_risks(fitted, target, refuse):
    decision = Decision.from_calibration(fitted, target, refuse)
    uncertainty = np.linspace(-0.5, fitted.percentile_at[-1], 20_001)
    probability = fitted.probability(uncertainty)
    other = np.where(probability > refuse, "refuse", "ask again")
    expected = np.where(probability <= target, "accept", other)
    assert decision.verdict(uncertainty) == expected.tolist()
    assert decision.rule == (
        f"accept while P(false non-match) is at most {target:.3g}; refuse above {refuse:.3g}"
    )


def test_by_default_the_set_s_own_rate_is_accepted_and_ten_times_it_is_refused(fitted):
    errors, total = fitted.false_non_matches
    rate = (errors + 0.5) / (total + 1)
    assert Decision.from_calibration(fitted) == dataclasses.replace(
        Decision.from_calibration(fitted, rate, min(0.5, 10 * rate)),
        rule=f"accept while P(false non-match) is at most {rate:.3g}, the calibration set's own "
        f"rate; refuse above {min(0.5, 10 * rate):.3g}",
    )


def test_a_strict_target_is_no_reason_to_refuse_more(fitted):
    errors, total = fitted.false_non_matches
    strict = Decision.from_calibration(fitted, 1e-4)
    assert strict.accept_up_to is None
    assert strict.verdict([0.0, 0.3]) == ["ask again"] * 2
    ten_times = min(0.5, 10 * (errors + 0.5) / (total + 1))
    assert strict.refuse_above == Decision.from_calibration(fitted, 0.1, ten_times).refuse_above


def test_nothing_beyond_the_set_s_worst_image_is_accepted():
    faultless = fit(worst=0)
    decision = Decision.from_calibration(faultless)
    largest = float(disjoint_pairs(worst=0).uncertainty.max())
    assert decision.accept_up_to == largest
    assert decision.refuse_above is None
    assert decision.verdict([0.5, largest, largest + 0.1]) == ["accept", "accept", "ask again"]


def test_what_could_not_be_scored_is_refused():
    assert Decision(None, None, "").verdict([NAN, INF, -INF, 0.5]) == ["refuse"] * 3 + ["ask again"]
    assert Decision(0.5, 0.5, "").verdict([0.5, 0.6]) == ["accept", "refuse"]


@pytest.mark.parametrize("risk", ["fnmr", "total"])
def test_a_certified_cut_off_is_taken_over(fitted, risk):
    found = control_risk(disjoint_pairs(), target_risk=0.15, risk=risk, score_threshold=0.5)
    decision = Decision.from_risk_control(found, fitted)
    assert decision.accept_up_to == found.uncertainty_threshold is not None
    name = {"fnmr": "FNMR", "total": "total error"}[risk]
    assert decision.rule.startswith(
        f"{name} of accepted comparisons is at most 0.15, confidence 0.95; refuse where P(false no"
    )


def test_a_certified_cut_off_may_lie_above_the_pointwise_one(fitted):
    found = control_risk(disjoint_pairs(), target_risk=0.2, score_threshold=0.5)
    assert found.uncertainty_threshold > Decision.from_calibration(fitted, 0.2).accept_up_to
    decision = Decision.from_risk_control(found, fitted, refuse_risk=0.2)
    assert decision.refuse_above == decision.accept_up_to


def test_a_target_that_was_not_certified_accepts_nothing(fitted):
    found = control_risk(disjoint_pairs(), target_risk=1e-4, score_threshold=0.5)
    decision = Decision.from_risk_control(found, fitted)
    assert decision.accept_up_to is None
    assert decision.rule.startswith("accept none: it could not be certified that FNMR of accepted")


def test_another_score_threshold_is_said(fitted):
    found = control_risk(disjoint_pairs(), target_risk=0.2, score_threshold=0.4)
    assert ", at score threshold 0.4; refuse" in Decision.from_risk_control(found, fitted).rule


def test_the_file_carries_it_and_old_files_do_without(fitted, tmp_path):
    fitted.save(tmp_path / "old.json")
    assert "decision" not in json.loads((tmp_path / "old.json").read_text())
    assert Calibration.load(tmp_path / "old.json").decision is None
    decision = Decision.from_calibration(fitted, 0.01)
    dataclasses.replace(fitted, decision=decision).save(tmp_path / "new.json")
    found = Calibration.load(tmp_path / "new.json")
    assert found.decision == decision
    np.testing.assert_array_equal(found.uncertainty, fitted.uncertainty)
    json.loads((tmp_path / "new.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"accept_up_to": 1.0}, "a decision has the entries accept_up_to, refuse_above, rule: {'a"),
        (
            {"accept_up_to": "1", "refuse_above": 2, "rule": ""},
            "the cut-offs of a decision are numbers or null, not ('1', 2)",
        ),
        (
            {"accept_up_to": NAN, "refuse_above": 2, "rule": ""},
            "accept_up_to = nan: must be a finite",
        ),
        (
            {"accept_up_to": 3, "refuse_above": 2, "rule": ""},
            "accept_up_to = 3 lies above refuse_above = 2",
        ),
    ],
)
def test_a_damaged_file_is_refused(fitted, tmp_path, stored, message):
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(fitted.to_dict() | {"decision": stored}))
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("risks", "message"),
    [
        ((0, None), "target_risk = 0: must lie between 0 and 1"),
        ((0.1, 1), "refuse_risk = 1: must lie between 0 and 1"),
        ((0.1, 0.05), "refuse_risk = 0.05 must not be below target_risk = 0.1"),
        ((1e-6, 1e-5), "refuse_risk = 1e-05 would refuse every face: the most certain"),
    ],
)
def test_risks_that_make_no_sense(fitted, risks, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Decision.from_calibration(fitted, *risks)

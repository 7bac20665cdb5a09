"""Fitted doubt, certified cut-offs and intervals in worlds whose truth is known."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from evaluation.confidence.intervals import clopper_pearson
from report.identification import identification_dict, identification_text
from search import doubt
from search.doubt import Doubt, cross_fitted
from search.run import IdentificationOptions, SearchRule, certify, identify, rate_of
from tests.test_search.worlds import world


def test_doubt_is_the_posterior_where_log_ratios_are_linear():
    """Own scores N(4, 1), others N(0, 1): log P(c) / P(nobody) = 4 s - 8 + log prior ratio."""
    searches = world(np.random.default_rng(0), people=900, gallery=20, each=4, quality=False)
    fitted = Doubt.fit(searches, with_quality=False)
    slope = fitted.weights[1] / fitted.spread
    intercept = fitted.weights[0] - slope * fitted.centre
    assert slope == pytest.approx(4, abs=0.5)
    assert intercept == pytest.approx(-8 + np.log(1 / 880), abs=1.5)
    assert fitted.weights[2:] == pytest.approx([0, 0, 0, 0], abs=1e-6)
    shares = fitted.shares(searches)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    scores = searches.candidates.scores.astype(np.float64)
    odds = np.exp(intercept + slope * scores)
    np.testing.assert_allclose(shares[:, 1:], odds / (1 + odds.sum(axis=1, keepdims=True)))


def test_p_error_is_calibrated_on_other_people_and_knows_quality():
    searches = world(np.random.default_rng(1), people=600, gallery=200, each=5, noise=8)
    threshold = 3.5
    fitted = Doubt.fit(world(np.random.default_rng(2), people=600, gallery=200, each=5, noise=8))
    p_error = fitted.p_error(searches, threshold)
    named = searches.candidates.scores[:, 0] >= threshold
    right = np.where(named, searches.ranks == 1, ~searches.enrolled)
    order = np.argsort(p_error)
    for part in np.array_split(order, 5):
        expected, observed = p_error[part].mean(), 1 - right[part].mean()
        assert observed == pytest.approx(expected, abs=0.06)
    by_scores = Doubt.fit(searches, with_quality=False).p_error(searches, threshold)
    losses = [-np.log(np.where(right, 1 - p, p).clip(1e-6)).mean() for p in (p_error, by_scores)]
    assert losses[0] < losses[1]


def test_folds_share_no_person(monkeypatch):
    seen = []
    fit = Doubt.fit
    monkeypatch.setattr(
        doubt.Doubt, "fit", lambda one, **how: seen.append(set(one.person)) or fit(one, **how)
    )
    searches = world(np.random.default_rng(3), people=40, gallery=20, each=2)
    values = cross_fitted(searches, 0.1)
    assert len(seen) == 2 * doubt.FOLDS
    assert set.intersection(*seen) == set()
    assert all(np.isfinite(each).all() for each in values.values())


@pytest.mark.parametrize("by", ["quality", "p_error"])
@pytest.mark.parametrize(("risk", "target"), [("fpir", 0.05), ("fnir", 0.1)])
def test_a_certified_cut_keeps_its_risk_as_often_as_promised(by, risk, target):
    """Where the promise is broken more often than 1 - confidence allows, the test fails."""
    options = IdentificationOptions(
        fpir=(0.08,), target_risk=target, risk=risk, by=by, confidence=0.8
    )
    shape = {"people": 600, "gallery": 300, "noise": 6, "mean": 11}
    others = world(np.random.default_rng(1000), each=8, **shape)  # as good as the truth
    given = broken = 0
    for seed in range(30):
        searches = world(np.random.default_rng(seed), each=1, **shape)
        _, rule = certify(searches, options)
        if rule.accept_up_to is None:
            continue
        accepted = rule.values(others) <= np.float32(rule.accept_up_to)
        named = others.candidates.scores[:, 0] >= rule.score_threshold
        wrong, among = named, accepted & ~others.enrolled
        if risk == "fnir":
            wrong, among = ~(named & (others.ranks == 1)), accepted & others.enrolled
        given += 1
        broken += wrong[among].mean() > options.target_risk
    assert given >= 10
    assert binom.sf(broken - 1, given, 0.2) > 1e-3, (broken, given)


def test_intervals_over_people_cover_the_truth():
    """All photos of a person share the fate, so an interval over photos would be too narrow."""
    options, covered = IdentificationOptions(replicates=400), 0
    person = np.repeat(np.arange(80), 8)
    for seed in range(200):
        hit = np.random.default_rng(seed).random(80) < 0.5
        rate = rate_of(hit[person], person, options)
        assert rate.counts == (8 * hit.sum(), 640)
        covered += rate.interval.low <= 0.5 <= rate.interval.high
    assert 180 <= covered <= 199
    assert rate_of(hit, np.arange(80), options).interval == clopper_pearson(hit.sum(), 80)
    assert rate_of(person < 0, person, options).interval == clopper_pearson(0, 80)


def test_the_rule_comes_back_and_damage_is_refused(tmp_path):
    searches = world(np.random.default_rng(5))
    result = identify(searches, IdentificationOptions(fpir=(0.05,), replicates=20))
    result.rule.save(tmp_path / "rule.json")
    loaded = SearchRule.load(tmp_path / "rule.json")
    assert vars(loaded.doubt) == vars(result.rule.doubt)
    np.testing.assert_array_equal(loaded.values(searches), result.rule.values(searches))
    stored = json.loads((tmp_path / "rule.json").read_text())
    for change in (
        {"by": "luck"},
        {"doubt": None},
        {"score_threshold": None},
        {"doubt": {"weights": []}},
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**stored, **change}))
        with pytest.raises(ValueError, match=r"bad\.json"):
            SearchRule.load(tmp_path / "bad.json")


def test_text_and_json_say_the_same():
    searches = world(np.random.default_rng(6), noise=6)
    options = IdentificationOptions(
        fpir=(0.05, 0.001), replicates=40, target_risk=0.3, risk="total"
    )
    result = identify(searches, options)
    text, stored = identification_text(result), identification_dict(result)
    json.dumps(stored, allow_nan=False)
    point = stored["points"][0]
    assert f"FNIR {point['fnir']['errors']}/{point['fnir']['total']}" in text
    assert "at FPIR 0.001, 560 probes of strangers leave 0.56 expected false positives" in text
    assert "FNMR" not in text
    assert "paired draws of 200 people" in text
    assert point["uncertainties"]["quality"]["p_error_less_this"][0] == pytest.approx(
        point["uncertainties"]["P(error)"]["area"] - point["uncertainties"]["quality"]["area"]
    )


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"fpir": 0.1}, "fpir"),
        ({"fpir": (2,)}, "fpir"),
        ({"by": "x"}, "by"),
        ({"risk": "x"}, "risk"),
    ],
)
def test_options_are_checked(wrong, key):
    with pytest.raises(ValueError, match=key):
        IdentificationOptions(**wrong)

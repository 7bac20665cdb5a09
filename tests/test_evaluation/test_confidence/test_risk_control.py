"""The certified discard threshold: closed forms, plain answers, and the promise by simulation."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, norm

from evaluation.confidence.risk_control import control_risk, fewest_without_error, fixed_sequence
from evaluation.metrics.comparisons import Comparisons
from tests.test_evaluation.factories import all_pairs, apart, some_pairs

SETS = 150
CONFIDENCE = 0.9


def people_set(rng, people=300, images=6, spread=0.8, non_mated=4000):
    """Scores of one person share an effect; harder with uncertainty, mated and non-mated alike."""
    uncertainty = rng.random(people * images).astype(np.float32)
    effect = rng.normal(size=people)
    identity, pairs, mated = some_pairs(rng, people, images, non_mated)
    worse = uncertainty[pairs].max(axis=1)
    first, second = effect[identity[pairs]].T
    scores = np.where(
        mated,
        5.5 - 3 * worse**2 - spread * first,
        1.5 * worse + spread * (first + second) / np.sqrt(2),
    )
    scores += rng.normal(size=len(pairs)) * np.sqrt(1 - spread**2)
    return Comparisons("made-up", scores.astype(np.float32), mated, pairs, uncertainty, identity)


def true_risk(risk, tau, limit, mated_share):
    """Risk among accepted, over the uncertainties max(U, U') <= limit of `people_set`."""
    worse = min(limit, 1) * np.sqrt((np.arange(2000) + 0.5) / 2000)
    misses = norm.cdf(tau - (5.5 - 3 * worse**2)).mean()
    matches = norm.sf(tau - 1.5 * worse).mean()
    total = mated_share * misses + (1 - mated_share) * matches
    return {"fnmr": misses, "fmr": matches, "total": total}[risk]


def broken_promises(sets=SETS, **options):
    """(sets whose true risk is above the target, sets with an answer, mean share accepted)."""
    shape = {name: options.pop(name) for name in ("people", "images", "spread") if name in options}
    broken, accepted = 0, []
    for seed in range(sets):
        made = people_set(np.random.default_rng(seed), **shape)
        found = control_risk(made, confidence=CONFIDENCE, seed=seed, **options)
        if found.uncertainty_threshold is None:
            continue
        accepted.append(found.accepted)
        risk = true_risk(
            found.risk, found.score_threshold, found.uncertainty_threshold, made.mated.mean()
        )
        broken += risk > found.target_risk
    return broken, len(accepted), float(np.mean(accepted)) if accepted else 0.0


def most_allowed(sets=SETS):
    return binom.ppf(0.999, sets, 1 - CONFIDENCE)


def test_fewest_without_error_is_the_smallest_count_that_certifies():
    for risk in (0.5, 0.1, 0.005, 1e-4):
        for confidence in (0.5, 0.95, 0.999):
            count = fewest_without_error(risk, confidence)
            assert binom.cdf(0, count, risk) <= (1 - confidence) * (1 + 1e-9)
            assert binom.cdf(0, count - 1, risk) > 1 - confidence
    assert fewest_without_error(0.005, 0.95) == 598


def test_thresholds_are_tested_from_strict_to_lax_until_one_fails():
    uncertainty = np.arange(1000, dtype=np.float32)
    error = np.zeros(1000, np.bool_)
    error[900:] = True
    limit, seen = fixed_sequence(uncertainty, error, 0.05, 0.1)
    assert limit is not None
    accepted = int(limit) + 1
    assert seen == (accepted - 900, accepted)
    assert binom.cdf(*seen, 0.05) <= 0.1
    later = accepted + 9  # thresholds are less than so far apart
    assert binom.cdf(later - 900, later, 0.05) > 0.1


def test_the_search_stops_at_the_first_failure_even_if_laxer_ones_would_pass():
    error = np.zeros(5000, np.bool_)
    error[:60] = True  # the most certain comparisons are the wrong ones
    limit, seen = fixed_sequence(np.arange(5000, dtype=np.float32), error, 0.05, 0.05)
    assert binom.cdf(60, 5000, 0.05) < 1e-6
    assert limit is None
    assert seen.errors == 60


def test_which_thresholds_are_tested_does_not_depend_on_the_errors():
    uncertainty = np.random.default_rng(0).random(4000).astype(np.float32)
    strictest = [
        fixed_sequence(uncertainty, np.random.default_rng(seed).random(4000) < 0.5, 0.01, 0.05)
        for seed in range(5)
    ]
    assert {seen.total for _, seen in strictest} == {strictest[0][1].total}


def test_ties_are_accepted_together():
    uncertainty = np.repeat(np.float32([0.1, 0.2, 0.3]), 500)
    error = np.arange(1500) >= 1000
    limit, seen = fixed_sequence(uncertainty, error, 0.05, 0.05)
    assert limit == np.float32(0.2)
    assert seen == (0, 1000)


def promise(risk, target, people, images=3, **options):
    return {"risk": risk, "target_risk": target, "people": people, "images": images, **options}


PAIRS = {"images": 2, "unit": "pair", "spread": 0.0}  # independent


@pytest.mark.parametrize(
    "options",
    [
        promise("fnmr", 0.07, 300, images=6, score_threshold=2.5),
        promise("fnmr", 0.1, 300, images=6, fmr_target=3e-2),
        promise("fmr", 0.08, 1000, score_threshold=2.5),
        promise("fmr", 0.09, 1600, fmr_target=0.1),
        promise("total", 0.08, 500, score_threshold=2.6),
        promise("total", 0.1, 500, fmr_target=3e-2),
        promise("fnmr", 0.05, 1200, score_threshold=2.9, **PAIRS),
        promise("fmr", 0.025, 1200, score_threshold=3.0, **PAIRS),
        promise("total", 0.05, 1200, score_threshold=2.6, **PAIRS),
    ],
)
def test_the_promise_holds_where_comparisons_share_people_and_for_independent_pairs(options):
    broken, answers, accepted = broken_promises(**options)
    assert broken <= most_allowed()
    assert answers > 0.5 * SETS
    assert 0.2 < accepted < 0.9


def test_taking_pairs_of_shared_people_as_independent_breaks_the_promise():
    broken, _, _ = broken_promises(risk="fnmr", target_risk=0.06, score_threshold=3.0, unit="pair")
    assert broken > most_allowed()


@pytest.fixture(scope="module")
def made():
    return people_set(np.random.default_rng(3), people=800, spread=0.4, non_mated=20_000)


def test_an_answer_in_numbers(made):
    found = control_risk(made, target_risk=0.15, fmr_target=1e-2)
    others = made.scores[~made.mated]
    matches = int((others >= found.score_threshold).sum())
    assert found.threshold_count == (matches, len(others))
    assert matches <= 1e-2 * len(others) < matches + 1
    assert found.held_out_fmr is None
    stored = json.loads(json.dumps(found.to_dict()))
    assert stored["held_out"] == found.held_out._asdict()
    assert found.held_out_interval.low <= found.held_out.errors / found.held_out.total
    assert found.held_out.errors / found.held_out.total <= found.held_out_interval.high
    assert found.accept_all.total > found.held_out.total
    assert 0 < found.accepted < found.accepted_images < 1


def test_too_few_comparisons_and_too_many_errors_are_answers(made):
    found = control_risk(made, target_risk=1e-3, score_threshold=1.0)
    assert (found.uncertainty_threshold, found.needed) == (None, 2995)
    assert (found.held_out, found.accepted) == ((0, 0), 0)
    found = control_risk(made, target_risk=0.02, score_threshold=5.0)
    errors, total = found.calibration
    assert found.uncertainty_threshold is None
    assert found.most_errors < errors
    assert binom.cdf(found.most_errors, total, 0.02) <= 0.05
    assert binom.cdf(found.most_errors + 1, total, 0.02) > 0.05


def test_total_error_is_certified_for_the_mix_of_the_set():
    made = people_set(np.random.default_rng(5), people=1000, images=2, non_mated=1000)
    made = replace(made, scores=np.where(made.mated, 0, 1).astype(np.float32))
    found = control_risk(made, risk="total", target_risk=0.9, score_threshold=0.5)
    assert (found.accept_all.errors, found.uncertainty_threshold) == (found.accept_all.total, None)
    wrong = replace(made, scores=np.where(made.mated, 0, 0).astype(np.float32))
    found = control_risk(wrong, risk="total", target_risk=0.9, score_threshold=0.5)
    share = found.accept_all.errors / found.accept_all.total
    assert share == pytest.approx(made.mated.mean(), abs=1 / found.accept_all.total)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_risk": 0.0}, "target_risk = 0.0: must lie between 0 and 1"),
        ({"confidence": 1.0}, "confidence = 1.0: must lie between 0 and 1"),
        ({"risk": "far"}, "unknown risk 'far'"),
        ({"fmr_target": None}, "either an FMR target or a score threshold"),
        ({"score_threshold": 0.3}, "either an FMR target or a score threshold"),
        (
            {"fmr_target": None, "score_threshold": np.nan},
            "score_threshold = nan: must",
        ),
        ({"unit": "image"}, "cannot draw by image, the set does not say which image"),
    ],
)
def test_mistakes_are_named(made, options, message):
    arguments = {"target_risk": 0.01, "fmr_target": 1e-2, **options}
    with pytest.raises(ValueError, match=message):
        control_risk(made, **arguments)


def test_scores_that_are_not_listed_are_refused_where_they_count(made):
    partly = Comparisons(**{**vars(made), "unlisted": 1000, "listed_from": -20.0})
    with pytest.raises(ValueError, match=r"sample them \(--non_mated COUNT\)"):
        control_risk(partly, risk="total", target_risk=0.1, score_threshold=1.0)
    found = control_risk(partly, target_risk=0.1, fmr_target=1e-2)
    assert found.threshold_count.total == int((~made.mated).sum()) + 1000


def test_a_part_without_the_kind_that_is_needed():
    one = apart([0.5, 0.6], [True, False], [1, 2, 3, 4], "tiny")
    with pytest.raises(ValueError, match="tiny: a part has no mated comparison"):
        control_risk(one, target_risk=0.1, score_threshold=0.4)


@pytest.mark.parametrize("risk", ["fnmr", "fmr", "total"])
def test_too_few_people_to_draw_from_is_an_answer(risk):
    """Forty people, hardly a mated pair among all pairs: a total in these shares draws none."""
    rng = np.random.default_rng(0)
    identity, pairs, mated = all_pairs(40, 5)
    scores = (mated + rng.normal(size=len(pairs))).astype(np.float32)
    made = Comparisons("few", scores, mated, pairs, rng.random(200).astype(np.float32), identity)
    found = control_risk(made, risk=risk, target_risk=0.01, score_threshold=0.5)
    assert found.uncertainty_threshold is None
    assert found.calibration_total < found.needed
    json.dumps(found.to_dict())

"""P(same person): known likelihood ratios, the prior, the order of the faces, and its limits."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from evaluation.confidence.same_person import WEIGHT, SamePerson, bounds_of, posterior
from evaluation.metrics.comparisons import Comparisons
from evaluation.same_person_run import ALONE, check_same_person, least_cllr, weigh_evidence
from tests.test_docs.test_docs import ROOT, text_of
from tests.test_evaluation.factories import some_pairs

BEND = 0.3
LINES = ((0.0, 25.0, 35.0), (2.0, 5.0, 9.0))  # offset, slope below the bend, slope above it


def true_log_ratio(scores, first, second):
    """Natural logarithm of the likelihood ratio of `drawn`, of uncertainties in 0..1."""
    x, beyond = (np.asarray(first, float) + np.asarray(second, float)) / 2, scores - BEND
    low, high = (a + np.where(beyond < 0, b, c) * beyond for a, b, c in LINES)
    return (1 - x) * low + x * high


def drawn(rng, count, images=2000):
    """Comparisons that are mated or not by `true_log_ratio`; its shift by how many are mated."""
    uncertainty = rng.random(images).astype(np.float32)
    uncertainty[:50], uncertainty[50:100] = 0, 1
    pairs = rng.integers(images, size=(count, 2)).astype(np.int32)
    scores = rng.uniform(-0.3, 0.9, count).astype(np.float32)
    mated = rng.random(count) < 1 / (1 + np.exp(-true_log_ratio(scores, *uncertainty[pairs].T)))
    made = Comparisons("drawn", scores, mated, pairs, uncertainty, None, np.arange(images))
    return made, math.log((~mated).sum() / mated.sum())


@pytest.fixture(scope="module")
def made():
    return drawn(np.random.default_rng(0), 120_000)


@pytest.fixture(scope="module")
def fitted(made):
    return SamePerson.fit(made[0], prior=0.2)


def test_known_likelihood_ratios_are_recovered(made, fitted):
    comparisons, shift = made
    score, u, v = np.meshgrid([0.1, 0.3, 0.5], [0, 0.4, 1], [0.1, 0.9])
    expected = true_log_ratio(score, u, v) + shift
    np.testing.assert_allclose(fitted.log_ratio(score, u, v), expected, atol=0.25)


def test_the_fit_is_that_of_scikit_learn(made, fitted):
    made, _ = made
    ends = fitted.certain, fitted.uncertain
    x = ((made.uncertainty[made.pairs] - ends[0]) / (ends[1] - ends[0])).clip(0, 1).mean(axis=1)
    means = made.scores[made.mated].mean(), made.scores[~made.mated].mean()
    assert fitted.bend == pytest.approx(np.mean(means))
    beyond = made.scores - fitted.bend
    line = np.column_stack([np.ones(len(x)), beyond.clip(max=0), beyond.clip(min=0)])
    inputs = np.hstack([(1 - x)[:, None] * line, x[:, None] * line])
    weights = np.where(made.mated, WEIGHT / made.mated.mean(), (1 - WEIGHT) / (~made.mated).mean())
    found = LogisticRegression(C=1e6, fit_intercept=False, tol=1e-8, max_iter=1000)
    found.fit(inputs, made.mated, sample_weight=weights)
    expected = np.array([fitted.offset, fitted.below, fitted.above]).T
    expected[:, 0] += math.log(WEIGHT / (1 - WEIGHT))  # the shares of both lines add up to 1
    np.testing.assert_allclose(found.coef_[0], expected.ravel(), rtol=5e-3, atol=5e-3)


def test_the_prior_shifts_log_odds_and_nothing_else(fitted):
    p = fitted.probability([0.2, 0.4], 0.3, 0.6, prior=0.5)
    for prior in (1e-9, 0.001, 0.99):
        shifted = fitted.probability([0.2, 0.4], 0.3, 0.6, prior=prior)
        odds = p / (1 - p) * prior / (1 - prior)
        np.testing.assert_allclose(shifted, odds / (1 + odds), rtol=1e-9)
    own = fitted.probability(0.2, 0.3, 0.6)
    assert own == fitted.probability(0.2, 0.3, 0.6, prior=0.2)


def test_symmetric_monotone_bounded(fitted):
    rng = np.random.default_rng(1)
    u, v = rng.normal(0.5, 2, (2, 400))
    scores = np.sort(rng.normal(0, 3, (400, 50)), axis=1)
    ratio = fitted.log_ratio(scores, u[:, None], v[:, None])
    np.testing.assert_array_equal(ratio, fitted.log_ratio(scores, v[:, None], u[:, None]))
    assert (np.diff(ratio, axis=1) >= 0).all()
    least, most = -math.log(fitted.mated + 1), math.log(fitted.non_mated + 1)
    assert (ratio.min(), ratio.max()) == (least, most) == (fitted.least, fitted.most)
    assert np.isnan(fitted.log_ratio(0.5, np.nan, 0.1))
    assert np.isnan(fitted.log_ratio(np.nan, 0.1, 0.1))


def test_scores_that_do_not_overlap_are_no_proof():
    rng = np.random.default_rng(2)
    mated = np.arange(60) < 30
    pairs = np.arange(120, dtype=np.int32).reshape(-1, 2)
    scores = np.where(mated, 1e6, -1e6).astype(np.float32)  # of another tool, on its own scale
    made = Comparisons("apart", scores, mated, pairs, rng.random(120).astype(np.float32))
    p = SamePerson.fit(made).probability(scores, 0.5, 0.5)
    np.testing.assert_allclose(p[[0, -1]], [31 / 32, 1 / 32], rtol=1e-6)


def test_equal_uncertainties_say_nothing(made):
    plain = made[0].with_uncertainty(np.full_like(made[0].uncertainty, 3))
    found = SamePerson.fit(plain)
    np.testing.assert_array_equal(found.log_ratio(0.4, 3, 3), found.log_ratio(0.4, -9, 70))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior": 0}, "prior = 0.*: must be between 0 and 1"),
        ({"prior": 1.0}, "prior = 1.0: must be between 0 and 1"),
        ({"mated": 19}, "mated = 19: must be 20 comparisons or more"),
        ({"below": [1.0, -1.0]}, "below, above = .*never falls"),
        ({"above": [1.0]}, "same_person = .*two of each"),
        ({"offset": [1e300, 0.0]}, "within -1e.15 to 1e.15"),
        ({"offset": [math.nan, 0.0]}, "offset.*finite"),
        ({"certain": 2.0, "uncertain": 1.0}, "ascending"),
        ({"most": 40.0}, "least, most = .*within what the comparisons can show"),
        ({"least": 3.0, "most": 2.0}, "within what the comparisons can show"),
        ({"other": 1}, "other"),
    ],
)
def test_what_is_no_map_is_refused(fitted, change, message):
    stored = fitted.to_dict()
    assert SamePerson.from_dict(stored) == fitted
    with pytest.raises(ValueError, match=message):
        SamePerson.from_dict(stored | change)


def test_mistakes_are_named(made, fitted):
    made, _ = made
    few = np.flatnonzero(made.mated)[:19]
    rows = np.concatenate([few, np.flatnonzero(~made.mated)])
    parts = {name: getattr(made, name)[rows] for name in ("scores", "mated", "pairs")}
    with pytest.raises(ValueError, match="drawn: 19 mated and .* are too few for P.same person"):
        SamePerson.fit(dataclasses.replace(made, **parts))
    with pytest.raises(ValueError, match="drawn: .* 7 non-mated comparisons are not listed"):
        SamePerson.fit(dataclasses.replace(made, unlisted=7))
    for prior in (0, 1, -1, math.nan):
        with pytest.raises(ValueError, match="prior = .* must be between 0 and 1"):
            fitted.probability(0.5, 0.1, 0.1, prior=prior)
        with pytest.raises(ValueError, match="prior = .* must be between 0 and 1"):
            SamePerson.fit(made, prior=prior)


def people_of(rng, people=120, images=6, others=6000, doubt=0.6):
    """Faces with identities; a face of high uncertainty scores low, as its person's others do."""
    identity = np.repeat(np.arange(people), images)
    uncertainty = rng.random(len(identity)).astype(np.float32)
    mean = rng.normal(size=(people, 24))[identity]
    mu = mean + rng.normal(size=mean.shape) * (0.3 + 2 * doubt * uncertainty[:, None])
    unit = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    sides = np.stack(np.triu_indices(images, 1), axis=1)
    own = (np.arange(people)[:, None, None] * images + sides).reshape(-1, 2)
    drawn = rng.integers(len(identity), size=(others, 2))
    drawn = drawn[identity[drawn[:, 0]] != identity[drawn[:, 1]]]
    pairs = np.concatenate([own, drawn]).astype(np.int32)
    scores = (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1).astype(np.float32)
    mated = np.arange(len(pairs)) < len(own)
    return Comparisons("people", scores, mated, pairs, uncertainty, identity)


def test_the_uncertainties_help_and_noise_does_not():
    made = people_of(np.random.default_rng(3))
    noise = np.random.default_rng(4).random(len(made.uncertainty)).astype(np.float32)
    found = check_same_person(made, {"own": made.uncertainty, "noise": noise}, replicates=100)
    alone, own, other = found.checks
    assert (alone.method, alone.difference) == (ALONE, 0)
    assert own.difference < own.interval.high < 0
    assert other.interval.high > 0
    assert own.min_cllr < own.cllr < alone.cllr < 1
    assert own == check_same_person(made, {"own": made.uncertainty}, replicates=100).checks[1]


def test_losses_by_hand(made, fitted):
    made, shift = made
    ratio = fitted.log_ratio(made.scores, *made.uncertainty[made.pairs].T)
    found = weigh_evidence(made, {ALONE: ratio}, 0.1, "pair", replicates=20).checks[0]
    for prior, value in ((0.1, found.log_loss), (0.5, found.cllr)):
        weights = np.where(
            made.mated, prior / made.mated.mean(), (1 - prior) / (~made.mated).mean()
        )
        p = posterior(ratio, prior)
        bits = log_loss(made.mated, p, sample_weight=weights) / math.log(2)
        assert value == pytest.approx(bits, rel=1e-9)
    weights = np.where(made.mated, 0.5 / made.mated.mean(), 0.5 / (~made.mated).mean())
    best = IsotonicRegression().fit_transform(ratio, made.mated, sample_weight=weights)
    bits = log_loss(made.mated, best, sample_weight=weights) / math.log(2)
    assert least_cllr(ratio, made.mated) == pytest.approx(bits, rel=1e-6)
    assert found.cllr < least_cllr(ratio, made.mated) + 0.002


def test_chance_covers_a_true_map_and_not_a_wrong_one():
    rng, p_values = np.random.default_rng(5), []
    for _ in range(20):
        made, shift = drawn(rng, 4000, images=400)
        truth = true_log_ratio(made.scores, *made.uncertainty[made.pairs].T) + shift
        wrong = truth + 1
        found = weigh_evidence(made, {ALONE: truth, "wrong": wrong}, 0.5, "pair", replicates=60)
        p_values.append([check.p_value for check in found.checks])
    true, false = np.array(p_values).T
    assert (true > 0.05).sum() >= 16
    assert (false < 0.05).all()


def test_chance_is_that_of_people_not_of_pairs():
    """Scores of a person share an effect, and LR is known: exp((.4 s - .08) / .12 ** 2)."""
    rng, p_values = np.random.default_rng(0), []
    for _ in range(30):
        identity, pairs, mated = some_pairs(rng, 100, 6, 6000)
        (own, other), (i, j) = rng.normal(size=(2, 100)), identity[pairs].T
        noise = rng.normal(size=len(pairs))
        shared = np.where(mated, 0.8 * own[i] + 0.6 * noise, 0.4 * (other[i] + other[j]))
        spread = np.where(mated, shared, shared + math.sqrt(0.68) * noise)
        scores = (0.4 * mated + 0.12 * spread).astype(np.float32)
        made = Comparisons("effects", scores, mated, pairs, np.zeros(600, np.float32), identity)
        ratio = (0.4 * scores.astype(float) - 0.08) / 0.12**2
        units = ("identity", "pair")
        found = [weigh_evidence(made, {ALONE: ratio}, 0.5, unit, 60).checks[0] for unit in units]
        p_values.append([check.p_value for check in found])
    by_people, by_pairs = (np.array(p_values) <= 0.05).mean(axis=0)
    assert by_people <= 0.1 < 0.3 < by_pairs


def test_the_worked_example_of_the_docs():
    text = text_of(ROOT / "docs" / "ship.md").partition("### P(same person) in your own code")[2]
    stored = json.loads(re.search(r"```json\n(.*?)```", text, re.S)[1])
    cosine, *sides = map(
        float, re.search(r"cosine (\S+), u1 = (\S+) and u2 = (\S+):", text).groups()
    )
    least, most = stored["certain"], stored["uncertain"]
    x = sum((min(max(side, least), most) - least) / (most - least) for side in sides) / 2
    beyond = cosine - stored["bend"]
    slopes = stored["below"] if beyond < 0 else stored["above"]
    low, high = (a + b * beyond for a, b in zip(stored["offset"], slopes, strict=True))
    ratio = min(max((1 - x) * low + x * high, stored["least"]), stored["most"])
    said = re.findall(r"P\s= (\S+) at prior ([\d.]+\d)", text)
    assert len(said) == 2
    for p, prior in said:
        own = 1 / (1 + math.exp(-(ratio + math.log(float(prior) / (1 - float(prior))))))
        assert f"{own:.4f}" == p
        mapped = SamePerson.from_dict(stored).probability(cosine, *sides, prior=float(prior))
        assert float(mapped) == pytest.approx(own, rel=1e-12)


def test_bounds_are_what_was_counted():
    assert bounds_of(99, 999) == (-math.log(100), math.log(1000))
    assert posterior(np.array(bounds_of(99, 999)), 0.5).tolist() == pytest.approx(
        [1 / 101, 1000 / 1001]
    )

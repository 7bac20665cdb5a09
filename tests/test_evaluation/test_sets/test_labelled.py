from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.faces import open_faces
from data.features import unit_rows
from data.labelled_pairs import mated_pairs, non_mated_pairs, require_pairs
from evaluation.metrics.comparisons import cosine_of_pairs
from evaluation.sets import labelled
from evaluation.sets.labelled import highest_non_mated, labelled_comparisons, scores_of
from tests.helpers import SHARED

LABELS = np.array([4, 2, 4, 9, 2, 4, 7])
FACES = SHARED / "faces" / "lfw_dev"


def made_up(rows=60, people=9, size=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(people, size=rows) * 3 - 5
    centre = rng.normal(size=(3 * people, size))
    mu = (centre[labels + 5] + rng.normal(size=(rows, size))) * rng.uniform(0.1, 9, (rows, 1))
    return mu.astype(np.float32), labels, rng.random(rows, dtype=np.float32)


def brute(mu, labels):
    """{(first, second): cosine in float64} of all pairs, mated and non-mated apart."""
    kinds = {}, {}
    mu = mu.astype(np.float64)
    for a, b in combinations(range(len(mu)), 2):
        cosine = mu[a] @ mu[b] / np.linalg.norm(mu[a]) / np.linalg.norm(mu[b])
        kinds[int(labels[a] != labels[b])][a, b] = cosine
    return kinds


def as_dict(found, chosen):
    rows = zip(found.pairs[chosen].tolist(), found.scores[chosen].tolist(), strict=True)
    pairs = {tuple(pair): score for pair, score in rows}
    assert len(pairs) == chosen.sum(), "a pair is listed twice"
    return pairs


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for pair, score in expected.items():
        assert found[pair] == pytest.approx(score, abs=2e-7)


def test_all_mated_pairs():
    expected = {(a, b) for a, b in combinations(range(7), 2) if LABELS[a] == LABELS[b]}
    pairs = mated_pairs(LABELS)
    assert {tuple(pair) for pair in pairs.tolist()} == expected
    assert len(pairs) == len(expected)


def test_mated_pairs_per_identity_are_capped_by_a_seeded_draw():
    labels = np.repeat([0, 1], [10, 3])
    pairs = mated_pairs(labels, cap=5, seed=1)
    assert np.bincount(labels[pairs[:, 0]]).tolist() == [5, 3]
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all()
    assert len({tuple(pair) for pair in pairs.tolist()}) == 8
    np.testing.assert_array_equal(pairs, mated_pairs(labels, cap=5, seed=1))
    assert (pairs != mated_pairs(labels, cap=5, seed=2)).any()
    np.testing.assert_array_equal(mated_pairs(labels, cap=45), mated_pairs(labels))


def test_capped_draws_are_uniform_over_an_identitys_pairs():
    labels = np.zeros(5, np.int64)
    counts = np.zeros((5, 5))
    for seed in range(2000):
        first, second = mated_pairs(labels, cap=3, seed=seed).T
        counts[first, second] += 1
    drawn = counts[np.triu_indices(5, 1)]
    assert drawn.sum() == 6000
    assert np.abs(drawn - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)


def test_unusable_labels_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="no mated pair: none of 3 images shares its identity"):
        mated_pairs(np.arange(3))
    with pytest.raises(ValueError, match="cap = -1: must be 1 or more"):
        mated_pairs(LABELS, cap=-1)
    with pytest.raises(ValueError, match="no non-mated pair: all 4 images are of one identity"):
        require_pairs(np.ones(4, np.int64), None)
    require_pairs(LABELS, 1)
    monkeypatch.setattr("data.labelled_pairs.MOST_MATED", 3)
    with pytest.raises(ValueError, match="4 mated pairs, more than 3: set a cap per identity"):
        require_pairs(LABELS, None)
    require_pairs(LABELS, 2)


def test_non_mated_pairs_are_different_seeded_and_uniform():
    possible = {(a, b) for a, b in combinations(range(7), 2) if LABELS[a] != LABELS[b]}
    counts = dict.fromkeys(possible, 0)
    for seed in range(3000):
        drawn = [tuple(pair) for pair in non_mated_pairs(LABELS, 5, seed).tolist()]
        assert len(set(drawn)) == 5
        for pair in drawn:
            counts[pair] += 1
    share = 5 / len(possible)
    spread = np.sqrt(3000 * share * (1 - share))
    assert max(abs(count - 3000 * share) for count in counts.values()) < 5 * spread
    np.testing.assert_array_equal(non_mated_pairs(LABELS, 5, 8), non_mated_pairs(LABELS, 5, 8))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=14), st.integers(1, 100), st.integers(0, 9))
def test_drawn_pairs_are_non_mated_and_as_many_as_asked_for(drawn, count, seed):
    labels = np.array(drawn)
    possible = {(a, b) for a, b in combinations(range(len(labels)), 2) if labels[a] != labels[b]}
    if not possible:
        with pytest.raises(ValueError, match=f"cannot draw {count} non-mated pairs"):
            non_mated_pairs(labels, count, seed)
        return
    found = {tuple(pair) for pair in non_mated_pairs(labels, count, seed).tolist()}
    assert found <= possible
    assert len(found) == min(count, len(possible))


@pytest.mark.parametrize(("labels", "count"), [([1, 1, 1], 5), ([], 5), ([1, 2], 0)])
def test_non_mated_pairs_that_do_not_exist(labels, count):
    with pytest.raises(ValueError, match=f"cannot draw {count} non-mated pairs from {len(labels)}"):
        non_mated_pairs(np.array(labels, np.int64), count)


def test_scores_of_pairs_are_the_bin_protocols_to_the_last_bit(monkeypatch):
    mu, _, _ = made_up(rows=40, size=33)
    pairs = np.arange(40).reshape(-1, 2)
    np.testing.assert_array_equal(scores_of(mu, pairs), cosine_of_pairs(mu))
    monkeypatch.setattr("data.features._GATHERED", 100)
    np.testing.assert_array_equal(scores_of(mu, pairs), cosine_of_pairs(mu))


@pytest.mark.parametrize("non_mated", ["all", 10**6])
def test_every_pair_of_a_small_set_against_a_double_loop(non_mated):
    mu, labels, uncertainty = made_up()
    options = {"non_mated": non_mated, "cap": 0}
    found = labelled_comparisons(mu, labels, uncertainty, name="tiny", **options)
    mated, others = brute(mu, labels)
    assert_close(as_dict(found, found.mated), mated)
    assert_close(as_dict(found, ~found.mated), others)
    assert (found.name, found.unlisted, found.listed_from) == ("tiny", 0, -np.inf)
    np.testing.assert_array_equal(found.identity, labels)
    np.testing.assert_array_equal(found.uncertainty, uncertainty)
    assert found.best_unit == "identity"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 400), st.tuples(st.integers(1, 70), st.integers(1, 70)))
def test_the_high_end_against_a_double_loop(seed, count, block):
    mu, labels, _ = made_up(rows=30, people=5, seed=seed)
    unit = unit_rows(mu)
    _, others = brute(mu, labels)
    if count > len(others):
        with pytest.raises(ValueError, match=f"cannot list {count} of {len(others)} non-mated"):
            highest_non_mated(unit, labels, count, block)
        return
    found = highest_non_mated(unit, labels, count, block)
    highest = sorted(others, key=others.get, reverse=True)[:count]
    assert [tuple(pair) for pair in found.pairs.tolist()] == sorted(highest)
    np.testing.assert_array_equal(found.scores, scores_of(mu, found.pairs))


def test_listing_the_high_end_counts_the_rest_exactly():
    mu, labels, uncertainty = made_up(rows=120, people=30)
    whole = labelled_comparisons(mu, labels, uncertainty, non_mated="all")
    part = labelled_comparisons(mu, labels, uncertainty, non_mated="all", listed=500)
    assert part.non_mated_total == whole.non_mated_total == (~whole.mated).sum()
    assert (~part.mated).sum() == 500
    assert part.unlisted == whole.non_mated_total - 500
    others = np.sort(whole.scores[~whole.mated])
    assert part.listed_from == others[-500] > others[-501]
    np.testing.assert_array_equal(np.sort(part.scores[~part.mated]), others[-500:])
    np.testing.assert_array_equal(part.scores[part.mated], whole.scores[whole.mated])


def test_equal_scores_at_the_lower_end_are_all_listed():
    labels = np.arange(50) // 2
    mu = np.ones((50, 3), np.float32)
    mu[:4] = [[1, 0, 0], [1, 0, 0], [1, 0.01, 0], [1, 0.01, 0]]
    found = labelled_comparisons(mu, labels, np.ones(50, np.float32), non_mated="all", listed=10)
    others = brute(mu, labels)[1]
    tied = sum(score > 0.99999 for score in others.values())
    assert (~found.mated).sum() == tied > 10
    assert found.unlisted == len(others) - tied
    assert found.listed_from == found.scores[~found.mated].min()


def test_results_do_not_depend_on_blocks_or_on_what_is_dropped_on_the_way():
    rng = np.random.default_rng(3)
    labels = rng.integers(40, size=300)
    mu = rng.normal(size=(300, 64)).astype(np.float32)
    mu[200:] = mu[:100] * 2  # equal scores of different pairs
    unit = unit_rows(mu)
    whole = highest_non_mated(unit, labels, 3000, (300, 300))
    for block in ((1, 300), (17, 23), (300, 1), (1024, 8192)):
        part = highest_non_mated(unit, labels, 3000, block)
        np.testing.assert_array_equal(part.pairs, whole.pairs)
        np.testing.assert_array_equal(part.scores, whole.scores)


def test_what_is_listed_covers_the_equal_error_rate(monkeypatch):
    monkeypatch.setattr(labelled, "LISTED_AT_LEAST", 100)
    rng = np.random.default_rng(1)
    labels = np.arange(400) // 4
    people = rng.normal(size=(100, 12))
    for noise in (0.2, 0.8):
        mu = (people[labels] + noise * rng.normal(size=(400, 12))).astype(np.float32)
        found = labelled_comparisons(mu, labels, np.ones(400, np.float32), non_mated="all")
        assert found.unlisted > 0
        share = (~found.mated).sum() / found.non_mated_total
        assert share >= 0.012
        missed = (found.scores[found.mated] < found.listed_from).mean()
        assert missed < share, "the rates must cross above the lowest listed score"


def test_unsound_arrays_are_named():
    mu, labels, uncertainty = made_up(rows=20)
    with pytest.raises(ValueError, match="dev: 20 embeddings, 19 labels and 20 uncertainties"):
        labelled_comparisons(mu, labels[1:], uncertainty, name="dev")
    with pytest.raises(ValueError, match="dev: no mated pair"):
        labelled_comparisons(mu, np.arange(20), uncertainty, name="dev")
    mu[7] = 0
    with pytest.raises(ValueError, match=r"dev: mu has 1 embeddings of length zero, .* in row 7"):
        labelled_comparisons(mu, labels, uncertainty, name="dev")
    mu[7] = np.nan
    with pytest.raises(ValueError, match="row 7: a cosine with them is undefined"):
        labelled_comparisons(mu, labels, uncertainty, name="dev")


@pytest.mark.skipif(not FACES.exists(), reason="needs ../shared/faces")
def test_lfw_dev_has_as_many_pairs_as_its_labels_say():
    labels = open_faces(str(FACES)).labels
    rng = np.random.default_rng(0)
    mu = rng.normal(size=(len(labels), 8)).astype(np.float32)
    found = labelled_comparisons(
        mu, labels, np.zeros(len(mu), np.float32), non_mated="all", listed=1000
    )
    sizes = np.bincount(labels)
    everything = (sizes * (sizes - 1) // 2).sum()
    assert found.mated.sum() == np.minimum(sizes * (sizes - 1) // 2, 20).sum() == 2585
    assert found.cap == (20, everything - 2585, everything)
    assert found.non_mated_total + everything == 3842 * 3841 // 2
    (caution,) = found.cautions  # a person with 530 of the images
    assert caution.facts["kind"] == "non-mated"
    assert caution.facts["share"] == 530 * (3842 - 530) / found.non_mated_total

"""Parts that share no person, and draws of comparisons that share none."""

import dataclasses

import numpy as np
import pytest

from evaluation.confidence.risk_control import draw_disjoint, people_of, select, split
from evaluation.metrics.comparisons import Comparisons
from tests.test_evaluation.factories import some_pairs


def linked(people=60, images=5, others=3000, seed=0):
    """All mated pairs of each person, and random non-mated ones that link everybody."""
    rng = np.random.default_rng(seed)
    identity, pairs, mated = some_pairs(rng, people, images, others)
    scores, uncertainty = (
        rng.random(count).astype(np.float32) for count in (len(pairs), people * images)
    )
    return Comparisons("made-up", scores, mated, pairs, uncertainty, identity)


@pytest.mark.parametrize("seed", range(3))
def test_no_person_is_in_two_parts(seed):
    made = linked()
    cut = split(made, (0.5, 0.3, 0.2), seed=seed)
    people = [set(made.identity[made.pairs[cut.rows(part)]].ravel()) for part in range(3)]
    assert sum(map(len, people)) == len(set.union(*people))
    assert [len(one) / 60 for one in people] == pytest.approx([0.5, 0.3, 0.2], abs=0.05)
    left = np.flatnonzero(cut.part == -1)
    assert cut.left_out == len(left) > 0
    assert not made.mated[left].any()
    assert len(left) + sum(len(cut.rows(part)) for part in range(3)) == len(made.scores)


def test_small_linked_groups_stay_whole():
    made = linked()
    made = select(made, np.flatnonzero(made.mated))
    cut = split(made, (0.5, 0.5))
    assert cut.left_out == 0
    assert len(cut.rows(0)) == pytest.approx(len(made.scores) / 2, rel=0.1)


def test_the_cut_follows_the_seed_alone():
    made = linked()
    cut = split(made, (0.5, 0.5), seed=1)
    changed = dataclasses.replace(made, scores=made.scores[::-1], uncertainty=-made.uncertainty)
    assert (split(changed, (0.5, 0.5), seed=1).part == cut.part).all()
    assert (split(made, (0.5, 0.5), seed=2).part != cut.part).any()


def test_images_that_mated_pairs_link_are_one_person():
    made = Comparisons(
        "bin",
        np.zeros(4, np.float32),
        np.array([True, True, False, True]),
        np.arange(8, dtype=np.int32).reshape(-1, 2),
        np.zeros(8, np.float32),
        image=np.array([7, 8, 8, 9, 7, 3, 3, 4]),
    )
    people = people_of(made)
    assert people[0, 0] == people[0, 1] == people[1, 0] == people[1, 1] == people[2, 0]
    assert people[2, 1] == people[3, 0] == people[3, 1] != people[0, 0]
    assert (people_of(made, "pair") == np.arange(4)[:, None]).all()
    with pytest.raises(ValueError, match="bin: cannot draw by identity, the set does not say"):
        people_of(made, "identity")


@pytest.mark.parametrize("seed", range(3))
def test_a_draw_is_that_of_the_plain_loop(seed):
    people = people_of(linked(others=300))
    rank = np.random.default_rng(seed).permutation(len(people))
    used, expected = set(), []
    for row in np.argsort(rank):
        if not used & set(people[row]):
            used |= set(people[row])
            expected.append(row)
    assert draw_disjoint(people, seed).tolist() == sorted(expected)


def test_a_draw_of_mated_comparisons_has_one_of_each_person():
    made = linked()
    people = people_of(made)[made.mated]
    drawn = draw_disjoint(people, 0)
    assert sorted(people[drawn, 0]) == list(range(60))
    assert len(draw_disjoint(np.empty((0, 2), np.int64))) == 0


def test_every_comparison_of_a_person_is_as_likely():
    people = np.zeros((4, 2), np.int64)
    drawn = [int(draw_disjoint(people, seed)[0]) for seed in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, 0.25, atol=0.03)


def test_a_selection_is_of_listed_comparisons():
    made = dataclasses.replace(linked(), unlisted=10, listed_from=-1.0)
    assert select(made, np.flatnonzero(made.mated)).unlisted == 0
    with pytest.raises(ValueError, match="10 non-mated comparisons are counted but not listed"):
        select(made, np.arange(len(made.scores)))


def test_nothing_to_split():
    none = select(linked(), np.empty(0, np.intp))
    with pytest.raises(ValueError, match="made-up: no comparison to split"):
        split(none, (0.5, 0.5))

"""Properties of class-balanced batches, and their distribution against what it should be."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.loader import ClassBalancedBatches, RankShare


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(1, 12), min_size=3, max_size=20),
    per_class=st.integers(2, 9),
    seed=st.integers(0, 2**40),
    step=st.integers(0, 10**6),
)
def test_every_batch_is_balanced(counts, per_class, seed, step):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    usable = sum(count > 1 for count in counts)
    if usable < 2:
        return
    sampler = ClassBalancedBatches(labels, usable - 1, per_class, seed)
    rows = sampler.rows(step).reshape(usable - 1, per_class)
    owners = labels[rows]
    assert (owners == owners[:, :1]).all()
    assert len(set(owners[:, 0])) == usable - 1
    for owner, images in zip(owners[:, 0], rows.tolist(), strict=True):
        repeats = Counter(images)
        assert len(repeats) == min(per_class, counts[owner])
        assert max(repeats.values()) - min(repeats.values()) <= 1
    assert sampler.num_left_out_classes == counts.count(1)
    assert sampler.num_classes == usable


def test_a_step_s_rows_depend_on_seed_and_step_alone():
    labels = np.repeat(np.arange(40), 6)
    straight = ClassBalancedBatches(labels, 5, 4, seed=3)
    expected = [straight.rows(step).tolist() for step in range(200)]
    resumed = ClassBalancedBatches(labels, 5, 4, seed=3)
    order = np.random.default_rng(0).permutation(200).tolist()
    assert {step: resumed.rows(step).tolist() for step in order} == dict(enumerate(expected))
    assert len({tuple(rows) for rows in expected}) == 200
    other = ClassBalancedBatches(labels, 5, 4, seed=4)
    assert all(other.rows(step).tolist() != expected[step] for step in range(50))


def test_classes_and_images_come_up_equally_often():
    counts = [2, 3, 5, 20, 50]
    labels = np.repeat(np.arange(5), counts)
    sampler = ClassBalancedBatches(labels, 2, 4, seed=0)
    seen = Counter()
    steps = 8000
    for step in range(steps):
        seen.update(sampler.rows(step).tolist())
    expected = 0.4 * 4 / np.repeat(counts, counts)  # P(class) x K / images of the class
    drawn = np.array([seen[row] for row in range(len(labels))])
    error = np.abs(drawn - steps * expected) / np.sqrt(steps * expected)
    assert error.max() < 4.5


def test_pairs_of_images_come_up_equally_often():
    """Floyd's subsets are uniform: each of the 10 pairs of 5 images is as likely as another."""
    sampler = ClassBalancedBatches(np.repeat([0], 5), 1, 2, seed=1)
    pairs = Counter(tuple(sorted(sampler.rows(step).tolist())) for step in range(5000))
    assert len(pairs) == 10
    assert np.abs(np.array(list(pairs.values())) - 500).max() < 4.5 * np.sqrt(500 * 0.9)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_shares_of_ranks_are_whole_classes_of_the_global_batch(size):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(30), 5))
    whole = ClassBalancedBatches(labels, 6, 4, seed=1)
    samplers = [ClassBalancedBatches(labels, 6, 4, seed=1) for _ in range(size)]
    shares = [RankShare(sampler, rank, size) for rank, sampler in enumerate(samplers)]
    for step in (0, 5, 31, 32, 1000):
        parts = [share.rows(step) for share in shares]
        assert np.concatenate(parts).tolist() == whole.rows(step).tolist()
        people = [set(labels[part].tolist()) for part in parts]
        assert [len(one) for one in people] == [6 // size] * size


def test_rows_do_not_depend_on_the_type_of_labels_or_their_order():
    """Sorted labels are indexed without an array of rows; the batches are the same ones."""
    labels = np.repeat(np.arange(40), np.random.default_rng(0).integers(1, 9, 40))
    unsorted = np.concatenate([labels, [0]])
    drawn = [
        ClassBalancedBatches(one, 5, 4, seed=3).rows(9).tolist()
        for one in (labels, labels.astype(np.int32), labels.astype(np.uint16))
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    rows = ClassBalancedBatches(unsorted, 5, 4, seed=3).rows(9).reshape(5, 4)
    assert (unsorted[rows] == unsorted[rows][:, :1]).all()


def test_mistakes():
    with pytest.raises(ValueError, match="3 people, but only 2 .* --set classes_per_batch=2"):
        ClassBalancedBatches(np.array([0, 0, 1, 2, 2, 3]), 3, 2, seed=0)
    sampler = ClassBalancedBatches(np.repeat(np.arange(30), 5), 10, 4, seed=1)
    with pytest.raises(ValueError, match="classes_per_batch = 10 cannot be shared out among 4"):
        RankShare(sampler, 0, 4)

"""Comparisons and operating points that several tests of evaluation share."""

import dataclasses

import numpy as np

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.thresholds import (
    OperatingPoint,
    Ranked,
    error_rates,
    find_threshold,
    point_at,
)


def one_each(scores, mated, uncertainty):
    """Comparisons with an uncertainty of their own."""
    pairs = np.arange(len(mated), dtype=np.int32)[:, None].repeat(2, axis=1)
    scores, uncertainty = np.float32(scores), np.float32(uncertainty)
    return Comparisons("own", scores, np.asarray(mated, bool), pairs, uncertainty)


def disjoint_pairs(count=4000, seed=0, decimals=6, worst=0.3):
    """Pairs that share no image, half of them mated; a mated one is wrong at rate worst * u^2."""
    rng = np.random.default_rng(seed)
    uncertainty = rng.random(2 * count).round(decimals).astype(np.float32)
    pairs = np.arange(2 * count, dtype=np.int32).reshape(-1, 2)
    mated = np.arange(count) % 2 == 0
    wrong = rng.random(count) < worst * uncertainty[pairs].max(axis=1) ** 2
    scores = np.where(mated & ~wrong, 1.0, 0.0) + rng.uniform(-0.2, 0.2, count)
    return Comparisons("made-up", scores.astype(np.float32), mated, pairs, uncertainty)


def apart(scores, mated, uncertainty, name="own"):
    """Comparisons that share no image, with the uncertainty of either."""
    pairs = np.arange(2 * len(mated), dtype=np.int32).reshape(-1, 2)
    scores, uncertainty = np.float32(scores), np.float32(uncertainty)
    return Comparisons(name, scores, np.asarray(mated, bool), pairs, uncertainty)


def all_pairs(people, images):
    """(identity of each image, every pair, which of them are mated)."""
    identity = np.repeat(np.arange(people), images)
    pairs = np.stack(np.triu_indices(len(identity), 1), axis=1).astype(np.int32)
    return identity, pairs, identity[pairs[:, 0]] == identity[pairs[:, 1]]


def some_pairs(rng, people, images, others):
    """As `all_pairs`, with all mated pairs first and non-mated ones of `others` that are drawn."""
    identity = np.repeat(np.arange(people), images)
    sides = np.stack(np.triu_indices(images, 1), axis=1)
    mated = (np.arange(people)[:, None, None] * images + sides).reshape(-1, 2)
    drawn = rng.integers(people * images, size=(others, 2))
    drawn = drawn[identity[drawn[:, 0]] != identity[drawn[:, 1]]]
    pairs = np.concatenate([mated, drawn]).astype(np.int32)
    return identity, pairs, np.arange(len(pairs)) < len(mated)


def doubtful(rng, people=30, images=4):
    """All pairs of labelled faces, with lower mated scores where an image is uncertain."""
    identity = np.repeat(np.arange(people), images)
    uncertainty = rng.random(len(identity)).astype(np.float32)
    pairs = np.stack(np.tril_indices(len(identity), -1), axis=1).astype(np.int32)
    mated = identity[pairs[:, 0]] == identity[pairs[:, 1]]
    scores = np.where(mated, 0.8 - 0.6 * uncertainty[pairs].max(axis=1), 0.0)
    scores = (scores + rng.normal(size=len(pairs)) * 0.12).astype(np.float32)
    image = np.arange(len(identity))
    return Comparisons("made", scores, mated, pairs, uncertainty, identity, image)


def truncated(comparisons, listed_from):
    """The same set with its low non-mated scores counted only."""
    rows = comparisons.mated | (comparisons.scores >= listed_from)
    return dataclasses.replace(
        comparisons,
        scores=comparisons.scores[rows],
        mated=comparisons.mated[rows],
        pairs=comparisons.pairs[rows],
        unlisted=int((~rows).sum()),
        listed_from=listed_from,
    )


def point_of(scores, mated, rule, target):
    """Operating point of all scores, by the product's search."""
    own, others = Ranked.of(scores[mated]), Ranked.of(scores[~mated])
    threshold = find_threshold(own, others, rule, target, others.total, complete=True)
    return point_at(own, others, threshold, others.total)


def nearest_of_all(scores, mated, target):
    """The lowest of all thresholds whose FMR is nearest to the target."""
    rates = error_rates(scores, mated)
    place = int(np.argmin(np.abs(rates.fmr - target)))
    return OperatingPoint(
        rates.thresholds[place],
        rates.false_non_matches[place],
        rates.mated,
        rates.false_matches[place],
        rates.non_mated,
    )


# which preset makes which block of the original's recorded outputs
ORIGINALS = {
    "fnmr_fixed": "original",
    "mcdropout_max": "original-mcdropout",
    "mcdropout_add": "original-mcdropout-sum",
}


def assert_same_comparisons(found, expected):
    """Equal to the last bit, in arrays, types and what is not listed."""
    for name in ("scores", "mated", "pairs", "uncertainty", "identity", "image"):
        first, second = getattr(found, name), getattr(expected, name)
        assert (first is None) == (second is None), name
        if first is not None:
            np.testing.assert_array_equal(first, second)
            assert first.dtype == second.dtype
    assert (found.unlisted, found.listed_from) == (expected.unlisted, expected.listed_from)

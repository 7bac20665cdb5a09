"""Comparisons of an identity-labelled set: its mated pairs against non-mated ones.

For sets without a pairs list; which pairs are drawn follows from the labels and the seed alone. All
non-mated scores are searched block by block in bounded memory, and the rounding of matrix products
never decides what is listed: results depend neither on block sizes, threads nor the BLAS. NumPy
only.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.features import cosines, equal_rows, unit_rows
from data.labelled_pairs import (
    CAP,
    LabelOrder,
    label_order,
    mated_pairs,
    mated_totals,
    non_mated_pairs,
    non_mated_total,
)
from evaluation.metrics.comparisons import Cap, Comparisons
from evaluation.metrics.thresholds import Caution, error_rates

NonMated = int | Literal["all"]
LISTED_AT_LEAST = 2_000_000
LISTED_AT_MOST = 20_000_000  # the search takes about 65 bytes for each
PROBED = 200_000
_BLOCK = (1024, 8192)  # rows and columns of one product: 32 MiB of scores


def labelled_comparisons(
    mu: NDArray[np.float32],
    labels: NDArray[np.int64],
    uncertainty: NDArray[np.float32],
    *,
    non_mated: NonMated = 1_000_000,
    cap: int | None = CAP,
    seed: int = 0,
    listed: int | None = None,
    name: str = "faces",
) -> Comparisons:
    """Compare images of one identity with each other, and images of different identities.

    With `non_mated="all"` every non-mated pair is scored, block by block, and only the high end of
    the scores is listed: enough for FMR targets up to 1e-2 and for the equal error rate. Scores are
    cosines in float32 and come out the same, to the last bit, for a listed pair of a full search
    and for a drawn one; they do not depend on block sizes or threads.

    Args:
        mu: (M, D) embeddings of any length but zero.
        labels: (M,) identities.
        uncertainty: (M,) larger = less reliable.
        non_mated: number of non-mated pairs, drawn uniformly without repetition (all of them where
            there are no more than that), or "all".
        cap: mated pairs per identity at most, drawn at random; None or 0 for all.
        seed: of both draws.
        listed: with "all", list so many of the highest non-mated scores; None decides from the
            data.
        name: of the set.

    Raises:
        ValueError: shapes that differ, no mated or no non-mated pair, more mated pairs than memory
            is meant for, counts below 1, or embeddings of length zero; the message names the set.
    """
    if not len(mu) == len(labels) == len(uncertainty):
        raise ValueError(
            f"{name}: {len(mu)} embeddings, {len(labels)} labels and {len(uncertainty)} "
            "uncertainties: need one each per image"
        )
    try:
        unit = unit_rows(mu)
        mated = mated_pairs(labels, cap, seed)
        mated_scores = cosines(unit, mated)
        if non_mated == "all":
            rest = _high_end(unit, labels, mated_scores, listed, seed)
        else:
            drawn = non_mated_pairs(labels, non_mated, seed)
            rest = drawn, cosines(unit, drawn), 0, -np.inf
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    others, other_scores, unlisted, listed_from = rest
    total = int(mated_totals(label_order(labels)).sum())
    return Comparisons(
        name,
        np.concatenate([mated_scores, other_scores]),
        np.arange(len(mated) + len(others)) < len(mated),
        np.concatenate([mated, others]),
        np.asarray(uncertainty, np.float32),
        identity=np.asarray(labels, np.int64),
        image=np.arange(len(labels), dtype=np.int64),
        unlisted=unlisted,
        listed_from=listed_from,
        cap=Cap(cap, total - len(mated), total) if cap else None,
        notes=_copies(mu, labels),
    )


def _copies(mu: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[Caution, ...]:
    """Note the images that embed as an earlier one does, to the last bit."""
    image = equal_rows(np.asarray(mu, np.float32))
    first = np.unique(image, return_index=True)[1][image]
    copies = np.flatnonzero(first != np.arange(len(first)))
    if not copies.size:
        return ()
    elsewhere = int((labels[copies] != labels[first[copies]]).sum())
    facts = {"copies": len(copies), "total": len(first), "elsewhere": elsewhere}
    return (Caution("copies", facts),)


def scores_of(mu: NDArray[np.float32], pairs: NDArray[np.integer]) -> NDArray[np.float32]:
    """(P,) cosines of pairs (P, 2) of rows of (M, D) embeddings of any length but zero."""
    return cosines(unit_rows(mu), pairs)


def _high_end(
    unit: NDArray[np.float32],
    labels: NDArray[np.int64],
    mated_scores: NDArray[np.float32],
    listed: int | None,
    seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32], int, float]:
    """Return pairs, scores, how many are not listed, and the lowest score that is."""
    total = non_mated_total(label_order(labels))
    if listed is None:
        probe = cosines(unit, non_mated_pairs(labels, PROBED, seed))
        listed = _enough(mated_scores, probe, total)
    if listed >= total:
        pairs = non_mated_pairs(labels, max(total, 1), seed)
        return pairs, cosines(unit, pairs), 0, -np.inf
    pairs, scores = highest_non_mated(unit, labels, listed)
    return pairs, scores, total - len(pairs), float(scores.min())


def _enough(mated: NDArray[np.float32], probe: NDArray[np.float32], total: int) -> int:
    """How many non-mated scores reach down to FMR 1e-2 and to the EER, both with some to spare."""
    scores = np.concatenate([mated, probe])
    eer = error_rates(scores, np.arange(len(scores)) < len(mated)).equal_error_rate()
    share = max(0.012, 1.25 * eer.high + 0.002)
    return int(np.ceil(min(max(share * total, LISTED_AT_LEAST), LISTED_AT_MOST)))


class HighEnd(NamedTuple):
    """The non-mated pairs that score highest.

    Attributes:
        pairs: (K, 2) int32 rows, first < second, ascending.
        scores: (K,) float32.
    """

    pairs: NDArray[np.int32]
    scores: NDArray[np.float32]


def highest_non_mated(
    unit: NDArray[np.float32],
    labels: NDArray[np.int64],
    count: int,
    block: tuple[int, int] = _BLOCK,
) -> HighEnd:
    """Find the `count` highest scores over all pairs of rows with different labels.

    Matrix products find candidates: pairs that might be among the highest, given the worst rounding
    that a float32 product of D terms can have. Their scores are then computed anew, pair by pair.

    Args:
        unit: (M, D) embeddings of length 1.
        labels: (M,) identities.
        count: 1 or more; scores that equal the lowest of them are listed too.
        block: rows and columns of one matrix product.

    Raises:
        ValueError: count below 1, or above the number of non-mated pairs.
    """
    index = label_order(labels)
    total = non_mated_total(index)
    if not 1 <= count <= total:
        raise ValueError(f"cannot list {count} of {total} non-mated pairs")
    candidates = _candidates(unit[index.order], index, count, block)
    first, second = np.divmod(candidates, len(unit))
    pairs = np.stack([index.order[first], index.order[second]], axis=1).astype(np.int32)
    del candidates, first, second
    pairs.sort(axis=1)
    scores = cosines(unit, pairs)
    highest = scores >= _nth_highest(scores, count)
    pairs, scores = pairs[highest], scores[highest]
    order = np.argsort(pairs[:, 0].astype(np.int64) * len(unit) + pairs[:, 1])
    return HighEnd(pairs[order], scores[order])


class _Best:
    """Keys of the pairs that may be among the highest; drops the others as it fills."""

    def __init__(self, count: int, slack: float) -> None:
        self.count, self.slack = count, slack
        self.floor = -np.inf
        self._keys: list[NDArray[np.int64]] = []
        self._scores: list[NDArray[np.float32]] = []
        self._held, self._limit = 0, 2 * count

    def add(self, keys: NDArray[np.int64], scores: NDArray[np.float32]) -> None:
        self._keys.append(keys)
        self._scores.append(scores)
        self._held += len(keys)
        if self._held > self._limit:
            self.keys()

    def keys(self) -> NDArray[np.int64]:
        """Drop what cannot be among the highest, and return the rest."""
        keys, scores = np.concatenate(self._keys), np.concatenate(self._scores)
        self._keys, self._scores = [keys], [scores]
        if len(keys) > self.count:
            self.floor = float(_nth_highest(scores, self.count)) - self.slack
            high = scores > self.floor
            self._keys, self._scores = [keys[high]], [scores[high]]
        self._held = len(self._keys[0])
        self._limit = 2 * max(self.count, self._held)  # many equal scores: do not sift each time
        return self._keys[0]


def _candidates(
    unit: NDArray[np.float32], index: LabelOrder, count: int, block: tuple[int, int]
) -> NDArray[np.int64]:
    """(K,) keys `first * rows + second` of places in label order.

    Both roundings of one score differ by at most 2 D 2^-24; twice that keeps every pair whose own
    score could reach the count-th highest.
    """
    rows, size = unit.shape
    behind = np.repeat(index.starts + index.sizes, index.sizes)  # first row of the next identity
    best = _Best(count, slack=4 * (size + 8) * 2.0**-24)
    for top in range(0, rows, block[0]):
        bottom = min(top + block[0], rows)
        for left in range(int(behind[top]), rows, block[1]):
            right = min(left + block[1], rows)
            scores = unit[top:bottom] @ unit[left:right].T
            for place in np.flatnonzero(behind[top:bottom] > left):
                scores[place, : behind[top + place] - left] = -np.inf
            places = np.flatnonzero(scores > best.floor)
            first, second = np.divmod(places, right - left)
            keys = (first + top) * rows + second + left
            best.add(keys, scores.ravel()[places])
    return best.keys()


def _nth_highest(scores: NDArray[np.float32], count: int) -> np.float32:
    place = len(scores) - count
    value: np.float32 = np.partition(scores, place)[place]
    return value

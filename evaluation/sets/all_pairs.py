"""The highest of all non-mated scores of a labelled set, found block by block in bounded memory.

Two matrix products' rounding never decides what is listed, so results do not depend on block sizes,
threads or the BLAS at hand. NumPy only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = (1024, 8192)  # rows and columns of one product: 32 MiB of scores
_GATHERED = 1 << 22  # numbers per side that cosines holds at a time


class LabelOrder(NamedTuple):
    """Rows in the order of their labels; identity c has `order[starts[c]:][:sizes[c]]`.

    Attributes:
        order: (N,) row numbers, ascending within an identity.
        starts: (C,) place of each identity's first row.
        sizes: (C,) its number of rows.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


class HighEnd(NamedTuple):
    """The non-mated pairs that score highest.

    Attributes:
        pairs: (K, 2) int32 rows, first < second, ascending.
        scores: (K,) float32.
    """

    pairs: NDArray[np.int32]
    scores: NDArray[np.float32]


def label_order(labels: NDArray[np.int64]) -> LabelOrder:
    """Sort (N,) labels; see `LabelOrder`."""
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(np.asarray(labels)[order], return_index=True, return_counts=True)
    return LabelOrder(order, starts, sizes)


def non_mated_total(index: LabelOrder) -> int:
    """Number of pairs of rows with different labels."""
    rows = len(index.order)
    return (rows * rows - int((index.sizes.astype(np.int64) ** 2).sum())) // 2


def unit_rows(mu: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale (M, D) embeddings to length 1, in float32 as `scores.cosine_of_pairs` does.

    Raises:
        ValueError: embeddings of length zero, NaN or infinite ones.
    """
    mu = np.asarray(mu, np.float32)
    length = np.sqrt((mu**2).sum(axis=1, keepdims=True))
    bad = np.flatnonzero(~(np.isfinite(length) & (length > 0)))
    if bad.size:
        raise ValueError(
            f"mu has {bad.size} embeddings of length zero, NaN or infinity, the first in row "
            f"{bad[0]}: a cosine with them is undefined"
        )
    return mu / length


def cosines(unit: NDArray[np.float32], pairs: NDArray[np.integer]) -> NDArray[np.float32]:
    """Cosine of each pair of rows, in blocks of bounded memory.

    A pair's score does not depend on the pairs around it, and is what `scores.cosine_of_pairs`
    gives to the last bit.

    Args:
        unit: (M, D) embeddings of length 1 (`unit_rows`).
        pairs: (P, 2) row numbers.

    Returns:
        (P,) float32.
    """
    scores = np.empty(len(pairs), np.float32)
    step = max(1, _GATHERED // unit.shape[1])
    for start in range(0, len(pairs), step):
        block = pairs[start : start + step]
        product = unit[block[:, 0]]
        product *= unit[block[:, 1]]
        product.sum(axis=1, out=scores[start : start + len(block)])
    return scores


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
    kept = scores >= _nth_highest(scores, count)
    pairs, scores = pairs[kept], scores[kept]
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
            kept = scores > self.floor
            self._keys, self._scores = [keys[kept]], [scores[kept]]
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
            found = np.flatnonzero(scores > best.floor)
            first, second = np.divmod(found, right - left)
            keys = (first + top) * rows + second + left
            best.add(keys, scores.ravel()[found])
    return best.keys()


def _nth_highest(scores: NDArray[np.float32], count: int) -> np.float32:
    place = len(scores) - count
    value: np.float32 = np.partition(scores, place)[place]
    return value

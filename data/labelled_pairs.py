"""Pairs of images: those of labelled images, and what is checked of pairs that a file lists.

All mated pairs of labels, and non-mated ones drawn at random, follow from the labels and the seed
alone. docs/formats.md has the rule for pairs of a file. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_MATED = 100_000_000  # 2 GB of pairs and scores
CAP = 20  # mated pairs of one person, everywhere: nobody with many images decides a rate


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


def label_order(labels: NDArray[np.int64]) -> LabelOrder:
    """Sort (N,) labels; see `LabelOrder`."""
    order = np.argsort(labels, kind="stable")
    _, starts, sizes = np.unique(np.asarray(labels)[order], return_index=True, return_counts=True)
    return LabelOrder(order, starts, sizes)


def non_mated_total(index: LabelOrder) -> int:
    """Number of pairs of rows with different labels."""
    rows = len(index.order)
    return (rows * rows - int((index.sizes.astype(np.int64) ** 2).sum())) // 2


def mated_totals(index: LabelOrder) -> NDArray[np.int64]:
    """(C,) pairs of rows of each identity, without a cap."""
    return index.sizes.astype(np.int64) * (index.sizes - 1) // 2


def mated_pairs(
    labels: NDArray[np.int64], cap: int | None = None, seed: int = 0
) -> NDArray[np.int32]:
    """All pairs (P, 2) of rows with equal labels (N,), first < second, identity by identity.

    With a cap, at most so many pairs per identity are drawn at random; None and 0 take all.

    Raises:
        ValueError: no identity has two images, cap below 0, or more than `MOST_MATED` pairs.
    """
    order, starts, sizes = index = label_order(labels)
    counts = _mated_counts(index, cap)
    rng = np.random.default_rng(seed)
    pairs = np.empty((int(counts.sum()), 2), np.int32)
    ends = np.cumsum(counts)
    for which in np.flatnonzero(counts):
        rows = order[starts[which] : starts[which] + sizes[which]]
        first, second = np.triu_indices(len(rows), k=1)
        if counts[which] < len(first):
            drawn = np.sort(rng.choice(len(first), counts[which], replace=False))
            first, second = first[drawn], second[drawn]
        part = pairs[ends[which] - counts[which] : ends[which]]
        part[:, 0], part[:, 1] = rows[first], rows[second]
    return pairs


def non_mated_pairs(labels: NDArray[np.int64], count: int, seed: int = 0) -> NDArray[np.int32]:
    """Draw pairs (P, 2) of rows with different labels, first < second.

    Every set of `count` different pairs is equally likely. Where there are no more than `count`
    non-mated pairs, all of them are returned.

    Raises:
        ValueError: fewer than two identities, or count below 1.
    """
    labels = np.asarray(labels)
    index = label_order(labels)
    total = non_mated_total(index)
    if count < 1 or total == 0:
        raise ValueError(
            f"cannot draw {count} non-mated pairs from {len(labels)} images of "
            f"{len(index.sizes)} identities"
        )
    return _pairs_numbered(index, _distinct(total, count, seed))


def require_pairs(labels: NDArray[np.int64], cap: int | None) -> None:
    """Check, before anything is embedded, that (M,) labels give pairs of both kinds.

    Raises:
        ValueError: they do not, or give too many mated ones; as in `mated_pairs`.
    """
    index = label_order(labels)
    _mated_counts(index, cap)
    if len(index.sizes) < 2:
        raise ValueError(f"no non-mated pair: all {len(labels)} images are of one identity")


class PairKinds(NamedTuple):
    """What is wrong with each of N pairs.

    Attributes:
        is_self: (N,) an image and itself.
        is_repeated: (N,) two images that an earlier pair has, in either order.
        contradicts: (N,) two images whose first pair is of the other kind; not counted as repeated.
        first: (N,) row of the first pair of the same two images.
    """

    is_self: NDArray[np.bool_]
    is_repeated: NDArray[np.bool_]
    contradicts: NDArray[np.bool_]
    first: NDArray[np.int64]


def pair_kinds(sides: NDArray[np.integer], mated: NDArray[np.bool_]) -> PairKinds:
    """Look at pairs (N, 2) of image numbers of 0 or more, and at their labels (N,)."""
    low, high = sides.min(axis=1).astype(np.int64), sides.max(axis=1).astype(np.int64)
    key = low * (int(high.max(initial=0)) + 1) + high
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    first, is_self = first[place], low == high
    contradicts = (mated != mated[first]) & ~is_self
    is_repeated = (first != np.arange(len(first))) & ~is_self & ~contradicts
    return PairKinds(is_self, is_repeated, contradicts, first)


class LeftOut(NamedTuple):
    """Rows of a file that do not count: `self_comparisons` or `repeated_pairs`, how many, where.

    `where` is the line of the first.
    """

    kind: str
    rows: int
    where: str


def pairs_that_count(
    sides: NDArray[np.integer],
    mated: NDArray[np.bool_],
    where: Callable[[int], str],
    names: Callable[[int], Sequence[str]],
) -> tuple[NDArray[np.bool_], list[LeftOut]]:
    """Say which of N pairs count: not an image with itself, and the first row of each pair alone.

    Args:
        sides: (N, 2) numbers of the images, 0 or more.
        mated: (N,) whether both show one person.
        where: the line or row of a pair, for messages.
        names: what the source calls the images of a pair.

    Returns:
        (N,) which count, and what does not.

    Raises:
        ValueError: two images are mated in one row and non-mated in another.
    """
    kinds = pair_kinds(sides, mated)
    contradicts = np.flatnonzero(kinds.contradicts)
    if contradicts.size:
        row = int(contradicts[0])
        first = int(kinds.first[row])
        raise ValueError(
            f"{' and '.join(map(repr, names(first)))} are mated = {int(mated[first])} in "
            f"{where(first)} and {int(mated[row])} in {where(row)}: correct one of them"
        )
    both = (("self_comparisons", kinds.is_self), ("repeated_pairs", kinds.is_repeated))
    left_out = [
        LeftOut(kind, int(rows.sum()), where(int(np.argmax(rows))))
        for kind, rows in both
        if rows.any()
    ]
    return ~(kinds.is_self | kinds.is_repeated), left_out


def _mated_counts(index: LabelOrder, cap: int | None) -> NDArray[np.int64]:
    """(C,) mated pairs of each identity."""
    if cap and cap < 0:
        raise ValueError(f"cap = {cap}: must be 1 or more mated pairs per identity, or 0 for all")
    counts = mated_totals(index)
    counts = np.minimum(counts, cap) if cap else counts
    total = int(counts.sum())
    if total == 0:
        raise ValueError(f"no mated pair: none of {len(index.order)} images shares its identity")
    if total > MOST_MATED:
        raise ValueError(
            f"{total} mated pairs, more than {MOST_MATED}: set a cap per identity, such as 200"
        )
    return counts


def _distinct(total: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` different numbers below `total`, ascending; all of them where count >= total."""
    if count >= total:
        return np.arange(total)
    rng = np.random.default_rng(seed)
    if count > total // 2:
        return np.sort(rng.permutation(total)[:count])
    numbers = np.empty(0, np.int64)
    while len(numbers) < count:
        missing = count - len(numbers)
        drawn = rng.integers(total, size=missing + missing // 2 + 16)
        numbers = np.sort(np.concatenate([numbers, drawn]))  # np.unique takes 100 times as long
        numbers = numbers[np.diff(numbers, prepend=-1) > 0]
    return np.sort(rng.permutation(numbers)[:count])


def _pairs_numbered(index: LabelOrder, numbers: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the non-mated pairs of these numbers.

    Rows in the order of their labels pair with every row behind their own identity's last one, so
    pair k belongs to the row in whose share of a running count k falls.
    """
    rows = len(index.order)
    behind = np.repeat(index.starts + index.sizes, index.sizes)
    ends = np.cumsum(rows - behind)
    first = np.searchsorted(ends, numbers, side="right")
    second = rows - (ends[first] - numbers)
    pairs = np.stack([index.order[first], index.order[second]], axis=1).astype(np.int32)
    pairs.sort(axis=1)
    return pairs

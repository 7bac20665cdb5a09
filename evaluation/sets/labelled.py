"""Comparisons of an identity-labelled set: its mated pairs against non-mated ones.

For sets without a pairs list; which pairs are drawn follows from the labels and the seed alone.
NumPy only.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons
from evaluation.metrics.error_rates import error_rates
from evaluation.sets.all_pairs import (
    LabelOrder,
    cosines,
    highest_non_mated,
    label_order,
    non_mated_total,
    unit_rows,
)

__all__ = [
    "NonMated",
    "labelled_comparisons",
    "mated_pairs",
    "non_mated_pairs",
    "require_pairs",
    "scores_of",
]

NonMated = int | Literal["all"]
MOST_MATED = 100_000_000  # 2 GB of pairs and scores
LISTED_AT_LEAST = 2_000_000
LISTED_AT_MOST = 20_000_000  # the search takes about 65 bytes for each
PROBED = 200_000


def labelled_comparisons(
    mu: NDArray[np.float32],
    labels: NDArray[np.int64],
    uncertainty: NDArray[np.float32],
    *,
    non_mated: NonMated = 1_000_000,
    cap: int | None = None,
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
        cap: mated pairs per identity at most, drawn at random; None for all.
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
    )


def mated_pairs(
    labels: NDArray[np.int64], cap: int | None = None, seed: int = 0
) -> NDArray[np.int32]:
    """All pairs (P, 2) of rows with equal labels, first < second, identity by identity.

    Args:
        labels: (N,) identities.
        cap: at most so many pairs per identity, drawn at random; None for all.
        seed: of the draw.

    Raises:
        ValueError: no identity has two images, cap below 1, or more than `MOST_MATED` pairs.
    """
    order, starts, sizes = index = label_order(labels)
    counts = _mated_counts(index, cap)
    rng = np.random.default_rng(seed)
    found = np.empty((int(counts.sum()), 2), np.int32)
    ends = np.cumsum(counts)
    for which in np.flatnonzero(counts):
        rows = order[starts[which] : starts[which] + sizes[which]]
        first, second = np.triu_indices(len(rows), k=1)
        if counts[which] < len(first):
            kept = np.sort(rng.choice(len(first), counts[which], replace=False))
            first, second = first[kept], second[kept]
        part = found[ends[which] - counts[which] : ends[which]]
        part[:, 0], part[:, 1] = rows[first], rows[second]
    return found


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


def scores_of(mu: NDArray[np.float32], pairs: NDArray[np.integer]) -> NDArray[np.float32]:
    """(P,) cosines of pairs (P, 2) of rows of (M, D) embeddings of any length but zero."""
    return cosines(unit_rows(mu), pairs)


def require_pairs(labels: NDArray[np.int64], cap: int | None) -> None:
    """Check, before anything is embedded, that (M,) labels give pairs of both kinds.

    Raises:
        ValueError: they do not, or give too many mated ones; as in `mated_pairs`.
    """
    index = label_order(labels)
    _mated_counts(index, cap)
    if len(index.sizes) < 2:
        raise ValueError(f"no non-mated pair: all {len(labels)} images are of one identity")


def _mated_counts(index: LabelOrder, cap: int | None) -> NDArray[np.int64]:
    """(C,) mated pairs of each identity."""
    if cap is not None and cap < 1:
        raise ValueError(f"cap = {cap}: must be 1 or more mated pairs per identity")
    counts = index.sizes.astype(np.int64) * (index.sizes - 1) // 2
    counts = counts if cap is None else np.minimum(counts, cap)
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
    found = np.empty(0, np.int64)
    while len(found) < count:
        missing = count - len(found)
        found = np.union1d(found, rng.integers(total, size=missing + missing // 2 + 16))
    return np.sort(rng.permutation(found)[:count])


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
    found = highest_non_mated(unit, labels, listed)
    return found.pairs, found.scores, total - len(found.pairs), float(found.scores.min())


def _enough(mated: NDArray[np.float32], probe: NDArray[np.float32], total: int) -> int:
    """How many non-mated scores reach down to FMR 1e-2 and to the EER, both with some to spare."""
    scores = np.concatenate([mated, probe])
    eer = error_rates(scores, np.arange(len(scores)) < len(mated)).equal_error_rate()
    share = max(0.012, 1.25 * eer.high + 0.002)
    return int(np.ceil(min(max(share * total, LISTED_AT_LEAST), LISTED_AT_MOST)))

"""Which comparisons are kept at each discard fraction, under every discard rule in use.

One sort per kind; what is kept is what lies at or below a threshold of uncertainty. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import fuse_sides
from evaluation.metrics.kept import GRID, KeptSets, count_below, percentiles

if TYPE_CHECKING:
    from evaluation.metrics.comparisons import Comparisons
    from evaluation.metrics.protocols import Grid, Protocol, Ties

GRIDS = {"percent": GRID, "by_5": np.arange(20) / 20}
EPSILON = 1e-9  # .29 * 100 is a hair below 29


@dataclass(frozen=True)
class Cut:
    """Thresholds of uncertainty for one group that is discarded in its own order.

    Attributes:
        fractions: (F,) shares of the group asked for; the shares that leave, on the exact grid.
        thresholds: (F,) what is at or below is kept; descending.
        kept: (F,) how many of the group that are.
        size: of the group.
    """

    fractions: NDArray[np.float64]
    thresholds: NDArray[np.floating]
    kept: NDArray[np.int64]
    size: int


@dataclass(frozen=True)
class Discard:
    """What a protocol discards, without a list of the pairs: enough to count.

    Attributes:
        fractions: (F,) discard fractions of the curve.
        units: how many things are discarded from: pairs of both kinds, mated pairs or images.
        mated: (P,) uncertainty of each mated pair.
        non_mated: (Q,) of each non-mated pair; None where all of them are kept.
        mated_cut: (F,) thresholds of the mated pairs.
        non_mated_cut: (F,) of the non-mated pairs.
        mated_kept: (F,) kept mated pairs, where that is known already.
    """

    fractions: NDArray[np.float64]
    units: int
    mated: NDArray[np.float32]
    non_mated: NDArray[np.float32] | None
    mated_cut: NDArray[np.floating]
    non_mated_cut: NDArray[np.floating] | None
    mated_kept: NDArray[np.int64] | None = None


def cut(
    uncertainty: NDArray[Any], ties: Ties, grid: Grid, fractions: NDArray[np.float64] | None = None
) -> Cut:
    """Find the threshold at every discard fraction of a group.

    Args:
        uncertainty: (N,) finite, one or more.
        ties: "keep" all up to the interpolated percentile (as the original); "together": equal
            values leave as a group when it fits into the fraction (step curves).
        grid: of the fractions.
        fractions: instead of the grid's.
    """
    ordered = np.sort(uncertainty)
    count = len(ordered)
    if fractions is None and grid == "exact":
        ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1, count)[::-1]
        return Cut((count - ends) / count, ordered[ends - 1], ends, count)
    wanted = GRIDS[grid] if fractions is None else fractions
    if ties == "keep":
        # the product is part of the original protocol: 36 of its 100 values are not whole
        thresholds = percentiles(ordered, (1 - wanted) * 100 / 100)
    else:
        leaving = np.floor(wanted * count + EPSILON).astype(np.intp)
        thresholds = ordered[count - 1 - leaving]
    kept = np.searchsorted(ordered, thresholds, side="right")
    return Cut(wanted, thresholds, kept, count)


def find_discard(comparisons: Comparisons, protocol: Protocol) -> Discard:
    """Find the thresholds of uncertainty that a protocol discards by.

    Raises:
        ValueError: no mated pair, a rule that needs non-mated pairs which are not listed, or images
            that are not known.
    """
    check_listed(comparisons, protocol)
    if not comparisons.mated.any():
        raise ValueError(f"{comparisons.name}: no mated pair: there is no FNMR to measure")
    ties, grid, mated = protocol.ties, protocol.grid, comparisons.mated
    if protocol.discard_over in ("mated", "each_kind"):
        own = _pair_values(comparisons, protocol, mated)
        inner = cut(own, ties, grid)
        found = Discard(inner.fractions, inner.size, own, None, inner.thresholds, None, inner.kept)
        if protocol.discard_over == "mated" or mated.all():
            return found
        others = _pair_values(comparisons, protocol, ~mated)
        outer = cut(others, ties, grid, inner.fractions)
        return replace(found, non_mated=others, non_mated_cut=outer.thresholds)
    values = _values(comparisons, protocol)
    group = values if protocol.discard_over == "all" else image_values(comparisons)[0]
    both = cut(group, ties, grid)
    cuts = both.thresholds, both.thresholds
    return Discard(both.fractions, both.size, values[mated], values[~mated], *cuts)


def kept_sets(comparisons: Comparisons, protocol: Protocol) -> KeptSets:
    """Return the kept pairs at each discard fraction of a protocol, for counting and for masks.

    Where the kinds have thresholds of their own, `thresholds` are those of the mated pairs; where
    only mated pairs are discarded, every non-mated pair has level 0.

    Raises:
        ValueError: as `find_discard`.
    """
    return kept_of(find_discard(comparisons, protocol), comparisons.mated)


def kept_of(discard: Discard, is_mated: NDArray[np.bool_]) -> KeptSets:
    """Return the level of every pair, (N,), from the thresholds of its kind."""
    level = np.zeros(len(is_mated), np.intp)
    level[is_mated] = _levels(discard.mated_cut, discard.mated)
    if discard.non_mated is not None and discard.non_mated_cut is not None:
        level[~is_mated] = _levels(discard.non_mated_cut, discard.non_mated)
    level_of = np.arange(len(discard.fractions))[::-1].copy()
    return KeptSets(discard.fractions, discard.mated_cut.astype(np.float64), level, level_of)


def count_up_to(
    values: NDArray[np.floating], thresholds: NDArray[np.floating]
) -> NDArray[np.int64]:
    """(F,) how many values lie at or below each threshold."""
    counts: NDArray[np.int64] = np.searchsorted(np.sort(values), thresholds, side="right")
    return counts


def image_values(
    comparisons: Comparisons,
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """(I,) uncertainty of each distinct image, the largest of its rows', and (M,) image of a row.

    Raises:
        ValueError: it is not known which row shows which image.
    """
    if comparisons.image is None:
        raise ValueError(
            f"{comparisons.name}: it is not known which comparisons share an image, so images "
            "cannot be discarded: discard over 'all', 'mated' or 'each_kind'"
        )
    ids, row = np.unique(comparisons.image, return_inverse=True)
    values = np.full(len(ids), -np.inf, np.float32)
    np.maximum.at(values, row, comparisons.uncertainty)
    return values, row


def check_listed(comparisons: Comparisons, protocol: Protocol) -> None:
    """Refuse what needs every non-mated pair where only their high end is listed.

    Raises:
        ValueError: that is the case.
    """
    if not comparisons.unlisted:
        return
    switches = {
        "discard_over": (protocol.discard_over, "mated"),
        "threshold": (protocol.threshold, "fixed"),
    }
    for name, (value, fine) in switches.items():
        if value != fine:
            raise ValueError(
                f"{comparisons.name}: protocol {protocol.name} has {name} {value!r}, which needs "
                f"every non-mated pair, but {comparisons.unlisted} of "
                f"{comparisons.non_mated_total} are only counted: take a sample of them "
                "(--non_mated COUNT) instead of all"
            )


def _values(comparisons: Comparisons, protocol: Protocol) -> NDArray[np.float32]:
    """(N,) uncertainty of each pair; under "images" by the uncertainties of the distinct images."""
    if protocol.discard_over != "images":
        return comparisons.pair_uncertainty(protocol.fuse)
    values, row = image_values(comparisons)
    return comparisons.with_uncertainty(values[row]).pair_uncertainty("max")


def _pair_values(
    comparisons: Comparisons, protocol: Protocol, chosen: NDArray[np.bool_]
) -> NDArray[np.float32]:
    pairs = comparisons.pairs[chosen]
    values = comparisons.uncertainty
    return fuse_sides(values[pairs[:, 0]], values[pairs[:, 1]], protocol.fuse)


def _levels(thresholds: NDArray[np.floating], values: NDArray[np.float32]) -> NDArray[np.intp]:
    """How many of the (F,) descending thresholds lie below each value."""
    if not len(values):
        return np.empty(0, np.intp)
    return count_below(thresholds[::-1].astype(np.float64), values)

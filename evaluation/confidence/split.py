"""Cut comparisons into parts that share no person, and draw comparisons that share none.

For everything that is fitted on one part and checked on another. NumPy and SciPy only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evaluation.metrics.comparisons import Comparisons, Unit, linked_people

LEFT_OUT = -1
LARGEST_GROUP = 0.1  # a linked group above this share of the comparisons is cut


@dataclass(frozen=True)
class Split:
    """Which part each comparison belongs to.

    Attributes:
        part: (N,) int8 number of the part, -1 for comparisons whose sides lie in two parts.
        unit: what was kept on one side: "identity", "image" or "pair".
    """

    part: NDArray[np.int8]
    unit: Unit

    @property
    def left_out(self) -> int:
        """Comparisons across parts, which nothing may use."""
        return int(np.count_nonzero(self.part == LEFT_OUT))

    def rows(self, part: int) -> NDArray[np.intp]:
        """Rows of the comparisons of one part."""
        return np.flatnonzero(self.part == part)


def people_of(comparisons: Comparisons, unit: Unit | None = None) -> NDArray[np.int64]:
    """(N, 2) numbers, from 0, of who is on the two sides of each comparison.

    Args:
        comparisons: the set.
        unit: "identity"; "image", where images that mated comparisons link count as one person
            (two such persons can still be one, which nothing in the set tells); "pair", where
            every comparison stands alone. None: the best that the set knows.

    Raises:
        ValueError: a unit that this set does not know.
    """
    unit = unit or comparisons.best_unit
    count = len(comparisons.pairs)
    if unit == "pair":
        return np.repeat(np.arange(count)[:, None], 2, axis=1)
    ids = comparisons.identity if unit == "identity" else comparisons.image
    if ids is None:
        raise ValueError(
            f"{comparisons.name}: unit {unit!r}, but its {unit} numbers are not known (it knows: "
            f"{comparisons.best_unit})"
        )
    if unit == "image":
        ids = linked_people(comparisons)
    dense: NDArray[np.int64] = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return dense[comparisons.pairs]


def split(comparisons: Comparisons, shares: Sequence[float], *, seed: int = 0) -> Split:
    """Cut a set into parts of about the given shares; no person is in two.

    People that comparisons link stay together where every linked group is small: shares are then
    of comparisons, and none is lost. Otherwise shares are of people, who are dealt out one by one,
    and comparisons across parts are left out (non-mated ones, where it is known who is who).

    Args:
        comparisons: the set.
        shares: of the parts; they add up to 1.
        seed: of the draw.
    """
    people = people_of(comparisons)
    if not len(people):
        raise ValueError(f"{comparisons.name}: no comparison to split")
    number = int(people.max()) + 1
    group = _linked(people, number)
    sizes = np.bincount(group[people[:, 0]], minlength=number)
    if sizes.max() > LARGEST_GROUP * len(people):
        group, sizes = np.arange(number), np.ones(number, np.int64)
    dealt = _deal(sizes, shares, np.random.default_rng(seed))[group]
    first, second = dealt[people[:, 0]], dealt[people[:, 1]]
    part = np.where(first == second, first, LEFT_OUT).astype(np.int8)
    return Split(part, comparisons.best_unit)


def draw_disjoint(people: NDArray[np.int64], seed: int = 0) -> NDArray[np.intp]:
    """Rows of comparisons that share no person: at random, and as many as fit.

    It takes the comparisons in random order and keeps each one whose people are still unused: one
    mated comparison per person, or non-mated comparisons of separate pairs of people. The draw
    looks at neither scores nor uncertainties.

    Args:
        people: (N, 2) of `people_of`.
        seed: of the order.
    """
    count = len(people)
    rank = np.random.default_rng(seed).permutation(count)
    alive = np.arange(count)
    taken = np.zeros(int(people.max(initial=-1)) + 1, np.bool_)
    chosen: list[NDArray[np.intp]] = []
    while alive.size:
        best = np.full(len(taken), count)
        for side in (0, 1):
            np.minimum.at(best, people[alive, side], rank[alive])
        first_at_both = (best[people[alive]] == rank[alive, None]).all(axis=1)
        chosen.append(alive[first_at_both])
        taken[people[chosen[-1]]] = True
        alive = alive[~taken[people[alive]].any(axis=1)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.intp)


def _linked(people: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """(number,) group of each person: those that comparisons link, directly or not."""
    graph = coo_array(
        (np.ones(len(people), np.bool_), (people[:, 0], people[:, 1])), shape=(number, number)
    )
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def _deal(
    sizes: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int8]:
    """Part of each group, so that the groups' sizes add up to about the shares."""
    order = rng.permutation(len(sizes))
    reached = np.cumsum(sizes[order]) - sizes[order] / 2
    edges = np.cumsum(shares)[:-1] * sizes.sum()
    dealt = np.empty(len(sizes), np.int8)
    dealt[order] = np.searchsorted(edges, reached, side="right")
    return dealt


def select(comparisons: Comparisons, rows: NDArray[np.intp]) -> Comparisons:
    """Return some of the comparisons, with all images.

    Raises:
        ValueError: a set whose low non-mated scores are not listed, unless only mated comparisons
            are taken.
    """
    if comparisons.unlisted and not comparisons.mated[rows].all():
        raise ValueError(
            f"{comparisons.name}: {comparisons.unlisted} non-mated comparisons are counted but not "
            "listed; sample them (--non_mated COUNT) instead of all"
        )
    return dataclasses.replace(
        comparisons,
        scores=comparisons.scores[rows],
        mated=comparisons.mated[rows],
        pairs=comparisons.pairs[rows],
        unlisted=0,
        listed_from=-np.inf,
    )

"""Who is who in a set that knows its images but not its people, from the mated comparisons."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from evaluation.metrics.comparisons import Comparisons


def linked_people(comparisons: Comparisons) -> NDArray[np.int64]:
    """Number the people: images joined by a chain of mated comparisons show one person.

    A person whose images are not all joined counts as several, so intervals by these identities
    are, if anything, narrower than with the true ones.

    Returns:
        (M,) int64.

    Raises:
        ValueError: it is not known which row shows which image.
    """
    if comparisons.image is None:
        raise ValueError(
            f"{comparisons.name}: it is not known which rows show the same image, so people cannot "
            "be found from the mated comparisons"
        )
    ids, image = np.unique(comparisons.image, return_inverse=True)
    first, second = image[comparisons.pairs[comparisons.mated]].T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(ids), len(ids)))
    person = connected_components(links, directed=False)[1]
    people: NDArray[np.int64] = person[image].astype(np.int64)
    return people


def with_people(comparisons: Comparisons) -> Comparisons:
    """Return the comparisons with `linked_people` as identities, where these are not known.

    They stay unknown where a non-mated comparison contradicts them, or the images are not known.
    """
    if comparisons.identity is not None or comparisons.image is None:
        return comparisons
    people = linked_people(comparisons)
    first, second = people[comparisons.pairs].T
    if ((first == second) & ~comparisons.mated).any():
        return comparisons
    return dataclasses.replace(comparisons, identity=people)

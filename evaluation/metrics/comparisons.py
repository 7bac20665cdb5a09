"""Scored comparisons: the one input of every protocol, interval, bound and calibration.

Where scores come from (a `.bin` set, labelled faces, templates, another tool's file) ends here.
NumPy only.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Fuse = Literal["max", "mean", "sum", "product"]
Unit = Literal["identity", "image", "pair"]


@dataclass(frozen=True)
class Comparisons:
    """N comparisons between M images (or templates), and the uncertainty of each image.

    Attributes:
        name: of the set, for messages and reports.
        scores: (N,) float32, larger = more alike.
        mated: (N,) whether both sides show one person.
        pairs: (N, 2) int32 rows of the two sides.
        uncertainty: (M,) float32, larger = less reliable.
        identity: (M,) int64 who is shown; None where that is unknown.
        image: (M,) int64 which image a row is (rows of a `.bin` set repeat images); None where that
            is unknown, as in a score file with one uncertainty per pair.
        unlisted: non-mated comparisons that were counted but are not listed; each scored below
            `listed_from`. Only the high end of the non-mated scores decides about a threshold, so a
            set with billions of comparisons keeps no more than that end.
        listed_from: lower end of the listed non-mated scores; -inf where all are listed.
    """

    name: str
    scores: NDArray[np.float32]
    mated: NDArray[np.bool_]
    pairs: NDArray[np.int32]
    uncertainty: NDArray[np.float32]
    identity: NDArray[np.int64] | None = None
    image: NDArray[np.int64] | None = None
    unlisted: int = 0
    listed_from: float = -np.inf

    def __post_init__(self) -> None:
        shapes = self.scores.shape, self.mated.shape, self.pairs.shape
        count = len(self.scores)
        if shapes != ((count,), (count,), (count, 2)):
            raise ValueError(f"{self.name}: shapes of scores, mated, pairs do not fit: {shapes}")
        for name in ("identity", "image"):
            ids = getattr(self, name)
            if ids is not None and ids.shape != self.uncertainty.shape:
                raise ValueError(
                    f"{self.name}: {len(ids)} {name} numbers for {len(self.uncertainty)} images"
                )
        for name in ("scores", "uncertainty"):
            values = getattr(self, name)
            bad = len(values) - int(np.isfinite(values).sum())
            if bad:
                raise ValueError(
                    f"{self.name}: {name} has {bad} of {len(values)} values that are NaN or "
                    "infinite"
                )

    @property
    def non_mated_total(self) -> int:
        """Number of non-mated comparisons, those that are not listed included."""
        return len(self.mated) - int(np.count_nonzero(self.mated)) + self.unlisted

    @property
    def best_unit(self) -> Unit:
        """What a bootstrap should draw: identities where they are known, else images, else pairs.

        Comparisons share images and people, so drawing single pairs gives intervals that are too
        narrow (arXiv 2306.01198).
        """
        if self.identity is not None:
            return "identity"
        return "image" if self.image is not None else "pair"

    def pair_uncertainty(self, fuse: Fuse = "max") -> NDArray[np.float32]:
        """(N,) uncertainty of each comparison from those of its two sides."""
        return fuse_sides(
            self.uncertainty[self.pairs[:, 0]], self.uncertainty[self.pairs[:, 1]], fuse
        )

    def with_uncertainty(self, uncertainty: NDArray[np.float32]) -> Comparisons:
        """Return the same comparisons under another method's (M,) uncertainties."""
        if uncertainty.shape != self.uncertainty.shape:
            raise ValueError(
                f"{self.name}: {uncertainty.shape} uncertainties for {len(self.uncertainty)} images"
            )
        return dataclasses.replace(self, uncertainty=uncertainty)


def fuse_sides(
    first: NDArray[np.float32], second: NDArray[np.float32], fuse: Fuse
) -> NDArray[np.float32]:
    """(N,) uncertainty of pairs from the (N,) uncertainties of their two sides.

    Args:
        first: of one side.
        second: of the other.
        fuse: "max" (the lower-quality image decides), "mean", "sum" or "product".

    Raises:
        ValueError: an unknown rule, or a product of values below 0, whose order means nothing.
    """
    if fuse == "max":
        return np.maximum(first, second)
    if fuse == "sum":
        return first + second
    if fuse == "mean":
        return (first + second) / np.float32(2)
    if fuse != "product":
        raise ValueError(f"unknown fuse {fuse!r} (known: max, mean, sum, product)")
    lowest = min(first.min(initial=0), second.min(initial=0))
    if lowest < 0:
        raise ValueError(
            f"fuse 'product' needs uncertainties of 0 or more, the lowest is {lowest:.4g}: use "
            "max, mean or sum"
        )
    return first * second


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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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

"""Scored comparisons: the one input of every protocol, interval, bound and calibration.

Where scores come from (a `.bin` set, labelled faces, templates, another tool's file) ends here; the
scores themselves are cosines or, for methods that give variances, mutual likelihoods. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.labelled_pairs import LeftOut, pair_kinds
from estimators.base import harmonic_mean
from evaluation.metrics.thresholds import Caution

Fuse = Literal["max", "mean", "sum", "product"]
Unit = Literal["identity", "image", "pair"]

# rows of embeddings are scored in parts that fit the cache (1 MB) or memory (16 MB); results do not
# depend on either
VALUES_AT_ONCE = 1 << 18
NUMBERS_AT_ONCE = 1 << 22

DECIDES = 0.1  # share of the pairs behind a rate from which on one person decides about it
FEW_PEOPLE = 20  # below, everybody is in more than that share of the non-mated pairs


class Cap(NamedTuple):
    """So many mated comparisons of one person at most, how many that left out, and of how many."""

    limit: int
    left_out: int
    total: int


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
        cap: limit to the mated comparisons of one person; None where all are taken.
        notes: what was found when the comparisons were read.
        name_of: what to call the image of a row.
        person_of: what the set calls the person of a row; None where it has no names of people.
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
    cap: Cap | None = None
    notes: tuple[Caution, ...] = ()
    name_of: Callable[[int], str] = "row {}".format
    person_of: Callable[[int], str] | None = None

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

    @cached_property
    def cautions(self) -> tuple[Caution, ...]:
        """What makes every number of this set uncertain, whatever the protocol."""
        return (*self.notes, *_odd_pairs(self), *_deciding_person(self))

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


def notes_of(file: str, left_out: Iterable[LeftOut]) -> tuple[Caution, ...]:
    """Note what a file of pairs has beside those that count."""
    return tuple(
        Caution(kind, {"file": file, "count": count, "where": where})
        for kind, count, where in left_out
    )


def _odd_pairs(comparisons: Comparisons) -> list[Caution]:
    """Count pairs of an image and itself and repeated ones, where several rows are one image."""
    if comparisons.image is None:
        return []
    distinct, image = np.unique(comparisons.image, return_inverse=True)
    if len(distinct) == len(image):
        return []
    kinds = pair_kinds(image[comparisons.pairs], comparisons.mated)
    names = ("self", "repeated", "contradictory")
    counts: dict[str, float | str] = {
        name: int(rows.sum()) for name, rows in zip(names, kinds[:3], strict=True)
    }
    if kinds.is_self.all() or not any(counts.values()):  # all: the name is that of a comparison
        return []
    return [Caution("odd_pairs", {"total": len(comparisons.mated), **counts})]


def _deciding_person(comparisons: Comparisons) -> list[Caution]:
    """Say where one person is in more than `DECIDES` of the pairs behind FNMR or FMR."""
    if comparisons.identity is None:
        return []
    ids, first_row, person = np.unique(comparisons.identity, return_index=True, return_inverse=True)
    mated, others = (comparisons.pairs[kind] for kind in (comparisons.mated, ~comparisons.mated))
    own = np.bincount(person[mated[:, 0]], minlength=len(ids))
    if comparisons.unlisted:  # of all that exist, not of the high end
        size = np.bincount(person)
        both = size * (len(person) - size)
    else:
        sides = person[others]
        within = sides[sides[:, 0] == sides[:, 1], 0]  # a search of one probe, which counts once
        both = np.bincount(sides.ravel(), minlength=len(ids))
        both -= np.bincount(within, minlength=len(ids))
    cautions = []
    for kind, counts, total in (
        ("mated", own, len(mated)),
        ("non-mated", both, comparisons.non_mated_total),
    ):
        most = int(counts.argmax())
        share = float(counts[most] / max(total, 1))
        if share > DECIDES:
            who = (comparisons.person_of or comparisons.name_of)(int(first_row[most]))
            facts: dict[str, float | str] = {"person": who, "share": share, "kind": kind}
            cautions.append(Caution("one_person", {**facts, "people": int((counts > 0).sum())}))
    if cautions and len(ids) < FEW_PEOPLE:
        return [Caution("few_people", {**cautions[0].facts, "people": len(ids)})]
    return cautions


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
        return _within(first + second)
    if fuse == "mean":
        return _within((first + second) / np.float32(2))
    if fuse != "product":
        raise ValueError(f"unknown fuse {fuse!r} (known: max, mean, sum, product)")
    lowest = min(first.min(initial=0), second.min(initial=0))
    if lowest < 0:
        raise ValueError(
            f"fuse 'product' needs uncertainties of 0 or more, the lowest is {lowest:.4g}: use "
            "max, mean or sum"
        )
    return _within(first * second)


def _within(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise ValueError("the uncertainties of two sides together are too large for float32")
    return values


def unit_numbers(comparisons: Comparisons, unit: Unit) -> NDArray[np.int64]:
    """(M,) numbers 0, 1, ... of the unit that each image belongs to.

    Raises:
        ValueError: the set does not know it.
    """
    ids = comparisons.identity if unit == "identity" else comparisons.image
    if ids is None:
        raise ValueError(
            f"{comparisons.name}: cannot draw by {unit}, the set does not say which {unit} each "
            f"row is; draw by {comparisons.best_unit}"
        )
    numbers: NDArray[np.int64] = np.unique(ids, return_inverse=True)[1]
    return numbers


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


class Uncertainty(NamedTuple):
    """One number per image, and where in `sigma_sq` it comes from.

    Attributes:
        label: "" when there is only one, else the columns, such as "columns 0-7".
        values: (2N,) float32, larger = less reliable.
    """

    label: str
    values: NDArray[np.float32]


def cosine_of_pairs(mu: NDArray[np.floating]) -> NDArray[np.float32]:
    """Cosine of the two embeddings of each pair, in float32 from re-normalised embeddings.

    The order of operations is the original's (normalise, multiply, sum along the row), so the last
    digit agrees; a dot product would differ in it.

    Args:
        mu: (2N, D), any real type, any length per row but zero.

    Returns:
        (N,) float32.
    """
    scores = np.empty(len(mu) // 2, np.float32)
    step = max(2, VALUES_AT_ONCE // mu.shape[1] // 2 * 2)
    for start in range(0, len(mu), step):
        rows = np.asarray(mu[start : start + step], dtype=np.float32)
        unit = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
        scores[start // 2 : (start + len(rows)) // 2] = (unit[0::2] * unit[1::2]).sum(axis=1)
    return scores


def image_uncertainties(
    sigma_sq: NDArray[np.float32], sizes: Sequence[int] | None = None
) -> list[Uncertainty]:
    """Split the columns of (2N, c) into uncertainties that are evaluated one by one.

    Exactly two columns are two uncertainties; otherwise `sizes` cuts blocks of columns, and without
    it all columns are one block. A block of several columns becomes its harmonic mean.

    Raises:
        ValueError: sizes below 1, or that do not add up to the number of columns.
    """
    columns = sigma_sq.shape[1]
    if sizes is not None and (min(sizes, default=0) < 1 or sum(sizes) != columns):
        raise ValueError(
            f"sigma_sizes {','.join(map(str, sizes))} must be 1 or more each and add up to the "
            f"{columns} columns of sigma_sq"
        )
    cuts = [1, 1] if columns == 2 else list(sizes or [columns])
    uncertainties, start = [], 0
    for size in cuts:
        block = sigma_sq[:, start : start + size]
        values = block[:, 0] if size == 1 else harmonic_mean(block)
        uncertainties.append(Uncertainty(_label(start, size) if len(cuts) > 1 else "", values))
        start += size
    return uncertainties


def _label(start: int, size: int) -> str:
    return f"column {start}" if size == 1 else f"columns {start}-{start + size - 1}"


def mls_scores(
    mu: NDArray[np.float32], sigma_sq: NDArray[np.float32], pairs: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Log likelihood that both sides of a pair show one person, larger = more alike.

    With a variance per dimension (Shi and Jain, PFE, arXiv 1904.09658, Eq. 3), s = s_a + s_b:
    -1/2 sum_l [ (a_l - b_l)^2 / s_l + log s_l ] - D/2 log(2 pi).

    With one variance per image (Chen et al., ProbFace, arXiv 2102.04075, Eq. 5):
    -D/2 [ 2 (1 - cos) / s + log s ] - D/2 log(2 pi). Such a variance stands for all D dimensions
    together: s / D in each dimension gives the same score plus the constant D/2 log D.

    Args:
        mu: (M, D) embeddings of any length but zero; they are normalised first.
        sigma_sq: (M, D) or (M, 1) variances, above 0.
        pairs: (N, 2) row numbers.

    Returns:
        (N,) float32.

    Raises:
        ValueError: another number of variances, or values that cannot be variances.
    """
    check_variances(mu, sigma_sq, "the mutual likelihood score")
    columns, per_image = mu.shape[1], sigma_sq.shape[1] == 1
    unit = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    constant = columns / 2 * math.log(2 * math.pi)
    scores = np.empty(len(pairs), np.float32)
    step = max(1, NUMBERS_AT_ONCE // columns)
    for start in range(0, len(pairs), step):
        first, second = pairs[start : start + step].T
        gap = unit[first] - unit[second]
        total = sigma_sq[first] + sigma_sq[second]
        np.square(gap, out=gap)
        if per_image:
            distance = gap.sum(axis=1, dtype=np.float64) / total[:, 0]
            cost = columns * (distance + np.log(total[:, 0].astype(np.float64)))
        else:
            gap /= total
            gap += np.log(total, out=total)
            cost = gap.sum(axis=1, dtype=np.float64)
        scores[start : start + step] = -cost / 2 - constant
    return scores


def rescored(
    comparisons: Comparisons, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]
) -> Comparisons:
    """Score the same comparisons by their mutual likelihood instead of the cosine.

    Args:
        comparisons: of the M images; all of them listed.
        mu: (M, D) embeddings of the images.
        sigma_sq: (M, D) or (M, 1) variances, above 0.

    Raises:
        ValueError: only the highest cosines are listed, another number of images, or uncertainties
            that are not variances.
    """
    if comparisons.unlisted:
        raise ValueError(
            f"{comparisons.name}: {comparisons.unlisted} non-mated comparisons are not listed "
            "because their cosine is low, but their mutual likelihood may be high: sample "
            "non-mated comparisons (--non_mated COUNT) instead of taking all"
        )
    if len(mu) != len(comparisons.uncertainty):
        raise ValueError(
            f"{comparisons.name}: {len(mu)} embeddings for {len(comparisons.uncertainty)} images"
        )
    try:
        scores = mls_scores(mu, sigma_sq, comparisons.pairs)
    except ValueError as error:
        raise ValueError(f"{comparisons.name}: {error}") from error
    return dataclasses.replace(comparisons, scores=scores)


def check_variances(mu: NDArray[np.float32], sigma_sq: NDArray[np.float32], purpose: str) -> None:
    """Refuse uncertainties that are not variances.

    Args:
        mu: (M, D) embeddings.
        sigma_sq: what should be (M, 1) or (M, D) variances above 0.
        purpose: what needs them, for the message.

    Raises:
        ValueError: a wrong shape, or a value that is not above 0.
    """
    rows, columns = mu.shape
    if sigma_sq.shape not in ((rows, 1), (rows, columns)):
        raise ValueError(
            f"{purpose} needs one variance per image or one for each of the {columns} embedding "
            f"dimensions, got sigma_sq of shape {sigma_sq.shape} for {rows} images"
        )
    sound = (sigma_sq > 0).all(axis=1)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"{purpose} needs variances above 0, but {int((~sound).sum())} of {rows} images have "
            f"others (row {row}: {sigma_sq[row].min():.6g}): this method's uncertainty is not a "
            "variance"
        )

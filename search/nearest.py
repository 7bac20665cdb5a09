"""The nearest templates of a gallery to each probe, in blocks and bounded memory. NumPy only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.features import cosines, unit_rows
from utils.files import naming

BLOCK = (1024, 8192)  # probes and templates of one product: 32 MiB of scores
AT_ONCE = 128  # probes whose candidates are gathered at once, to be scored pair by pair
SPARE = 4  # more candidates than asked for, so that the rounding of a product decides about none

Ids = NDArray[np.integer]


class Candidates(NamedTuple):
    """The best templates of each of P probes, best first; of equal ones, the first in the gallery.

    Attributes:
        scores: (P, K) float32 cosines; -inf where a gallery has fewer than K templates to compare.
        rows: (P, K) int64 rows of the gallery; -1 there.
    """

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]


def nearest(
    probes: NDArray[np.floating],
    gallery: NDArray[np.floating],
    count: int,
    *,
    exclude: tuple[Ids, Ids] | None = None,
    block: tuple[int, int] = BLOCK,
) -> Candidates:
    """Find the `count` most similar templates of a gallery for each probe.

    Matrix products find candidates, whose cosines are then computed pair by pair: scores are those
    of `data.features.cosines` to the last bit, whatever the blocks, the threads or the BLAS.
    The gallery is read twice, and may be a `numpy.memmap` of float16 or float32. Memory: the probes
    in float32, (count + 4) * 36 bytes a probe, and about
    300 MB + 1 MB * count, whatever the gallery's size.

    Args:
        probes: (P, D) embeddings of any length but zero.
        gallery: (G, D) templates of any length but zero.
        count: candidates of each probe, 1 or more.
        exclude: (P,) and (G,) numbers; templates whose number is the probe's are not compared:
            labels leave out everything of the probe's own person, rows only the probe itself.
        block: probes and templates of one matrix product.

    Raises:
        ValueError: a count below 1, shapes that do not fit, or embeddings that are not
            `are_directions` (NaN, say); the message names the side.
    """
    if count < 1:
        raise ValueError(f"count = {count}: must be at least 1")
    shapes = np.shape(probes), np.shape(gallery)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"probes {shapes[0]} and gallery {shapes[1]} do not fit: need (P, D), (G, D)"
        )
    if exclude is not None and (len(exclude[0]), len(exclude[1])) != (len(probes), len(gallery)):
        raise ValueError("exclude needs one number per probe and one per template")
    with naming("probes"):
        unit = unit_rows(np.asarray(probes))
    starts = range(0, len(unit), block[0])
    pools = [_Pool(min(block[0], len(unit) - start), count + SPARE) for start in starts]
    for left in range(0, len(gallery), block[1]):
        with naming(f"gallery, rows from {left} on"):
            columns = unit_rows(np.asarray(gallery[left : left + block[1]])).T
        for start, pool in zip(starts, pools, strict=True):
            part = slice(start, start + block[0])
            scores = unit[part] @ columns
            if exclude is not None:
                own = exclude[0][part, None] == exclude[1][None, left : left + block[1]]
                np.copyto(scores, -np.inf, where=own)
            pool.add(scores, left)
    rows = np.concatenate(
        [np.empty((0, count + SPARE), np.int64), *(pool.best() for pool in pools)]
    )
    best = [
        _exact(unit[start : start + AT_ONCE], gallery, rows[start : start + AT_ONCE], count)
        for start in range(0, max(len(unit), 1), AT_ONCE)
    ]
    return Candidates(*map(np.concatenate, zip(*best, strict=True)))


class _Pool:
    """Templates that may be among the best of a block of probes."""

    def __init__(self, probes: int, count: int) -> None:
        self.scores = np.full((probes, count), -np.inf, np.float32)
        self.rows = np.full((probes, count), -1, np.int64)
        self._new: list[tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.float32]]] = []

    def add(self, scores: NDArray[np.float32], left: int) -> None:
        """Take the scores of the templates from row `left` on."""
        probes, width = scores.shape
        count = self.scores.shape[1]
        places = np.flatnonzero(scores > self.scores[:, -1:])
        if len(places) > count * probes and width > count:
            columns = np.argpartition(scores, width - count, axis=1)[:, width - count :]
            places = (columns + width * np.arange(probes)[:, None]).ravel()
            places = places[scores.ravel()[places] > -np.inf]
        probe, column = np.divmod(places, width)
        self._new.append((probe, column + left, scores.ravel()[places]))
        if sum(len(new[0]) for new in self._new) >= self.scores.size:
            self.best()

    def best(self) -> NDArray[np.int64]:
        """(probes, count) rows of the best so far, -1 where there are fewer."""
        probes, count = self.scores.shape
        own = np.repeat(np.arange(probes), count), self.rows.ravel(), self.scores.ravel()
        probe, row, score = map(np.concatenate, zip(own, *self._new, strict=True))
        order = np.lexsort((row, -score, probe))
        sizes = np.bincount(probe, minlength=probes)
        first = (np.cumsum(sizes) - sizes)[:, None] + np.arange(count)
        self.rows, self.scores, self._new = row[order][first], score[order][first], []
        return self.rows


def _exact(
    unit: NDArray[np.float32],
    gallery: NDArray[np.floating],
    rows: NDArray[np.int64],
    count: int,
) -> Candidates:
    """Score candidates pair by pair, and keep the best."""
    needed, place = np.unique(rows[rows >= 0], return_inverse=True)
    probe = np.nonzero(rows >= 0)[0]
    both = np.concatenate([unit, unit_rows(np.asarray(gallery[needed]))])
    scores = np.full(rows.shape, -np.inf, np.float32)
    scores[rows >= 0] = cosines(both, np.stack([probe, len(unit) + place], axis=1))
    order = np.lexsort((rows, -scores), axis=1)[:, :count]
    return Candidates(np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1))

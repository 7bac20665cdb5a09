"""Which rows a step has: class-balanced batches (P identities x K images).

Stateless: a batch follows from (seed, step) alone, so a resumed run has the same batches. The
time it takes does not depend on the size of the data set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data.faces import class_index

_BLOCK = 32  # steps drawn together, which divides the cost of numpy calls by as much


class ClassBalancedBatches:
    """Draws the rows of each batch.

    Classes come without replacement within a batch. A class with K or more images gives K distinct
    ones; a smaller one repeats evenly, as if permutations of it were concatenated until K. Classes
    of one image have no genuine pair and are left out.

    Args:
        labels: (N,) 0..C-1.
        classes_per_batch: P.
        images_per_class: K.
        seed: fixes every batch.

    Attributes:
        num_classes: classes that are drawn from.
        num_left_out_classes: classes of one image.

    Raises:
        ValueError: fewer usable classes than P.
    """

    def __init__(
        self, labels: NDArray[np.integer], classes_per_batch: int, images_per_class: int, seed: int
    ) -> None:
        self._rows, starts = class_index(labels)
        counts = np.diff(starts)
        usable = np.flatnonzero(counts >= 2)
        self._starts, self._counts = starts[usable], counts[usable]
        self.classes_per_batch, self.images_per_class = classes_per_batch, images_per_class
        self.num_classes = len(usable)
        self.num_left_out_classes = int((counts == 1).sum())
        self._seed = seed
        self._block: tuple[int, NDArray[np.int64]] = (-1, np.empty((0, 0), dtype=np.int64))
        if self.num_classes < classes_per_batch:
            raise ValueError(
                f"classes_per_batch = {classes_per_batch}, but only {self.num_classes} classes "
                f"have two or more images ({self.num_left_out_classes} have one)"
            )

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return (P*K,) rows of the batch of a step, class by class."""
        block, offset = divmod(step, _BLOCK)
        number, batches = self._block
        if number != block:
            batches = self._draw(block)
            self._block = (block, batches)
        return batches[offset]

    def _draw(self, block: int) -> NDArray[np.int64]:
        """Draw the (_BLOCK, P*K) rows of a block of steps."""
        rng = np.random.default_rng([self._seed, block])
        choose = self.num_classes, self.classes_per_batch
        chosen = np.concatenate([rng.choice(*choose, replace=False) for _ in range(_BLOCK)])
        counts = self._counts[chosen]
        rest = self.images_per_class % counts  # drawn; the others are whole rounds of the class
        columns = np.arange(self.images_per_class)
        rounds = (columns - rest[:, None]) % counts[:, None]
        drawn = _distinct(rng, counts, rest, self.images_per_class)
        picked = np.where(columns < rest[:, None], drawn, rounds)
        rows = self._starts[chosen][:, None] + picked
        if not isinstance(self._rows, range):
            rows = self._rows[rows]
        return rows.reshape(_BLOCK, -1).astype(np.int64)


class RankShare:
    """The part of each class-balanced batch that one of `size` processes has: whole classes.

    Together the processes have the batch that one process would have; pairs stay within a process.

    Raises:
        ValueError: the classes of a batch cannot be shared out evenly.
    """

    def __init__(self, sampler: ClassBalancedBatches, rank: int, size: int) -> None:
        assert 0 <= rank < size
        if sampler.classes_per_batch % size:
            raise ValueError(
                f"classes_per_batch = {sampler.classes_per_batch} cannot be shared out among "
                f"{size} processes: take a multiple of {size} or another number of processes"
            )
        share = sampler.classes_per_batch // size * sampler.images_per_class
        self.sampler = sampler
        self._share = slice(rank * share, (rank + 1) * share)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return this process's rows of the batch of a step, class by class."""
        return self.sampler.rows(step)[self._share]


def _distinct(
    rng: np.random.Generator, counts: NDArray[np.int64], sizes: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Draw, in each row, `sizes` distinct numbers below `counts` (Floyd's algorithm).

    Returns:
        (M, width); columns from `sizes` on are meaningless.
    """
    uniform = rng.random((len(counts), width))
    drawn = np.zeros((len(counts), width), dtype=np.int64)
    for column in range(int(sizes.max(initial=0))):
        last = counts - sizes + column
        number = (uniform[:, column] * (last + 1)).astype(np.int64)
        taken = (drawn[:, :column] == number[:, None]).any(axis=1)
        drawn[:, column] = np.where(taken, last, number)
    return drawn

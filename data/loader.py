"""Batches: which rows each step has, and its decoded images, from threads that work ahead.

Decoding releases the interpreter lock, so threads scale like processes and nothing is pickled.
utils/long_work.py does not serve here: several threads fill parts of one batch, and the disk gets
its requests long before.

A training batch is class-balanced (P identities x K images) and stateless: it follows from (seed,
step) alone, so a resumed run has the same batches. The time to draw it does not depend on the size
of the data set.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data.faces import Faces, class_index
from data.images import SIZE
from utils.long_work import UnreadableShare

LOOK_AHEAD = 4  # batches being decoded while one is in use
READ_AHEAD = 2000  # images announced to the system before they are decoded: 10 MB of JPEG
_BLOCK = 32  # steps drawn together, which divides the cost of numpy calls by as much


class Sampler(Protocol):
    """Anything that says which rows a step's batch has."""

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step."""
        ...


@dataclass(frozen=True)
class Batch:
    """The images of S consecutive steps of B images each (the last step may have fewer).

    Attributes:
        steps: their numbers.
        rows: (S*B,) rows of the faces.
        labels: (S*B,).
        missing: (S*B,) True where the image was bad. With `replace_bad` another image stands
            there, and `rows` and `labels` are that image's; without, its pixels are 0.
        images: (S*B, 112, 112, 3) uint8 RGB.
    """

    steps: range
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    missing: NDArray[np.bool_]
    images: torch.Tensor


class _Plan(NamedTuple):
    steps: range
    rows: NDArray[np.int64]
    bounds: list[int]  # (S + 1,) where each step's rows start
    announced: Future[None]


class _Pending(NamedTuple):
    plan: _Plan
    images: torch.Tensor
    chunks: list[Future[dict[int, str]]]


class BatchLoader:
    """Iterates over the batches of `steps`, the same ones whatever `workers` (threads) is.

    A bad image is reported once, by name, through `on_bad`, and its place is taken by a copy of a
    good image of the same step, of its identity where there is one, else any; without `replace_bad`
    it stays as zeros. Threads end with the iteration, also when the loop is left early or fails.

    With `pin` images come in pinned memory (needs CUDA), from which copies to the device do not
    wait. PyTorch keeps such memory and takes it again once a batch was copied and freed.

    Raises:
        ValueError: while iterating: more than `max_bad_share` of the images are bad (see
            `UnreadableShare`), or no image can replace those of a step.
        OSError: the source is gone, or was changed.
    """

    def __init__(
        self,
        faces: Faces,
        sampler: Sampler,
        steps: range,
        workers: int,
        max_bad_share: float,
        on_bad: Callable[[str], None],
        *,
        steps_per_batch: int = 1,
        pin: bool = False,
        replace_bad: bool = True,
    ) -> None:
        self.faces, self.sampler, self.steps = faces, sampler, steps
        self.workers, self.on_bad = workers, on_bad
        self.share = UnreadableShare(max_bad_share, "max_bad_share =")
        self.steps_per_batch, self.pin, self.replace_bad = steps_per_batch, pin, replace_bad
        self._reported: set[int] = set()

    def __len__(self) -> int:
        return -(-len(self.steps) // self.steps_per_batch)

    def __iter__(self) -> Generator[Batch, None, None]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        pending: deque[_Pending] = deque()
        try:
            for plan in self._plans(pool):
                pending.append(self._start(pool, plan))
                if len(pending) > LOOK_AHEAD:
                    yield self._finish(pending.popleft())
            while pending:
                yield self._finish(pending.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        self.share.judge()

    def _plans(self, pool: ThreadPoolExecutor) -> Iterator[_Plan]:
        """Yield what each batch holds, about READ_AHEAD images after it was announced."""
        ahead: deque[_Plan] = deque()
        announced = 0
        for first in range(0, len(self.steps), self.steps_per_batch):
            plan = self._plan(pool, self.steps[first : first + self.steps_per_batch])
            ahead.append(plan)
            announced += len(plan.rows)
            while announced > READ_AHEAD:
                announced -= len(ahead[0].rows)
                yield ahead.popleft()
        yield from ahead

    def _plan(self, pool: ThreadPoolExecutor, steps: range) -> _Plan:
        rows = [self.sampler.rows(step) for step in steps]
        bounds = np.cumsum([0, *map(len, rows)]).tolist()
        together = np.concatenate(rows)
        return _Plan(steps, together, bounds, pool.submit(self.faces.read_ahead, together))

    def _start(self, pool: ThreadPoolExecutor, plan: _Plan) -> _Pending:
        size = len(plan.rows)
        images = torch.empty((size, SIZE, SIZE, 3), dtype=torch.uint8, pin_memory=self.pin)
        pixels = images.numpy()
        bounds = np.linspace(0, size, min(self.workers, size) + 1).astype(int).tolist()
        chunks = [
            pool.submit(self._read, plan.rows, pixels, range(start, end))
            for start, end in pairwise(bounds)
        ]
        return _Pending(plan, images, chunks)

    def _read(
        self, rows: NDArray[np.int64], images: NDArray[np.uint8], places: range
    ) -> dict[int, str]:
        """Fill `images[places]`; return what is wrong with those places that cannot be read."""
        bad = {}
        for place in places:
            try:
                self.faces.read_into(int(rows[place]), images[place])
            except ValueError as error:
                images[place] = 0
                bad[place] = str(error)
        return bad

    def _finish(self, pending: _Pending) -> Batch:
        plan, images = pending.plan, pending.images
        bad = {place: what for chunk in pending.chunks for place, what in chunk.result().items()}
        plan.announced.result()
        rows, labels = plan.rows, self.faces.labels[plan.rows].astype(np.int64)
        missing = np.zeros(len(rows), dtype=bool)
        if bad:
            missing[list(bad)] = True
            self._report({int(rows[place]): what for place, what in bad.items()})
            if self.replace_bad:
                source = _substitutes(labels, missing, plan)
                rows, labels = rows[source], labels[source]
                images.numpy()[missing] = images.numpy()[source[missing]]
        self.share.add(len(plan.rows), len(bad), next(iter(bad.values()), ""))
        return Batch(plan.steps, rows, labels, missing, images)

    def _report(self, bad: dict[int, str]) -> None:
        for row in sorted(bad.keys() - self._reported):
            self.on_bad(bad[row])
        self._reported |= bad.keys()


def _substitutes(
    labels: NDArray[np.int64], missing: NDArray[np.bool_], plan: _Plan
) -> NDArray[np.int64]:
    """Return (S*B,) the place whose image each place gets: its own where that is good."""
    source = np.arange(len(labels))
    for step, start, end in zip(plan.steps, plan.bounds[:-1], plan.bounds[1:], strict=True):
        good = start + np.flatnonzero(~missing[start:end])
        if not len(good):
            raise ValueError(f"step {step}: no image of the batch could be read; see the log")
        for place in start + np.flatnonzero(missing[start:end]):
            same = good[labels[good] == labels[place]]
            chosen = same if len(same) else good
            source[place] = chosen[(place - start) % len(chosen)]
    return source


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
            fewer = f", or --set classes_per_batch={self.num_classes}" if self.num_classes else ""
            raise ValueError(
                f"classes_per_batch = {classes_per_batch} people, but only {self.num_classes} have "
                f"two or more images ({self.num_left_out_classes} have one): give more{fewer}"
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

"""Batches of decoded images, in order, from a few threads that work ahead.

Decoding releases the interpreter lock, so threads scale like processes and nothing is pickled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data.faces import Faces
from data.images import SIZE

LOOK_AHEAD = 4  # batches being decoded while one is in use
JUDGED_AFTER = 1000  # images; the share of bad ones says little before


class Sampler(Protocol):
    """Anything that says which rows a step's batch has."""

    def rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step."""
        ...


@dataclass(frozen=True)
class Batch:
    """The images of one step.

    Attributes:
        step: its number.
        rows: (B',) rows of the faces; bad images are missing, so B' may be below P*K.
        labels: (B',).
        images: (B', 112, 112, 3) uint8 RGB.
    """

    step: int
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    images: NDArray[np.uint8]


class _Pending(NamedTuple):
    step: int
    rows: NDArray[np.int64]
    images: NDArray[np.uint8]
    chunks: list[Future[dict[int, str]]]


class BatchLoader:
    """Iterates over the batches of `steps`.

    A bad image is left out of its batch and reported once, by name. Threads end with the iteration,
    also when the loop is left early or fails.

    Args:
        faces: what to read.
        sampler: rows of each step.
        steps: which steps, in this order.
        workers: threads.
        max_bad_share: of the images read; judged from 1000 images on, and at the end.
        on_bad: called with a line that names the image.

    Raises:
        ValueError: while iterating: more than `max_bad_share` of the images are bad, or a whole
            batch is.
    """

    def __init__(
        self,
        faces: Faces,
        sampler: Sampler,
        steps: range,
        workers: int,
        max_bad_share: float,
        on_bad: Callable[[str], None],
    ) -> None:
        self.faces, self.sampler, self.steps = faces, sampler, steps
        self.workers, self.max_bad_share, self.on_bad = workers, max_bad_share, on_bad
        self._reported: set[int] = set()
        self._num_read = self._num_bad = 0

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Generator[Batch, None, None]:
        with _pool(self.workers) as pool:
            pending: deque[_Pending] = deque()
            for step in self.steps:
                pending.append(self._start(pool, step))
                if len(pending) > LOOK_AHEAD:
                    yield self._finish(pending.popleft())
            while pending:
                yield self._finish(pending.popleft())
        self._judge()

    def _start(self, pool: ThreadPoolExecutor, step: int) -> _Pending:
        rows = self.sampler.rows(step)
        images = np.empty((len(rows), SIZE, SIZE, 3), dtype=np.uint8)
        bounds = np.linspace(0, len(rows), min(self.workers, len(rows)) + 1).astype(int).tolist()
        chunks = [
            pool.submit(self._read, rows[start:end], images[start:end])
            for start, end in zip(bounds[:-1], bounds[1:], strict=True)
        ]
        return _Pending(step, rows, images, chunks)

    def _read(self, rows: NDArray[np.int64], images: NDArray[np.uint8]) -> dict[int, str]:
        """Fill `images`; return what is wrong with those rows that cannot be read."""
        bad = {}
        for place, row in enumerate(rows.tolist()):
            try:
                images[place] = self.faces.read(row)
            except ValueError as error:
                bad[row] = str(error)
        return bad

    def _finish(self, pending: _Pending) -> Batch:
        step, rows, images, chunks = pending
        bad = {row: what for chunk in chunks for row, what in chunk.result().items()}
        self._num_read += len(rows)
        if bad:
            keep = ~np.isin(rows, list(bad))
            self._report(bad, num_bad=int((~keep).sum()))
            rows, images = rows[keep], images[keep]
            if not len(rows):
                raise ValueError(f"step {step}: no image of the batch could be read; see the log")
        if self._num_read >= JUDGED_AFTER:
            self._judge()
        return Batch(step, rows, self.faces.labels[rows], images)

    def _report(self, bad: dict[int, str], num_bad: int) -> None:
        self._num_bad += num_bad
        for row in sorted(bad.keys() - self._reported):
            self.on_bad(bad[row])
        self._reported |= bad.keys()

    def _judge(self) -> None:
        if self._num_bad > self.max_bad_share * self._num_read:
            raise ValueError(
                f"{self._num_bad} of {self._num_read} images read are bad, more than max_bad_share "
                f"= {self.max_bad_share:g} allows; such as {self.faces.name(min(self._reported))}"
            )


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

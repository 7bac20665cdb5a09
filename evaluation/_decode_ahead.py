"""Images of a set decoded by a few threads while the batches before them are embedded.

Public through evaluation.embed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from evaluation._shared_out import Span

THREADS = 4  # at most; one decodes some ten thousand images a second
BATCHES = 6  # decoded and waiting, at most


class Decodes(Protocol):
    """Anything that gives images by number; from several threads at once."""

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images start..stop-1 as (n, 112, 112, 3) RGB."""


class DecodedAhead:
    """Gives what `images.decode` gives, mostly without waiting; a context manager.

    Args:
        images: the source.
        batches: the spans that will be asked for, in this order; some may be left out.
    """

    def __init__(self, images: Decodes, batches: Iterable[Span]) -> None:
        self._images = images
        self._left = iter(batches)
        self._ahead: deque[tuple[Span, Future[NDArray[np.uint8]]]] = deque()

    def __enter__(self) -> Self:
        threads = min(THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._fill()
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images start..stop-1 as (n, 112, 112, 3) RGB; raises what the source raises."""
        while self._ahead:
            span, found = self._ahead.popleft()
            self._fill()
            if span == (start, stop):
                return found.result()
            found.cancel()
        return self._images.decode(start, stop)

    def _fill(self) -> None:
        while len(self._ahead) < BATCHES and (span := next(self._left, None)) is not None:
            self._ahead.append((span, self._pool.submit(self._images.decode, *span)))

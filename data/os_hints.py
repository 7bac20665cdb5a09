"""Announces to the system which parts of a file will be read, so that a disk has enough to do.

Where the system takes no such advice, nothing happens.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 16 << 10  # bytes between two parts that are worth reading rather than skipping
FAR = 64 << 10  # mean distance of places from which on what lies between is not read along
MANY = 10_000  # places that are worth threads
THREADS = 32  # that wait for the disk
AT_ONCE = 128 << 10  # bytes of one request; Linux may cut what is longer


def will_need(file: int, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Ask for the bytes from starts (n,) to ends (n,), in any order, of an open file.

    Returns before they are there, and lets other threads run.
    """
    if hasattr(os, "posix_fadvise"):
        for start, end in merged(starts, ends):
            for at in range(start, end, AT_ONCE):
                os.posix_fadvise(file, at, min(AT_ONCE, end - at), os.POSIX_FADV_WILLNEED)


def merged(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the parts in order, those that lie within NEAR of each other as one."""
    if not len(starts):
        return []
    order = np.argsort(starts, kind="stable")
    starts, reached = starts[order], np.maximum.accumulate(ends[order])
    first = np.concatenate([[True], starts[1:] > reached[:-1] + NEAR])
    last = np.concatenate([first[1:], [True]])
    return list(zip(starts[first].tolist(), reached[last].tolist(), strict=True))


def gather_scattered(
    mapped: mmap.mmap,
    gather: Callable[[NDArray[np.int64]], list[NDArray[Any]]],
    offsets: NDArray[np.int64],
) -> list[NDArray[Any]]:
    """Return `gather(offsets)`, arrays with a row for each; far apart, by threads and page by page.

    By itself the system would read 128 KB around each place of the mapped file, one after the
    other, which for a pack that is not in memory comes to all of it.
    """
    few = len(offsets) < MANY or not hasattr(mmap, "MADV_RANDOM")
    if few or np.ptp(offsets) < FAR * len(offsets):
        return gather(offsets)
    mapped.madvise(mmap.MADV_RANDOM)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(pool.map(gather, np.array_split(offsets, 4 * THREADS)))
    finally:
        mapped.madvise(mmap.MADV_NORMAL)
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

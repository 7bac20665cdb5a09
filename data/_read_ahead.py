"""Tells the system which parts of a file are about to be read, so that a disk works ahead.

Used by data/recordio.py. Where the system takes no such advice, nothing happens.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

NEAR = 16 << 10  # bytes between two parts that are worth reading rather than skipping
AT_ONCE = 128 << 10  # bytes of one request; Linux may cut what is longer


def will_need(file: int, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Ask for parts of a file; returns before they are there, and lets other threads run.

    Args:
        file: descriptor.
        starts: (n,) first bytes, in any order.
        ends: (n,) bytes after the last.
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

"""Paths of many images with their labels, in one block of memory.

Used by data/face_files.py: 17 M Python strings would take over 1.5 GB.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Listing:
    """N paths and labels.

    Args:
        block: uint8, the paths one after the other, as the file system has them.
        ends: (N,) where each path ends in the block.
        labels: (N,) int32, 0..C-1, every one of which occurs.
    """

    def __init__(
        self, block: NDArray[np.uint8], ends: NDArray[Any], labels: NDArray[np.int32]
    ) -> None:
        self.block, self.ends, self.labels = block, ends, labels
        self.num_classes = int(labels.max(initial=-1)) + 1

    @classmethod
    def of(cls, entries: Iterable[tuple[str, int]]) -> Listing:
        """Gather (path, label) pairs; any whole numbers become 0..C-1, in order of appearance."""
        block, ends, labels = bytearray(), array("q"), array("i")
        numbers: dict[int, int] = {}
        for path, label in entries:
            block += os.fsencode(path)
            ends.append(len(block))
            labels.append(numbers.setdefault(label, len(numbers)))
        return cls(
            np.frombuffer(block, dtype=np.uint8), small_ends(ends), np.array(labels, dtype=np.int32)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """Return a path."""
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.block[start : int(self.ends[row])].tobytes())


def small_ends(ends: Any) -> NDArray[Any]:
    """Return places in a block as uint32 where they fit, which 17 M paths of 200 bytes do."""
    found = np.asarray(ends, dtype=np.int64)
    return found.astype(np.uint32) if not len(found) or found[-1] < 1 << 32 else found

"""Keeps what a pack's start-up found (where records start, which are images, whose) for the next.

Used by data/recordio.py.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import cache_file as _cache_file
from data.rec.index import Offsets, Starts
from data.rec.labels import Images

WORTH = 100_000  # records; fewer are found in milliseconds, and leave no file behind
SETTLED = 2.0  # seconds since the last change; times of files are too coarse to tell two apart


def pack_key(path: Path) -> dict[str, Any]:
    """Return what a pack's index depends on: size and time of the `.rec` and its `.idx`."""
    beside = path.with_suffix(".idx")
    return {
        "kind": "pack",
        "rec": _cache_file.stamp(path),
        "idx": _cache_file.stamp(beside) if beside.is_file() else None,
    }


def load_index(path: Path, key: dict[str, Any]) -> tuple[Starts, Images] | None:
    """Return what an earlier start found in this pack, None where there is nothing that fits."""
    arrays = _cache_file.load(path, key)
    if arrays is None:
        return None
    starts = Starts(_unpacked(arrays["keys"]), Offsets(arrays["low"], arrays["bases"]))
    return starts, Images(_unpacked(arrays["positions"]), arrays["labels"])


def store_index(path: Path, key: dict[str, Any], starts: Starts, images: Images) -> None:
    """Keep the index of a pack that is large and not just being written."""
    changed = max(stamp[1] for stamp in (key["rec"], key["idx"]) if stamp)
    if len(starts.offsets) < WORTH or time.time() - changed / 1e9 < SETTLED:
        return
    _cache_file.store(
        path,
        key,
        {
            "keys": _packed(starts.keys),
            "low": starts.offsets.low,
            "bases": starts.offsets.bases,
            "positions": _packed(images.positions),
            "labels": images.labels,
        },
    )


def _packed(numbers: range | NDArray[Any]) -> NDArray[Any]:
    """Return a range as its bounds, which unsigned numbers mark; an array as it is."""
    if isinstance(numbers, range):
        return np.array([numbers.start, numbers.stop], dtype=np.uint64)
    return numbers


def _unpacked(stored: NDArray[Any]) -> range | NDArray[Any]:
    return range(*stored.tolist()) if stored.dtype == np.uint64 else stored

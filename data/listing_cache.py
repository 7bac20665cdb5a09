"""Lists folders of faces once: later only those that changed, the others come from a cache file.

Used by data/face_files.py, for list files as well.
"""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import cache_file as _cache_file
from data.listing import Listing, small_ends

WORTH = 20_000  # images; fewer are listed in a moment, and leave no file behind
SETTLED = 2.0  # seconds since a change; times of files are too coarse to tell two apart
SECONDS_BETWEEN_WORDS = 10.0

log = logging.getLogger("faceuq")


class _Folders:
    """The images in each folder of a root, as bytes and lengths that can be reused in parts.

    Attributes:
        names: of the folders, sorted, joined by 0 bytes.
        changed: (F,) their times of change in ns; -1 where that is too recent to be relied on.
        counts: (F,) images in each.
        block: paths below the root, one after the other.
        ends: (N,) where each path ends.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays
        self.names: bytes = arrays["names"].tobytes()
        self.changed, self.counts = arrays["changed"], arrays["counts"]
        self.block, self.ends = arrays["block"], arrays["ends"]

    def listing(self) -> Listing:
        """Return all images; folders without any get no label."""
        counts = self.counts[self.counts > 0]
        labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return Listing(self.block, self.ends, labels)

    def by_name(self) -> dict[bytes, tuple[int, slice]]:
        """Return each folder's time of change and rows."""
        ends = np.cumsum(self.counts).tolist()
        return {
            name: (changed, slice(end - count, end))
            for name, changed, count, end in zip(
                self.names.split(b"\0"),
                self.changed.tolist(),
                self.counts.tolist(),
                ends,
                strict=True,
            )
        }

    def part(self, rows: slice) -> tuple[bytes, NDArray[np.int64]]:
        """Return the paths of some rows and the length of each."""
        ends = self.ends[rows].astype(np.int64)
        start = int(self.ends[rows.start - 1]) if rows.start else 0
        stop = int(ends[-1]) if len(ends) else start
        return self.block[start:stop].tobytes(), np.diff(ends, prepend=start)


def folder_listing(root: Path, suffixes: tuple[str, ...]) -> Listing:
    """List the images in the folders of a folder; folders and images sorted by name.

    Cost: a look at every folder, and a listing of those that changed since the last time.

    Args:
        root: the folder of folders.
        suffixes: of images, in small letters.
    """
    started = time.time()
    names, changed = _scan(root)
    key = {"kind": "folder", "suffixes": list(suffixes)}
    arrays = _cache_file.load(root, key)
    kept = None if arrays is None else _Folders(arrays)
    if kept and kept.names == b"\0".join(names) and np.array_equal(kept.changed, changed):
        return kept.listing()
    found = _list(root, names, changed, suffixes, kept)
    found.changed[changed > (started - SETTLED) * 1e9] = -1
    if len(found.ends) >= WORTH:
        _cache_file.store(root, key, found.arrays)
    return found.listing()


def list_file_listing(path: Path, parse: Callable[[], Iterable[tuple[str, int]]]) -> Listing:
    """Return what a list file says: from the cache where it has not changed, else parsed."""
    stamp = _cache_file.stamp(path)
    key = {"kind": "list", "list": stamp}
    arrays = _cache_file.load(path, key)
    if arrays is not None:
        return Listing(arrays["block"], arrays["ends"], arrays["labels"])
    found = Listing.of(parse())
    if len(found) >= WORTH and time.time() - stamp[1] / 1e9 >= SETTLED:
        kept = {"block": found.block, "ends": found.ends, "labels": found.labels}
        _cache_file.store(path, key, kept)
    return found


def _scan(root: Path) -> tuple[list[bytes], NDArray[np.int64]]:
    """Return the names of the folders of a folder, sorted, and their times of change."""
    with os.scandir(root) as entries:
        folders = sorted(
            (entry.name, entry.stat().st_mtime_ns)
            for entry in entries
            if entry.is_dir() and entry.name[0] != "."
        )
    return [os.fsencode(name) for name, _ in folders], np.array(
        [changed for _, changed in folders], dtype=np.int64
    )


def _list(
    root: Path,
    names: list[bytes],
    changed: NDArray[np.int64],
    suffixes: tuple[str, ...],
    kept: _Folders | None,
) -> _Folders:
    known = {} if kept is None else kept.by_name()
    block, lengths, counts = bytearray(), array("q"), array("i")
    spoken = time.monotonic()
    for name, time_of_change in zip(names, changed.tolist(), strict=True):
        before, rows = known.get(name, (None, slice(0)))
        if kept is not None and before == time_of_change:
            paths, sizes = kept.part(rows)
            block += paths
            lengths.frombytes(sizes.tobytes())
            counts.append(len(sizes))
        else:
            images = [os.fsencode(path) for path in _images(root, os.fsdecode(name), suffixes)]
            block += b"".join(images)
            lengths.extend(map(len, images))
            counts.append(len(images))
        if time.monotonic() - spoken > SECONDS_BETWEEN_WORDS:
            spoken = time.monotonic()
            done = f"{len(lengths)} images in {len(counts)} of {len(names)} folders"
            log.info("listing %s: %s", root, done)
    return _Folders(
        {
            "names": np.frombuffer(b"\0".join(names), dtype=np.uint8),
            "changed": changed.copy(),
            "counts": np.array(counts, dtype=np.int32),
            "block": np.frombuffer(block, dtype=np.uint8),
            "ends": small_ends(np.cumsum(np.array(lengths, dtype=np.int64))),
        }
    )


def _images(root: Path, folder: str, suffixes: tuple[str, ...]) -> list[str]:
    with os.scandir(root / folder) as entries:
        return [
            f"{folder}/{name}"
            for name in sorted(entry.name for entry in entries)
            if name.lower().endswith(suffixes) and name[0] != "."
        ]

"""Paths of many images with their labels: from folders or a list file, or from a cache file.

Paths lie in one block of memory: 17 M Python strings would take over 1.5 GB. Only folders that
changed since the last time are listed again.
"""

from __future__ import annotations

import logging
import os
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data import cache_file

log = logging.getLogger("faceuq")

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
SMALLEST_CACHED = 20_000  # images; fewer are listed in a moment, and leave no file behind
SETTLED = 2.0  # seconds since a change; times of files are too coarse to tell two apart
SECONDS_BETWEEN_LINES = 10.0  # of the log


class Listing:
    """N paths and labels.

    Args:
        block: uint8, the paths one after the other, as the file system has them.
        ends: (N,) where each path ends in the block.
        labels: (N,) int32, 0..C-1, every one of which occurs.
    """

    def __init__(
        self, block: NDArray[np.uint8], ends: NDArray[np.integer], labels: NDArray[np.int32]
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
            np.frombuffer(block, dtype=np.uint8),
            _small_ends(ends),
            np.array(labels, dtype=np.int32),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, row: int) -> str:
        """Return a path."""
        start = int(self.ends[row - 1]) if row else 0
        return os.fsdecode(self.block[start : int(self.ends[row])].tobytes())


def _small_ends(ends: array[int] | NDArray[np.int64]) -> NDArray[np.integer]:
    """Return places in a block as uint32 where they fit, which 17 M paths of 200 bytes do."""
    places = np.asarray(ends, dtype=np.int64)
    return places.astype(np.uint32) if not len(places) or places[-1] < 1 << 32 else places


class _Folders:
    """The images in each folder of a root, as bytes and lengths that can be reused in parts.

    Attributes:
        names: of the folders, sorted, joined by 0 bytes.
        changed: (F,) their times of change in ns; -1 where that is too recent to be relied on.
        counts: (F,) images in each.
        block: paths below the root, one after the other.
        ends: (N,) where each path ends.
    """

    def __init__(self, arrays: cache_file.Arrays) -> None:
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


def folder_listing(root: Path) -> Listing:
    """List the images in the folders of a folder; folders and images sorted by name.

    Cost: a look at every folder, and a listing of those that changed since the last time.

    Raises:
        ValueError: no folder in it holds an image.
    """
    started = time.time()
    names, changed = _scan(root)
    key = {"kind": "folder", "suffixes": list(SUFFIXES)}
    arrays = cache_file.load(root, key)
    cached = None if arrays is None else _Folders(arrays)
    if cached and cached.names == b"\0".join(names) and np.array_equal(cached.changed, changed):
        return cached.listing()
    folders = _list(root, names, changed, cached)
    if not len(folders.ends):
        raise ValueError(
            f"{root}: no images; expected one folder per identity with files ending in "
            f"{' '.join(SUFFIXES)}, or one .rec pack"
        )
    folders.changed[changed > (started - SETTLED) * 1e9] = -1
    if len(folders.ends) >= SMALLEST_CACHED:
        cache_file.store(root, key, folders.arrays)
    return folders.listing()


def list_file_listing(path: Path) -> Listing:
    """Read a list of images: `path label`, or insightface's `key<TAB>label<TAB>path`, per line.

    A path may contain spaces. A file that has not changed since comes from the cache.

    Raises:
        ValueError: a line that is neither (with its number), or no line at all.
    """
    stamp = cache_file.stamp(path)
    key = {"kind": "list", "list": stamp}
    arrays = cache_file.load(path, key)
    if arrays is not None:
        return Listing(arrays["block"], arrays["ends"], arrays["labels"])
    listing = Listing.of(_list_entries(path))
    if not len(listing):
        raise ValueError(f"{path}: no images listed")
    if len(listing) >= SMALLEST_CACHED and time.time() - stamp[1] / 1e9 >= SETTLED:
        arrays = {"block": listing.block, "ends": listing.ends, "labels": listing.labels}
        cache_file.store(path, key, arrays)
    return listing


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
    root: Path, names: list[bytes], changed: NDArray[np.int64], cached: _Folders | None
) -> _Folders:
    known = {} if cached is None else cached.by_name()
    block, lengths, counts = bytearray(), array("q"), array("i")
    logged = time.monotonic()
    for name, time_of_change in zip(names, changed.tolist(), strict=True):
        before, rows = known.get(name, (None, slice(0)))
        if cached is not None and before == time_of_change:
            paths, sizes = cached.part(rows)
            block += paths
            lengths.frombytes(sizes.tobytes())
            counts.append(len(sizes))
        else:
            images = [os.fsencode(path) for path in _images(root, os.fsdecode(name))]
            block += b"".join(images)
            lengths.extend(map(len, images))
            counts.append(len(images))
        if time.monotonic() - logged > SECONDS_BETWEEN_LINES:
            logged = time.monotonic()
            done = f"{len(lengths)} images in {len(counts)} of {len(names)} folders"
            log.info("listing %s: %s", root, done)
    return _Folders(
        {
            "names": np.frombuffer(b"\0".join(names), dtype=np.uint8),
            "changed": changed.copy(),
            "counts": np.array(counts, dtype=np.int32),
            "block": np.frombuffer(block, dtype=np.uint8),
            "ends": _small_ends(np.cumsum(np.array(lengths, dtype=np.int64))),
        }
    )


def _images(root: Path, folder: str) -> list[str]:
    with os.scandir(root / folder) as entries:
        return [
            f"{folder}/{name}"
            for name in sorted(entry.name for entry in entries)
            if name.lower().endswith(SUFFIXES) and name[0] != "."
        ]


def _list_entries(path: Path) -> Iterator[tuple[str, int]]:
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_line(line.strip("\r\n"), f"{path}:{number}")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not a text file: {error.reason}") from error


def _parse_line(line: str, where: str) -> tuple[str, int]:
    fields = line.strip().split("\t")
    if len(fields) == 3:  # also aligned, path, label, as insightface's packer reads
        key_first = _whole(fields[1]) is not None
        image, label = (fields[2], fields[1]) if key_first else (fields[1], fields[2])
    else:
        image, _, label = line.strip().replace("\t", " ").rpartition(" ")
    number = _whole(label)
    if number is None or not image.strip():
        raise ValueError(
            f"{where}: expected `path label` or `key<TAB>label<TAB>path` with a whole number as "
            f"label, found {line[:80]!r}"
        )
    return image.strip(), number


def _whole(text: str) -> int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None

"""Where the records of a pack start: from its `.idx`, or a walk through the `.rec`; and the cache.

A cache file holds the index of a large pack for the next start.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from data import cache_file
from data.rec.format import FIRST, HEADER, LAST, MAGIC, MAGIC_BYTES, PART, WHOLE
from utils.files import open_input
from utils.tables import numbers_of

log = logging.getLogger("faceuq")

SMALLEST_CACHED = 100_000  # records; fewer are found in milliseconds, and leave no file behind
LARGEST_CHECKED = 200_000  # records that are all compared with an `.idx`, not only the last
SETTLED = 2.0  # seconds since the last change; times of files are too coarse to tell two apart
_PIECE = 1 << 20  # bytes of an .idx, or of records near each other, read at once
FAR = 64 << 10  # mean distance of places from which on what lies between is not read along
MANY = 10_000  # places that are worth threads
THREADS = 32  # that wait for the disk
_SHIFT = 12  # records that share a base: 4096, about 20 MB of a pack


class PackFile:
    """An open `.rec` file, which has to stay what it was when it was opened.

    Its bytes are copied out before anybody looks at them: mapped ones that are cut off while they
    are looked at end the process. Safe to read from several threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.close = weakref.finalize(self, os.close, self.number)
        self._written = self._state()
        self._place = threading.Lock()  # of the file, where one has to be set to read

    def __len__(self) -> int:
        return self._written[0]

    def read(self, start: int, stop: int, *, is_checked: bool = True) -> bytes:
        """Return the bytes from start to stop, or to the end.

        Raises:
            OSError: the file was cut off; if checked, it has changed at all.
        """
        try:
            if hasattr(os, "pread"):
                content = os.pread(self.number, stop - start, start)
            else:
                with self._place:
                    os.lseek(self.number, start, os.SEEK_SET)
                    content = os.read(self.number, stop - start)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if is_checked or len(content) < min(stop, len(self)) - start:
            self.check()
        return content

    def words(self, starts: NDArray[np.int64], count: int) -> NDArray[np.uint32]:
        """Return so many words of 4 bytes from each of the starts (n,) on, multiples of 4.

        Places near each other are read with what lies between, 1 MB at once; all others one by one
        and, of many, by threads, which a disk or a network answers together.

        Returns:
            (n, count), 0 behind the end of the file.

        Raises:
            OSError: the file has changed.
        """
        if len(starts) < MANY or np.ptp(starts) >= FAR * len(starts):
            one_by_one = partial(self._words, count=count)
            if len(starts) < MANY:
                words = one_by_one(starts)
            else:
                with ThreadPoolExecutor(THREADS) as pool:
                    parts = np.array_split(starts, 4 * THREADS)
                    words = np.concatenate(list(pool.map(one_by_one, parts)))
            self.check()
            return words
        words = np.empty((len(starts), count), np.uint32)
        order = np.argsort(starts, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(starts[order] // _PIECE)) + 1):
            first, end = int(starts[rows[0]]), int(starts[rows[-1]]) + 4 * count
            piece = np.frombuffer(self.read(first, end).ljust(end - first, b"\0"), "<u4")
            words[rows] = sliding_window_view(piece, count)[(starts[rows] - first) // 4]
        return words

    def _words(self, starts: NDArray[np.int64], count: int) -> NDArray[np.uint32]:
        size = 4 * count
        read = partial(self.read, is_checked=False)
        content = b"".join(read(at, at + size).ljust(size, b"\0") for at in starts.tolist())
        return np.frombuffer(content, "<u4").reshape(-1, count)

    def check(self) -> None:
        """Raise OSError if size or time of the file have changed."""
        if self._state() != self._written:
            raise OSError(f"{self.path} changed while it was read: start again when it is complete")

    def _state(self) -> tuple[int, int]:
        about = os.fstat(self.number)
        return about.st_size, about.st_mtime_ns


class Offsets:
    """R byte offsets in 4 bytes each, where records near in key are near in the file, else in 8.

    `low` (R,) is the distance from the record's base: uint32 in steps of 4 bytes, or int64 in
    bytes. There is a base, in bytes, for every 4096 records.
    """

    def __init__(self, low: NDArray[np.integer], bases: NDArray[np.int64]) -> None:
        self.low, self.bases = low, bases
        self._unit = 4 if low.dtype == np.uint32 else 1

    @classmethod
    def of(cls, offsets: NDArray[np.int64]) -> Offsets:
        """Pack (R,) offsets."""
        firsts = np.arange(0, len(offsets), 1 << _SHIFT)
        bases = np.minimum.reduceat(offsets, firsts)
        far = np.maximum.reduceat(offsets, firsts) - bases
        if (offsets < 0).any() or (offsets & 3).any() or (far >= 1 << 34).any():
            return cls(offsets, np.zeros_like(bases))
        low = np.empty(len(offsets), dtype=np.uint32)
        for first, base in zip(firsts.tolist(), bases.tolist(), strict=True):
            block = slice(first, first + (1 << _SHIFT))
            low[block] = (offsets[block] - base) >> 2
        return cls(low, bases)

    def __len__(self) -> int:
        return len(self.low)

    def at(self, position: int) -> int:
        """Return the offset of a record."""
        return int(self.bases[position >> _SHIFT]) + int(self.low[position]) * self._unit

    def take(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the offsets of some records."""
        return self.bases[positions >> _SHIFT] + self.low[positions].astype(np.int64) * self._unit


class Starts(NamedTuple):
    """Where records start, in little memory.

    Attributes:
        keys: ascending; a range where they follow one another, as insightface's do.
        offsets: of each.
    """

    keys: range | NDArray[np.int64]
    offsets: Offsets

    def positions(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many keys are smaller than each of these, as np.searchsorted does."""
        if isinstance(self.keys, range):
            return np.clip(keys - self.keys.start, 0, len(self.keys))
        return np.searchsorted(self.keys, keys)


class Images(NamedTuple):
    """The image records of a pack, by ascending key.

    Attributes:
        positions: (N,) where each stands among the records; a range where nothing lies between.
        labels: (N,) int32, or int64 where a label needs it.
    """

    positions: range | NDArray[np.int32]
    labels: NDArray[np.integer]


def read_starts(path: Path, records: PackFile) -> Starts:
    """Read the `.idx` beside a `.rec`, or walk through the `.rec`.

    Cost: 1.5 s for 17 M records from an `.idx` in memory.

    Raises:
        ValueError: a bad line, a key that occurs twice, no records, or a damaged `.rec`.
    """
    index = path.with_suffix(".idx")
    if index.is_file():
        keys, offsets = _in_order(index, *_read_index(index))
        if not _lists_all(records, offsets):
            log.warning(
                "%s lists %d records, and %s has more: walking through it; delete the .idx to stop "
                "this warning",
                *(index, len(keys), path.name),
            )
            keys, offsets = _in_order(path, *_walk(path, records))
    else:
        log.warning("no %s: walking through %s to find its records", index, path.name)
        keys, offsets = _in_order(path, *_walk(path, records))
    records.check()
    first, last = int(keys[0]), int(keys[-1])
    in_a_row = last - first == len(keys) - 1
    return Starts(
        range(first, last + 1) if in_a_row else np.ascontiguousarray(keys), Offsets.of(offsets)
    )


def _in_order(
    path: Path, keys: NDArray[np.int64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort records by key; ValueError where there is none, or a key occurs twice."""
    if not len(keys):
        raise ValueError(f"{path}: no records")
    if (keys[1:] <= keys[:-1]).any():
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if twice.size:
            raise ValueError(f"{path}: key {keys[twice[0]]} appears more than once")
    return keys, offsets


def _lists_all(records: PackFile, offsets: NDArray[np.int64]) -> bool:
    """Whether no record starts behind the end of a listed one but those that are listed.

    Of a large pack only the last listed record is looked at. A damaged record proves nothing here:
    reading it is an error that names it.
    """
    ordered = np.sort(offsets) if len(offsets) <= LARGEST_CHECKED else offsets.max(keepdims=True)
    following = np.append(ordered[1:], len(records))
    first = int(offsets.min())
    if first > 0 and records.read(first, first + 4) == MAGIC_BYTES == records.read(0, 4):
        return False
    for offset, other in zip(ordered.tolist(), following.tolist(), strict=True):
        end = _end(records, offset)
        is_before = end < min(other, len(records) - PART.size)
        if is_before and records.read(end, end + 4) == MAGIC_BYTES:
            return False
    return True


def _end(records: PackFile, offset: int) -> int:
    """Where the record at an offset ends with all its parts; the end of the file if damaged."""
    size = len(records)
    while 0 <= offset <= size - PART.size:
        magic, packed = PART.unpack(records.read(offset, offset + PART.size, is_checked=False))
        end = offset + PART.size + (packed & (1 << 29) - 1)
        offset = end + -end % 4
        if magic != MAGIC:
            return size
        if packed >> 29 in (WHOLE, LAST):
            return offset
    return size


def _walk(path: Path, records: PackFile) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find every record; keys are the headers' ids, or the order where ids repeat."""
    offsets, ids, offset = array("q"), array("q"), 0
    size = len(records)
    while offset < size:
        if offset + PART.size > size:
            raise ValueError(f"{path}: cut short at offset {offset}")
        head = records.read(offset, offset + PART.size + HEADER.size, is_checked=False)
        magic, packed = PART.unpack_from(head)
        end = offset + PART.size + (packed & (1 << 29) - 1)
        if magic != MAGIC or end > size:
            why = "no record starts there" if magic != MAGIC else "the record is cut short"
            raise ValueError(f"{path}: offset {offset}: {why}")
        if packed >> 29 in (WHOLE, FIRST):
            offsets.append(offset)
            ids.append(_identifier(head[PART.size : end - offset]))
        offset = end + -end % 4
    keys = np.array(ids, dtype=np.int64)
    if len(np.unique(keys)) < len(keys) or (len(keys) and keys.min() < 0):
        keys = np.arange(len(offsets))
    return keys, np.array(offsets, dtype=np.int64)


def _identifier(header: bytes) -> int:
    if len(header) < HEADER.size:
        return -1
    identifier = int(HEADER.unpack(header)[2])
    return identifier if identifier < 1 << 63 else -1


def _read_index(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (keys, offsets) in the order of the lines."""
    keys, offsets = [], []
    with open_input(path) as file:
        while text := file.read(_PIECE):
            text += file.readline()
            numbers = numbers_of(text, np.int64)
            lines = text.count(b"\n") + (not text.endswith(b"\n"))
            if len(numbers) != 2 * lines:
                _report_bad_line(path, path.read_bytes())
            keys.append(numbers[0::2])
            offsets.append(numbers[1::2])
    if not keys:
        raise ValueError(f"{path}: no records")
    return np.concatenate(keys), np.concatenate(offsets)


def _report_bad_line(path: Path, text: bytes) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if len(fields) != 2 or not all(field.isdigit() for field in fields):
            shown = line[:60].decode("utf-8", "replace")
            raise ValueError(f"{path}:{number}: expected `key<TAB>offset`, found {shown!r}")
    raise ValueError(f"{path}: no records")


class PackKey(TypedDict):
    """What a pack's index depends on: size and time of the `.rec` and of its `.idx`."""

    kind: str
    rec: list[int]
    idx: list[int] | None


def pack_key(path: Path) -> PackKey:
    """Return the key of a pack as it is now."""
    index = path.with_suffix(".idx")
    return {
        "kind": "pack",
        "rec": cache_file.stamp(path),
        "idx": cache_file.stamp(index) if index.is_file() else None,
    }


def load_index(path: Path, key: PackKey) -> tuple[Starts, Images] | None:
    """Return the index that an earlier start stored, None where nothing fits."""
    return cache_file.load(
        path,
        key,
        lambda arrays: (
            Starts(_unpacked(arrays["keys"]), Offsets(arrays["low"], arrays["bases"])),
            Images(_unpacked(arrays["positions"]), arrays["labels"]),
        ),
    )


def store_index(path: Path, key: PackKey, starts: Starts, images: Images) -> None:
    """Store the index of a pack that is large and not just being written."""
    changed = max(stamp[1] for stamp in (key["rec"], key["idx"]) if stamp)
    if len(starts.offsets) < SMALLEST_CACHED or time.time() - changed / 1e9 < SETTLED:
        return
    cache_file.store(
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


def _packed(numbers: range | NDArray[np.integer]) -> NDArray[np.integer]:
    """Return a range as its bounds, which unsigned numbers mark; an array as it is."""
    if isinstance(numbers, range):
        return np.array([numbers.start, numbers.stop], dtype=np.uint64)
    return numbers


def _unpacked(stored: NDArray[Any]) -> range | NDArray[Any]:
    return range(*stored.tolist()) if stored.dtype == np.uint64 else stored

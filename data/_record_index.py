"""Where the records of a pack start: its `.idx`, or a walk through the `.rec` where there is none.

Used by RecordPack.index.
"""

from __future__ import annotations

import logging
import mmap
import warnings
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data._record_format import FIRST, HEADER, MAGIC, PART, WHOLE

log = logging.getLogger("faceuq")


class RecordIndex(NamedTuple):
    """Where records start: keys ascending (R,), byte offsets (R,)."""

    keys: NDArray[np.int64]
    offsets: NDArray[np.int64]


def read_index(path: Path, records: mmap.mmap) -> RecordIndex:
    """Read the `.idx` beside a `.rec`, or walk through the `.rec`.

    Raises:
        ValueError: a bad line, a key that occurs twice, no records, or a damaged `.rec`.
    """
    beside = path.with_suffix(".idx")
    if beside.is_file():
        keys, offsets = _read_index(beside)
    else:
        log.warning("no %s: walking through %s to find its records", beside, path.name)
        keys, offsets = _walk(path, records)
    order = np.argsort(keys, kind="stable")
    keys, offsets = keys[order], offsets[order]
    twice = np.flatnonzero(np.diff(keys) == 0)
    if twice.size:
        raise ValueError(f"{beside}: key {keys[twice[0]]} appears more than once")
    return RecordIndex(keys, offsets)


def _walk(path: Path, records: mmap.mmap) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find every record; keys are the headers' ids, or the order where ids repeat."""
    offsets, ids, offset = array("q"), array("q"), 0
    size = len(records)
    while offset < size:
        if offset + PART.size > size:
            raise ValueError(f"{path}: cut short at offset {offset}")
        magic, packed = PART.unpack_from(records, offset)
        end = offset + PART.size + (packed & (1 << 29) - 1)
        if magic != MAGIC or end > size:
            why = "no record starts there" if magic != MAGIC else "the record is cut short"
            raise ValueError(f"{path}: offset {offset}: {why}")
        if packed >> 29 in (WHOLE, FIRST):
            offsets.append(offset)
            ids.append(_identifier(records, offset + PART.size, end))
        offset = end + -end % 4
    keys = np.array(ids, dtype=np.int64)
    if len(np.unique(keys)) < len(keys) or (len(keys) and keys.min() < 0):
        keys = np.arange(len(offsets))
    return keys, np.array(offsets, dtype=np.int64)


def _identifier(records: mmap.mmap, start: int, end: int) -> int:
    if end - start < HEADER.size:
        return -1
    identifier = int(HEADER.unpack_from(records, start)[2])
    return identifier if identifier < 1 << 63 else -1


def _read_index(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    text = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    except (ValueError, DeprecationWarning):
        numbers = np.empty(1, dtype=np.int64)
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    if len(numbers) % 2 or len(numbers) != 2 * lines or not len(numbers):
        _report_bad_line(path, text)
    return numbers[0::2], numbers[1::2]


def _report_bad_line(path: Path, text: bytes) -> None:
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.split()
        if len(fields) != 2 or not all(field.isdigit() for field in fields):
            shown = line[:60].decode("utf-8", "replace")
            raise ValueError(f"{path}:{number}: expected `key<TAB>offset`, found {shown!r}")
    raise ValueError(f"{path}: no records")

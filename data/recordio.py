"""Read and write MXNet RecordIO packs (`.rec` + `.idx`, insightface layout) without mxnet.

python data/recordio.py --images FOLDER_OR_LIST --out PREFIX    (thousands a second)
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import logging
import mmap
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data._record_format import (
    FIRST,
    HEADER,
    LAST,
    MAGIC,
    MAGIC_BYTES,
    MIDDLE,
    PART,
    WHOLE,
    Header,
    Record,
    pack_record,
    unpack_record,
)
from data._record_labels import image_labels
from data._record_writer import RecordWriter

__all__ = ["Header", "Record", "RecordPack", "RecordWriter", "main", "pack_record"]

log = logging.getLogger("faceuq")


class RecordIndex(NamedTuple):
    """Where records start: keys ascending (R,), byte offsets (R,)."""

    keys: NDArray[np.int64]
    offsets: NDArray[np.int64]


class RecordFields(NamedTuple):
    """Header fields of n records, gathered at once.

    Attributes:
        flag: (n,) number of labels after the fixed header, 0 for a scalar label.
        label: (n,) float32, the scalar or the first of the labels.
        second: (n,) float32, the second label; meaningless where flag < 2.
        empty: (n,) True where no image follows (identity records).
    """

    flag: NDArray[np.uint32]
    label: NDArray[np.float32]
    second: NDArray[np.float32]
    empty: NDArray[np.bool_]


class RecordPack:
    """A `.rec` file mapped into memory; one record costs the same whatever the file's size.

    The index is read on first use: from the `.idx` beside the file (keys in any order), or, where
    there is none, by walking through the `.rec` once. Safe to read from several threads.

    Args:
        path: the `.rec` file.

    Raises:
        ValueError: no such file, or one too short for a record. Reading raises it for a corrupt
            record, naming file, key and offset.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"no record file {self.path}")
        self._size = self.path.stat().st_size
        if self._size < PART.size:
            raise ValueError(f"{self.path}: {self._size} bytes are no record")
        with self.path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.keys)

    def close(self) -> None:
        """Let go of the file; reading is an error from here on."""
        self._map.close()

    @cached_property
    def index(self) -> RecordIndex:
        """Keys and offsets of every record, by ascending key."""
        beside = self.path.with_suffix(".idx")
        if beside.is_file():
            keys, offsets = _read_index(beside)
        else:
            log.warning("no %s: walking through %s to find its records", beside, self.path.name)
            keys, offsets = self._walk()
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        twice = np.flatnonzero(np.diff(keys) == 0)
        if twice.size:
            raise ValueError(f"{beside}: key {keys[twice[0]]} appears more than once")
        return RecordIndex(keys, offsets)

    @property
    def keys(self) -> NDArray[np.int64]:
        """(R,) record keys, ascending."""
        return self.index.keys

    @cached_property
    def images(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(positions (N,), labels (N,)) of the image records, by ascending key.

        Labels are those of the images' headers. Where the pack has insightface's identity records,
        only the first and last header of each identity are read.
        """
        return image_labels(self)

    def position(self, key: int) -> int:
        """Return where a key stands in `keys`.

        Raises:
            ValueError: the pack has no such key.
        """
        position = int(np.searchsorted(self.keys, key))
        if position == len(self.keys) or self.keys[position] != key:
            raise ValueError(f"{self.path}: no record with key {key}")
        return position

    def read(self, key: int) -> bytes:
        """Return the payload of the record with this key."""
        return self.payload(self.position(key))

    def record(self, key: int) -> Record:
        """Return header and encoded image of the record with this key."""
        return self.record_at(self.position(key))

    def record_at(self, position: int) -> Record:
        """Return header and encoded image of the record at a position of `keys`."""
        try:
            return unpack_record(self.payload(position))
        except ValueError as error:
            if str(self.path) in str(error):
                raise
            raise self._corrupt(position, str(error)) from error

    def payload(self, position: int) -> bytes:
        """Return the payload of the record at a position of `keys`, its parts joined again."""
        at = int(self.index.offsets[position])
        continuation, start, end = self._part(position, at)
        if continuation == WHOLE:
            return self._map[start:end]
        if continuation != FIRST:
            raise self._corrupt(position, "the offset points into the middle of a record")
        parts = [self._map[start:end]]
        while continuation != LAST:
            continuation, start, end = self._part(position, end + -end % 4)
            if continuation not in (MIDDLE, LAST):
                raise self._corrupt(position, "a part is missing")
            parts.append(self._map[start:end])
        return MAGIC_BYTES.join(parts)

    def fields(self, positions: NDArray[np.int64]) -> RecordFields:
        """Gather header fields of many records without touching their images.

        Cost: about 0.1 us a record when the file is in memory, a page read each when it is not.

        Raises:
            ValueError: a position's offset does not lead to a record.
        """
        offsets = self.index.offsets[positions]
        inside = (offsets >= 0) & (offsets % 4 == 0) & (offsets <= self._size - PART.size)
        magic, packed, flag, scalar, first, second = self._words(np.where(inside, offsets, 0))
        bad = np.flatnonzero(~inside | (magic != MAGIC))
        if bad.size:
            self.payload(int(positions[bad[0]]))
        length = packed & np.uint32((1 << 29) - 1)
        label = np.where(flag == 0, scalar, first).view("<f4")
        fields = RecordFields(flag, label, second.view("<f4"), length == HEADER.size + 4 * flag)
        parted = (packed >> 29 != WHOLE) | (length < HEADER.size)
        for row in np.flatnonzero(parted):
            header, image = self.record_at(int(positions[row]))
            fields.flag[row], fields.empty[row] = header.flag, not image
            fields.label[row], fields.second[row] = header.labels[0], header.labels[-1]
        return fields

    def _words(self, offsets: NDArray[np.int64]) -> list[NDArray[np.uint32]]:
        """Return magic, flag and length, header flag, header label, label 0 and 1 of n records."""
        words = np.frombuffer(self._map, dtype="<u4", count=self._size // 4)
        places = [np.minimum(offsets // 4 + skip, len(words) - 1) for skip in (0, 1, 2, 3, 8, 9)]
        return [words[place] for place in places]

    def _part(self, position: int, offset: int) -> tuple[int, int, int]:
        """Return (continuation flag, start, end) of the part at a byte offset."""
        if not 0 <= offset <= self._size - PART.size:
            raise self._corrupt(position, f"byte {offset} lies beyond the file's {self._size}")
        magic, packed = PART.unpack_from(self._map, offset)
        if magic != MAGIC:
            raise self._corrupt(position, f"no record starts at byte {offset}")
        start = offset + PART.size
        end = start + (packed & (1 << 29) - 1)
        if end > self._size:
            raise self._corrupt(position, f"cut short: {end - self._size} bytes are missing")
        return packed >> 29, start, end

    def _corrupt(self, position: int, what: str) -> ValueError:
        key, offset = self.index.keys[position], self.index.offsets[position]
        return ValueError(f"{self.path}: key {key} at offset {offset}: {what}")

    def _walk(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find every record; keys are the headers' ids, or the order where ids repeat."""
        offsets, ids, offset = [], [], 0
        while offset < self._size:
            if offset + PART.size > self._size:
                raise ValueError(f"{self.path}: cut short at offset {offset}")
            magic, packed = PART.unpack_from(self._map, offset)
            end = offset + PART.size + (packed & (1 << 29) - 1)
            if magic != MAGIC or end > self._size:
                why = "no record starts there" if magic != MAGIC else "the record is cut short"
                raise ValueError(f"{self.path}: offset {offset}: {why}")
            if packed >> 29 in (WHOLE, FIRST):
                offsets.append(offset)
                ids.append(self._identifier(offset, end))
            offset = end + -end % 4
        keys = np.array(ids, dtype=np.int64)
        if len(np.unique(keys)) < len(keys) or (len(keys) and keys.min() < 0):
            keys = np.arange(len(offsets))
        return keys, np.array(offsets, dtype=np.int64)

    def _identifier(self, offset: int, end: int) -> int:
        start = offset + PART.size
        if end - start < HEADER.size:
            return -1
        identifier = int(HEADER.unpack_from(self._map, start)[2])
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


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a folder per identity, or a list file, into `.rec`, `.idx`, `.lst` and `property`."""
    from data._pack import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())

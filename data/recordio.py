"""Read and write MXNet RecordIO packs (`.rec` + `.idx`, insightface layout) without mxnet.

python data/recordio.py --images FOLDER_OR_LIST --out PREFIX    (thousands a second)
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data.os_hints import gather_scattered, will_need
from data.rec.format import (
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
from data.rec.index import RecordIndex, Starts, read_starts
from data.rec.index_cache import load_index, pack_key, store_index
from data.rec.labels import Images, image_labels
from data.rec.writer import RecordWriter

__all__ = ["Header", "Record", "RecordPack", "RecordWriter", "main", "pack_record"]

LONGEST_AHEAD = 64 << 10  # bytes of one record that are asked for before its length is known


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
        self._key = pack_key(self.path)
        self._size = self.path.stat().st_size
        if self._size < PART.size:
            raise ValueError(f"{self.path}: {self._size} bytes are no record")
        self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._close_file = weakref.finalize(self, os.close, self._file)
        self._map = mmap.mmap(self._file, 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.starts.offsets)

    def close(self) -> None:
        """Let go of the file; reading is an error from here on."""
        self._map.close()
        self._close_file()

    @cached_property
    def starts(self) -> Starts:
        """Keys and offsets of every record, by ascending key, in about 4 bytes a record."""
        return read_starts(self.path, self._map) if self._kept is None else self._kept[0]

    @cached_property
    def images(self) -> Images:
        """Positions and labels of the image records, by ascending key.

        Labels are those of the images' headers. Where the pack has insightface's identity records,
        only the first and last header of each identity are read. The index of a large pack is kept
        in a file beside it (data/cache_file.py), from which later starts take it.
        """
        if self._kept is not None:
            return self._kept[1]
        images = image_labels(self)
        store_index(self.path, self._key, self.starts, images)
        return images

    @cached_property
    def _kept(self) -> tuple[Starts, Images] | None:
        return load_index(self.path, self._key)

    @cached_property
    def index(self) -> RecordIndex:
        """Keys and offsets as arrays, which take 16 bytes a record."""
        everything = np.arange(len(self))
        keys = self.starts.keys
        keys = np.arange(keys.start, keys.stop) if isinstance(keys, range) else keys
        return RecordIndex(keys, self.starts.offsets.many(everything))

    @property
    def keys(self) -> NDArray[np.int64]:
        """(R,) record keys, ascending."""
        return self.index.keys

    def key(self, position: int) -> int:
        """Return the key at a position of `keys`."""
        return int(self.starts.keys[position])

    def position(self, key: int) -> int:
        """Return where a key stands in `keys`.

        Raises:
            ValueError: the pack has no such key.
        """
        position = int(self.starts.positions(np.array([key]))[0])
        if position == len(self) or self.key(position) != key:
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

    def image_view(self, position: int) -> memoryview:
        """Return the encoded image at a position of `keys`: a view of the file where it is whole.

        Release it (`with`) before the pack is closed. Safe to call from several threads.
        """
        continuation, start, end = self._part(position, self.starts.offsets.one(position))
        if continuation == WHOLE and end - start >= HEADER.size:
            start += HEADER.size + 4 * int(HEADER.unpack_from(self._map, start)[0])
            if start <= end:
                return memoryview(self._map)[start:end]
        return memoryview(self.record_at(position).image)

    def read_ahead(self, positions: NDArray[np.integer]) -> None:
        """Let the system fetch the records at these positions of `keys`; returns at once."""
        offsets = self.starts.offsets
        starts = np.clip(offsets.many(positions), 0, self._size)
        ends = offsets.many(np.minimum(positions + 1, len(self) - 1))
        usual = (ends > starts) & (ends - starts <= LONGEST_AHEAD)
        will_need(self._file, starts, np.where(usual, ends, starts + LONGEST_AHEAD))

    def payload(self, position: int) -> bytes:
        """Return the payload of the record at a position of `keys`, its parts joined again."""
        at = self.starts.offsets.one(position)
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

    def fields(self, positions: NDArray[np.integer]) -> RecordFields:
        """Gather header fields of many records without touching their images.

        Cost: about 0.1 us a record when the file is in memory, a page read each when it is not.

        Raises:
            ValueError: a position's offset does not lead to a record.
        """
        offsets = self.starts.offsets.many(positions)
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

        def gather(some: NDArray[np.int64]) -> list[NDArray[np.uint32]]:
            places = (np.minimum(some // 4 + skip, len(words) - 1) for skip in (0, 1, 2, 3, 8, 9))
            return [words.take(place) for place in places]

        return gather_scattered(self._map, gather, offsets)

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
        key, offset = self.key(position), self.starts.offsets.one(position)
        return ValueError(f"{self.path}: key {key} at offset {offset}: {what}")


def main(argv: Sequence[str] | None = None) -> int:
    """Pack a folder per identity, or a list file, into `.rec`, `.idx`, `.lst` and `property`."""
    from data.rec.pack import run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main())

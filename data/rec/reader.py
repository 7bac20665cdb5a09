"""Read `.rec` packs: any record by its key or position, and which of them are images of whom.

In insightface's layout record 0 gives the keys of the identity records, each of which gives the
keys of its images. Where these ranges do not hold, labels come from the images' headers.
"""

from __future__ import annotations

import logging
import os
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from data.rec.format import (
    FIRST,
    HEADER,
    LAST,
    MAGIC,
    MAGIC_BYTES,
    MIDDLE,
    PART,
    WHOLE,
    Record,
    unpack_record,
)
from data.rec.index import Images, PackFile, Starts, load_index, pack_key, read_starts, store_index

log = logging.getLogger("faceuq")

EXACT = 1 << 24  # float32 holds every whole number up to here; later keys may be off by a few
LONGEST_AHEAD = 64 << 10  # bytes of one record to request before its length is known
NEAR = 16 << 10  # bytes between two parts that are worth reading rather than skipping
AT_ONCE = 128 << 10  # bytes of one request; Linux may cut what is longer
_HEAD = 10  # words of a record, up to the second label
READ_FIRST = 16 << 10  # bytes of a record: more than most faces have
_HEADERS_AT_ONCE = 1 << 20  # gathering one takes about 100 bytes


class RecordFields(NamedTuple):
    """Header fields of n records, gathered at once."""

    flag: NDArray[np.uint32]  # (n,) number of labels after the fixed header, 0 for a scalar label
    label: NDArray[np.float32]  # (n,) the scalar or the first of the labels
    second: NDArray[np.float32]  # (n,) the second label; meaningless where flag < 2
    empty: NDArray[np.bool_]  # (n,) True where no image follows (identity records)


class RecordPack:
    """A `.rec` file, of which one record costs the same whatever its size.

    The index is read on first use: from the `.idx` beside the file (keys in any order), or, where
    there is none, by walking through the `.rec` once. Safe to read from several threads.

    Args:
        path: the `.rec` file.

    Raises:
        ValueError: no such file, or one too short for a record. Reading raises it for a corrupt
            record, naming file, key and offset.
        OSError: when reading: the file is not what it was when it was opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"no record file {self.path}")
        self._key = pack_key(self.path)
        self._records = PackFile(self.path)
        self._size = len(self._records)
        if self._size < PART.size:
            raise ValueError(f"{self.path}: {self._size} bytes are not a record")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.starts.offsets)

    def close(self) -> None:
        """Close the file; reading is an error from here on."""
        self._records.close()

    @cached_property
    def starts(self) -> Starts:
        """Keys and offsets of every record, by ascending key, in about 4 bytes a record."""
        return read_starts(self.path, self._records) if self._cached is None else self._cached[0]

    @cached_property
    def images(self) -> Images:
        """Positions and labels of the image records, by ascending key.

        Labels are those of the images' headers. Where the pack has insightface's identity records,
        only the first and last header of each identity are read. The index of a large pack is
        stored in a cache file (data/cache_file.py), from which later starts take it.
        """
        if self._cached is not None:
            return self._cached[1]
        images = image_labels(self)
        if len(images.labels) and int(images.labels.max()) > EXACT:
            log.warning(
                "%s: labels reach %d, but a pack holds them as float32, in which whole numbers "
                "beyond 2^24 (16 777 216) become equal: several people may be read as one. Number "
                "people 0, 1, 2, ... and write the pack again",
                *(self.path, int(images.labels.max())),
            )
        store_index(self.path, self._key, self.starts, images)
        return images

    @cached_property
    def _cached(self) -> tuple[Starts, Images] | None:
        return load_index(self.path, self._key)

    @property
    def keys(self) -> NDArray[np.int64]:
        """(R,) record keys, ascending."""
        return np.asarray(self.starts.keys)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(R,) byte offsets of the records, by ascending key."""
        return self.starts.offsets.take(np.arange(len(self)))

    def require_whole(self) -> None:
        """Raise ValueError where the file ends before its last record does."""
        offset = self.starts.offsets.at(len(self) - 1)
        start = min(max(offset, 0), self._size - PART.size)
        magic, packed = PART.unpack(self._records.read(start, start + PART.size))
        end = start + PART.size + (packed & (1 << 29) - 1)
        if offset > start or (magic == MAGIC and end > self._size):
            raise ValueError(
                f"{self.path} is cut short at {self._size} bytes: its last record, at byte "
                f"{offset}, is not whole"
            )

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
        """Return the encoded image at a position of `keys`. Safe to call from several threads."""
        continuation, content, _ = self._part(position, self.starts.offsets.at(position))
        if continuation == WHOLE and len(content) >= HEADER.size:
            start = HEADER.size + 4 * int(HEADER.unpack_from(content)[0])
            if start <= len(content):
                return content[start:]
        return memoryview(self.record_at(position).image)

    def read_ahead(self, positions: NDArray[np.integer]) -> None:
        """Let the system fetch the records at these positions of `keys`; returns at once."""
        offsets = self.starts.offsets
        starts = np.clip(offsets.take(positions), 0, self._size)
        ends = offsets.take(np.minimum(positions + 1, len(self) - 1))
        usual = (ends > starts) & (ends - starts <= LONGEST_AHEAD)
        will_need(self._records.number, starts, np.where(usual, ends, starts + LONGEST_AHEAD))

    def payload(self, position: int) -> bytes:
        """Return the payload of the record at a position of `keys`, its parts joined again."""
        continuation, content, end = self._part(position, self.starts.offsets.at(position))
        if continuation == WHOLE:
            return bytes(content)
        if continuation != FIRST:
            raise self._corrupt(position, "the offset points into the middle of a record")
        parts = [content]
        while continuation != LAST:
            continuation, content, end = self._part(position, end + -end % 4)
            if continuation not in (MIDDLE, LAST):
                raise self._corrupt(position, "a part is missing")
            parts.append(content)
        return MAGIC_BYTES.join(parts)

    def fields(self, positions: NDArray[np.integer]) -> RecordFields:
        """Gather header fields of many records without touching their images.

        Cost: about 0.1 us a record when the file is in memory, a page read each when it is not.

        Raises:
            ValueError: a position's offset does not lead to a record.
        """
        offsets = self.starts.offsets.take(positions)
        inside = (offsets >= 0) & (offsets % 4 == 0) & (offsets <= self._size - PART.size)
        words = self._records.words(np.where(inside, offsets, 0), _HEAD)
        magic, packed, flag, scalar, first, second = words[:, [0, 1, 2, 3, 8, 9]].T
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

    def _part(self, position: int, offset: int) -> tuple[int, memoryview, int]:
        """Return (continuation flag, content, end) of the part at a byte offset."""
        if not 0 <= offset <= self._size - PART.size:
            raise self._corrupt(position, f"byte {offset} lies beyond the file's {self._size}")
        part = self._records.read(offset, offset + READ_FIRST)
        magic, packed = PART.unpack_from(part)
        if magic != MAGIC:
            raise self._corrupt(position, f"no record starts at byte {offset}")
        end = offset + PART.size + (packed & (1 << 29) - 1)
        if end > self._size:
            raise self._corrupt(position, f"cut short: {end - self._size} bytes are missing")
        if end > offset + len(part):
            part += self._records.read(offset + len(part), end)
        return packed >> 29, memoryview(part)[PART.size : end - offset], end

    def _corrupt(self, position: int, what: str) -> ValueError:
        key, offset = self.key(position), self.starts.offsets.at(position)
        return ValueError(f"{self.path}: key {key} at offset {offset}: {what}")


def image_labels(pack: RecordPack) -> Images:
    """Find the image records and their labels.

    Cost: a few tenths of a second for 17 M records of 360 000 identities, if they are in memory.

    Raises:
        ValueError: a label is not a whole number, or a record is corrupt.
    """
    first = _first_identity(pack)
    if first is None:
        return _from_headers(pack)
    images = range(1, first)
    labels = _from_ranges(pack, images, np.arange(first, len(pack)))
    if labels is None:
        log.warning("%s: identity ranges do not fit the images; using their headers", pack.path)
        labels = _header_labels(pack, np.arange(1, first))
    return Images(images, _small(labels))


def _from_headers(pack: RecordPack) -> Images:
    parts, labels = [], []
    for start in range(0, len(pack), _HEADERS_AT_ONCE):
        positions = np.arange(start, min(start + _HEADERS_AT_ONCE, len(pack)), dtype=np.int32)
        fields = pack.fields(positions)
        parts.append(positions[~fields.empty])
        labels.append(_small(_whole(pack, parts[-1], fields.label[~fields.empty])))
    positions = np.concatenate(parts)
    return Images(positions, np.concatenate(labels))


def _first_identity(pack: RecordPack) -> int | None:
    """Return the position of the first identity record, None where the pack has no such layout."""
    if len(pack) == 0 or pack.key(0) != 0:
        return None
    header, image = pack.record_at(0)
    if header.flag != 2 or image or not 1 <= header.labels[0] <= header.labels[1]:
        return None
    near = int(pack.starts.positions(np.array([int(header.labels[0])]))[0])
    for shift in (0, -1, 1, -2, 2):  # the key itself may have been rounded
        first = near + shift
        if 1 <= first < len(pack) and _starts_identities(pack, first):
            return first
    log.warning("%s: record 0 does not lead to identity records; using image headers", pack.path)
    return None


def _starts_identities(pack: RecordPack, first: int) -> bool:
    fields = pack.fields(np.arange(first - 1, len(pack)))
    identity = (fields.flag == 2) & fields.empty
    return bool(identity[1:].all() and (first == 1 or not identity[0]))


def _from_ranges(
    pack: RecordPack, images: range, identities: NDArray[np.int64]
) -> NDArray[np.integer] | None:
    """Fill in each identity's label from its first image; None where ranges cannot be trusted."""
    fields = pack.fields(identities)
    order = np.argsort(fields.label, kind="stable")
    ranges = np.stack([fields.label, fields.second])[:, order]
    if not (np.abs(ranges) < 2.0**63).all():
        return None
    starts, ends = ranges.astype(np.int64)
    begin = np.clip(pack.starts.positions(starts), images.start, images.stop)
    stop = np.clip(pack.starts.positions(ends), images.start, images.stop)
    filled = stop > begin
    begin, stop, ends = begin[filled], stop[filled], ends[filled]
    if (begin[1:] < stop[:-1]).any():
        return None
    label = _header_labels(pack, begin)
    agrees = label == _header_labels(pack, stop - 1)
    if (~agrees & (ends <= EXACT)).any() or len(np.unique(label[agrees])) < agrees.sum():
        return None
    edges = np.column_stack([begin[agrees], stop[agrees]]).ravel()
    lengths = np.diff(edges, prepend=images.start, append=images.stop)
    filler = np.zeros(len(lengths), dtype=np.int64)
    filler[1::2] = label[agrees]
    labels = np.repeat(_small(filler), lengths)
    return _fill_gaps(pack, images, labels, lengths)


def _fill_gaps(
    pack: RecordPack, images: range, labels: NDArray[np.integer], lengths: NDArray[np.int64]
) -> NDArray[np.integer]:
    """Take labels of images that no identity claims (even places of `lengths`) from headers."""
    ends = np.cumsum(lengths)
    gaps = 2 * np.flatnonzero(lengths[::2])
    if not len(gaps):
        return labels
    rows = np.concatenate([np.arange(ends[gap] - lengths[gap], ends[gap]) for gap in gaps])
    fillers = _small(_header_labels(pack, images.start + rows))
    labels = labels.astype(np.promote_types(labels.dtype, fillers.dtype), copy=False)
    labels[rows] = fillers
    return labels


def _header_labels(pack: RecordPack, positions: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the labels of headers, gathered block by block."""
    labels = [
        _whole(pack, block, pack.fields(block).label)
        for block in (
            positions[at : at + _HEADERS_AT_ONCE]
            for at in range(0, len(positions), _HEADERS_AT_ONCE)
        )
    ]
    return np.concatenate(labels) if labels else np.empty(0, dtype=np.int64)


def _whole(
    pack: RecordPack, positions: NDArray[np.integer], labels: NDArray[np.float32]
) -> NDArray[np.int64]:
    odd = np.flatnonzero(~(np.isfinite(labels) & (labels == np.floor(labels))))
    if odd.size:
        key = pack.key(int(positions[odd[0]]))
        raise ValueError(f"{pack.path}: key {key}: label {labels[odd[0]]} is not a whole number")
    if (np.abs(labels) >= 2.0**63).any():
        raise ValueError(f"{pack.path}: a label of {np.abs(labels).max():g} is too large")
    return labels.astype(np.int64)


def _small(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return labels as int32 where they fit."""
    inside = np.iinfo(np.int32)
    fits = not len(labels) or (labels.min() >= inside.min and labels.max() <= inside.max)
    return labels.astype(np.int32, copy=False) if fits else labels


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

"""Which records of a pack are images, and of whom: identity ranges where they hold, else headers.

Used by RecordPack.images. In insightface's layout record 0 gives the keys of the identity records,
each of which gives the keys of its images.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from data.recordio import RecordPack

log = logging.getLogger("faceuq")

EXACT = 1 << 24  # float32 holds every whole number up to here; later keys may be off by a few


_AT_ONCE = 1 << 20  # headers; gathering one takes about 100 bytes


class Images(NamedTuple):
    """The image records of a pack, by ascending key.

    Attributes:
        positions: (N,) where each stands among the records; a range where nothing lies between.
        labels: (N,) int32, or int64 where a label needs it.
    """

    positions: range | NDArray[np.int32]
    labels: NDArray[Any]


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
    for start in range(0, len(pack), _AT_ONCE):
        positions = np.arange(start, min(start + _AT_ONCE, len(pack)), dtype=np.int32)
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
) -> NDArray[np.int64] | None:
    """Fill in each identity's label from its first image; None where ranges cannot be trusted."""
    starts, ends = _ranges(pack, identities)
    begin = np.clip(pack.starts.positions(starts), images.start, images.stop)
    stop = np.clip(pack.starts.positions(ends), images.start, images.stop)
    filled = stop > begin
    begin, stop, ends = begin[filled], stop[filled], ends[filled]
    if (begin[1:] < stop[:-1]).any():
        return None
    label = _header_labels(pack, begin)
    agrees = label == _header_labels(pack, stop - 1)
    if (~agrees & (ends <= EXACT)).any() or _any_twice(label[agrees]):
        return None
    edges = np.column_stack([begin[agrees], stop[agrees]]).ravel()
    lengths = np.diff(edges, prepend=images.start, append=images.stop)
    filler = np.zeros(len(lengths), dtype=np.int64)
    filler[1::2] = label[agrees]
    labels = np.repeat(_small(filler), lengths)
    return _fill_gaps(pack, images, labels, lengths)


def _fill_gaps(
    pack: RecordPack, images: range, labels: NDArray[Any], lengths: NDArray[np.int64]
) -> NDArray[Any]:
    """Take labels of images that no identity claims (even places of `lengths`) from headers."""
    ends = np.cumsum(lengths)
    gaps = 2 * np.flatnonzero(lengths[::2])
    if not len(gaps):
        return labels
    rows = np.concatenate([np.arange(ends[gap] - lengths[gap], ends[gap]) for gap in gaps])
    found = _small(_header_labels(pack, images.start + rows))
    labels = labels.astype(np.promote_types(labels.dtype, found.dtype), copy=False)
    labels[rows] = found
    return labels


def _any_twice(labels: NDArray[np.int64]) -> bool:
    ordered = np.sort(labels)
    return bool((ordered[1:] == ordered[:-1]).any())


def _ranges(
    pack: RecordPack, identities: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (first keys, end keys) that the identity records give, by ascending first key."""
    fields = pack.fields(identities)
    order = np.argsort(fields.label, kind="stable")
    return fields.label[order].astype(np.int64), fields.second[order].astype(np.int64)


def _header_labels(pack: RecordPack, positions: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the labels of headers, gathered block by block."""
    found = [
        _whole(pack, some, pack.fields(some).label)
        for some in (positions[at : at + _AT_ONCE] for at in range(0, len(positions), _AT_ONCE))
    ]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _whole(
    pack: RecordPack, positions: NDArray[np.integer], labels: NDArray[np.float32]
) -> NDArray[np.int64]:
    odd = np.flatnonzero(~(np.isfinite(labels) & (labels == np.floor(labels))))
    if odd.size:
        key = pack.key(int(positions[odd[0]]))
        raise ValueError(f"{pack.path}: key {key}: label {labels[odd[0]]} is not a whole number")
    return labels.astype(np.int64)


def _small(labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels as int32 where they fit."""
    inside = np.iinfo(np.int32)
    fits = not len(labels) or (labels.min() >= inside.min and labels.max() <= inside.max)
    return labels.astype(np.int32, copy=False) if fits else labels

"""Which records of a pack are images, and of whom: identity ranges where they hold, else headers.

Used by RecordPack.images. In insightface's layout record 0 gives the keys of the identity records,
each of which gives the keys of its images.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from data.recordio import RecordPack

log = logging.getLogger("faceuq")

EXACT = 1 << 24  # float32 holds every whole number up to here; later keys may be off by a few


def image_labels(pack: RecordPack) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (positions (N,), labels (N,)) of the image records by ascending key.

    Raises:
        ValueError: a label is not a whole number, or a record is corrupt.
    """
    first = _first_identity(pack)
    if first is None:
        positions = np.arange(len(pack.keys))
        fields = pack.fields(positions)
        images = positions[~fields.empty]
        return images, _whole(pack, images, fields.label[~fields.empty])
    images = np.arange(1, first)
    labels = _from_ranges(pack, images, np.arange(first, len(pack.keys)))
    if labels is None:
        log.warning("%s: identity ranges do not fit the images; using their headers", pack.path)
        labels = _header_labels(pack, images)
    return images, labels


def _first_identity(pack: RecordPack) -> int | None:
    """Return the position of the first identity record, None where the pack has no such layout."""
    if len(pack.keys) == 0 or pack.keys[0] != 0:
        return None
    header, image = pack.record_at(0)
    if header.flag != 2 or image or not 1 <= header.labels[0] <= header.labels[1]:
        return None
    near = int(np.searchsorted(pack.keys, header.labels[0]))
    for shift in (0, -1, 1, -2, 2):  # the key itself may have been rounded
        first = near + shift
        if 1 <= first < len(pack.keys) and _starts_identities(pack, first):
            return first
    log.warning("%s: record 0 does not lead to identity records; using image headers", pack.path)
    return None


def _starts_identities(pack: RecordPack, first: int) -> bool:
    fields = pack.fields(np.array([first - 1, *range(first, len(pack.keys))]))
    identity = (fields.flag == 2) & fields.empty
    return bool(identity[1:].all() and (first == 1 or not identity[0]))


def _from_ranges(
    pack: RecordPack, images: NDArray[np.int64], identities: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Fill in each identity's label from its first image; None where ranges cannot be trusted."""
    starts, ends = _ranges(pack, identities)
    keys = pack.keys[images]
    begin, stop = np.searchsorted(keys, starts), np.searchsorted(keys, ends)
    filled = stop > begin
    begin, stop, ends = begin[filled], stop[filled], ends[filled]
    if (begin[1:] < stop[:-1]).any():
        return None
    label = _header_labels(pack, images[begin])
    agrees = label == _header_labels(pack, images[stop - 1])
    if (~agrees & (ends <= EXACT)).any() or len(np.unique(label[agrees])) < agrees.sum():
        return None
    edges = np.column_stack([begin[agrees], stop[agrees]]).ravel()
    lengths = np.diff(edges, prepend=0, append=len(images))
    covered = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    labels = np.empty(len(images), dtype=np.int64)
    labels[covered] = np.repeat(label[agrees], (stop - begin)[agrees])
    labels[~covered] = _header_labels(pack, images[~covered])
    return labels


def _ranges(
    pack: RecordPack, identities: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (first keys, end keys) that the identity records give, by ascending first key."""
    fields = pack.fields(identities)
    order = np.argsort(fields.label, kind="stable")
    return fields.label[order].astype(np.int64), fields.second[order].astype(np.int64)


def _header_labels(pack: RecordPack, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return _whole(pack, positions, pack.fields(positions).label)


def _whole(
    pack: RecordPack, positions: NDArray[np.int64], labels: NDArray[np.float32]
) -> NDArray[np.int64]:
    odd = np.flatnonzero(~(np.isfinite(labels) & (labels == np.floor(labels))))
    if odd.size:
        key = pack.keys[positions[odd[0]]]
        raise ValueError(f"{pack.path}: key {key}: label {labels[odd[0]]} is not a whole number")
    return labels.astype(np.int64)

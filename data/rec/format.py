"""The bytes of MXNet RecordIO: parts, padding, and the header before an image.

Used by data/recordio.py (reader) and data/rec/writer.py; touches no file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MAGIC = 0xCED7230A
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
MAX_LENGTH = (1 << 29) - 1

PART = struct.Struct("<II")  # magic, then continuation flag << 29 | length
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2

WHOLE, FIRST, MIDDLE, LAST = range(4)


class Header(NamedTuple):
    """What precedes an image in its record.

    Attributes:
        flag: 0 for one label; otherwise the number of labels that follow the fixed fields.
        labels: the label, or `flag` labels.
        id: usually the record's key.
        id2: unused by insightface.
    """

    flag: int
    labels: tuple[float, ...]
    id: int
    id2: int


class Record(NamedTuple):
    """A header and the encoded image after it (empty in identity records)."""

    header: Header
    image: bytes


def pack_record(label: float | Sequence[float], key: int, image: bytes = b"") -> bytes:
    """Put the header before an encoded image, as `mxnet.recordio.pack` does.

    Args:
        label: one number (flag 0) or several (flag = how many).
        key: written as the header's id.
        image: encoded image, or nothing for a header or identity record.
    """
    if isinstance(label, (int, float)):
        return HEADER.pack(0, label, key, 0) + image
    values = np.asarray(label, dtype="<f4")
    return HEADER.pack(values.size, 0.0, key, 0) + values.tobytes() + image


def unpack_record(payload: bytes) -> Record:
    """Take a payload apart.

    Raises:
        ValueError: shorter than the header that it announces.
    """
    if len(payload) < HEADER.size:
        raise ValueError(f"{len(payload)} bytes are too few for an image header ({HEADER.size})")
    flag, label, identifier, second = HEADER.unpack_from(payload)
    start = HEADER.size + 4 * flag
    if len(payload) < start:
        raise ValueError(f"the header announces {flag} labels, but {len(payload)} bytes follow")
    labels = (label,) if flag == 0 else struct.unpack_from(f"<{flag}f", payload, HEADER.size)
    return Record(Header(flag, labels, identifier, second), payload[start:])


def split_parts(payload: bytes) -> list[tuple[int, bytes]]:
    """Cut a payload at every aligned magic, which is dropped, into (continuation flag, bytes).

    Raises:
        ValueError: longer than the format's 29-bit length.
    """
    if len(payload) > MAX_LENGTH:
        raise ValueError(f"a record of {len(payload)} bytes: RecordIO allows {MAX_LENGTH}")
    if MAGIC_BYTES not in payload:
        return [(WHOLE, payload)]
    words = np.frombuffer(payload, dtype="<u4", count=len(payload) // 4)
    parts: list[tuple[int, bytes]] = []
    start = 0
    for cut in (4 * np.flatnonzero(words == MAGIC)).tolist():
        parts.append((MIDDLE if parts else FIRST, payload[start:cut]))
        start = cut + 4
    return [*parts, (LAST if parts else WHOLE, payload[start:])]


def frame(payload: bytes) -> bytes:
    """Return a payload as it stands in the file: parts with their lengths, padded to 4 bytes."""
    pieces = []
    for continuation, part in split_parts(payload):
        pieces += [PART.pack(MAGIC, continuation << 29 | len(part)), part]
    return b"".join([*pieces, bytes(-len(payload) % 4)])

"""Write MXNet RecordIO without mxnet: the bytes of a record, and insightface's layout of a pack."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np

from utils.files import atomic_file, write_text

MAGIC = 0xCED7230A
MAGIC_BYTES = MAGIC.to_bytes(4, "little")
MAX_LENGTH = (1 << 29) - 1

PART = struct.Struct("<II")  # magic, then continuation flag << 29 | length
HEADER = struct.Struct("<IfQQ")  # flag, label, id, id2

WHOLE, FIRST, MIDDLE, LAST = range(4)


class Header(NamedTuple):
    """What precedes an image in its record."""

    flag: int  # 0 for one label; otherwise the number of labels that follow the fixed fields
    labels: tuple[float, ...]  # the label, or `flag` labels
    id: int  # usually the record's key
    id2: int  # unused by insightface


class Record(NamedTuple):
    """A header and the encoded image after it (empty in identity records)."""

    header: Header
    image: bytes


def pack_record(label: float | Sequence[float], key: int, image: bytes = b"") -> bytes:
    """Put the header before an encoded image, as `mxnet.recordio.pack` does.

    Identity records have no image. The label is one number (flag 0) or several (flag = how many);
    the key is written as header's id.
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


class RecordWriter:
    """Writes a pack; use it as a context manager, so that a failure leaves no half pack behind.

    Either `write(key, payload)` for any records, or `write_image(label, encoded)` for insightface's
    layout: identity records, record 0, `.lst` and `property` are then written at the end.

    Args:
        prefix: path without suffix: `faces/train` gives `faces/train.rec` and its companions, and
            `faces/property`. Folders are made; existing files are replaced when all went well.
        size: (height, width) noted in `property`.
    """

    def __init__(self, prefix: str | Path, size: tuple[int, int] = (112, 112)) -> None:
        self.prefix = Path(prefix)
        self.size = size
        self._files = ExitStack()
        self._records = self._files.enter_context(atomic_file(self._path(".rec")))
        self._index: list[str] = []
        self._list: list[str] = []
        self._starts: list[int] = []
        self._next_key = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._files.__exit__(kind, error, trace)

    def write(self, key: int, payload: bytes) -> None:
        """Append one record.

        Raises:
            ValueError: the payload is longer than RecordIO allows (512 MiB).
        """
        framed = frame(payload)
        self._index.append(f"{key}\t{self._records.tell()}\n")
        self._records.write(framed)

    def write_image(self, label: int, encoded: bytes, name: str = "") -> None:
        """Append a JPEG or PNG of an identity; keys are given in the order of the calls.

        Identities are counted 0, 1, 2, ...; all images of one come before those of the next. The
        name is noted in the `.lst` file.

        Raises:
            ValueError: labels that do not come in this order.
        """
        if label not in (len(self._starts) - 1, len(self._starts)) or label < 0:
            raise ValueError(
                f"label {label} after {len(self._starts)} identities: write the images of identity "
                "0, then those of 1, and so on"
            )
        if not self._index:
            self.write(0, pack_record((0, 0), 0))
        if label == len(self._starts):
            self._starts.append(self._next_key)
        self.write(self._next_key, pack_record(float(label), self._next_key, encoded))
        self._list.append(f"{self._next_key}\t{label}\t{name or self._next_key}\n")
        self._next_key += 1

    def close(self) -> None:
        """Finish the pack and put its files in place."""
        with self._files:
            if self._starts:
                self._write_identities()
        write_text(self._path(".idx"), "".join(self._index))
        if self._starts:
            write_text(self._path(".lst"), "".join(self._list))
            numbers = (len(self._starts), *self.size)
            write_text(self.prefix.with_name("property"), ",".join(map(str, numbers)))

    def _write_identities(self) -> None:
        first, count = self._next_key, len(self._starts)
        for key, (start, end) in enumerate(
            zip(self._starts, [*self._starts[1:], first], strict=True), start=first
        ):
            self.write(key, pack_record((start, end), key))
        self._records.seek(0)
        self._records.write(frame(pack_record((first, first + count), 0)))

    def _path(self, suffix: str) -> Path:
        return self.prefix.with_name(self.prefix.name + suffix)

"""Write `.rec`, `.idx`, `.lst` and `property` as mxnet and insightface lay them out.

Public as data.recordio.RecordWriter.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from data.rec.format import frame, pack_record
from utils.files import write_text

SUFFIXES = (".rec", ".idx", ".lst")


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
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        self._records = self._temporary(".rec").open("wb")
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
            self._records.close()
            self._temporary(".rec").unlink()

    def write(self, key: int, payload: bytes) -> None:
        """Append one record.

        Raises:
            ValueError: the payload is longer than RecordIO allows (512 MiB).
        """
        framed = frame(payload)
        self._index.append(f"{key}\t{self._records.tell()}\n")
        self._records.write(framed)

    def write_image(self, label: int, encoded: bytes, name: str = "") -> None:
        """Append an encoded image of an identity; keys are given in the order of the calls.

        Args:
            label: identity, counted 0, 1, 2, ...; all images of one before those of the next.
            encoded: JPEG or PNG bytes.
            name: noted in the `.lst` file.

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
        if self._starts:
            self._write_identities()
        self._records.close()
        self._temporary(".rec").replace(self._path(".rec"))
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

    def _temporary(self, suffix: str) -> Path:
        return self._path(suffix + ".part")

"""Writes rows of faces as CSV, JSON, JSON lines or Parquet: streaming, whole or not at all.

For scoring/score_images.py; docs/score_photos.md shows how to read the files.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from scoring.columns import COLUMNS, arrow_schema, import_pyarrow, plain_text
from utils.files import atomic_file

Row = Mapping[str, Any]
KEY = b"face-uncertainty"  # of a Parquet file's metadata, as in extracted shards
GROUP = 16384  # rows of a Parquet row group


def check_path(path: Path) -> None:
    """Refuse what `write_rows` could not write.

    Raises:
        ValueError: another ending than .csv, .json, .jsonl and .parquet, a folder of that name, or
            Parquet without pyarrow.
    """
    if path.suffix not in _WRITERS:
        raise ValueError(f"--out {path}: must end in {', '.join(_WRITERS)}")
    if path.is_dir():
        raise ValueError(f"--out {path}: names a file, but a folder is there")
    if path.suffix == ".parquet":
        import_pyarrow("pyarrow.parquet")


def write_rows(path: Path, rows: Iterable[Row], header: Mapping[str, Any]) -> None:
    """Write a file in the format of its ending, in memory that does not grow.

    Args:
        path: replaced when the new file is complete; a crash leaves the old one, or none.
        rows: as `columns.flat_row` gives them.
        header: what the numbers come from, as JSON; `meaning` and `settings`, a line each, are what
            a CSV has of it.

    Raises:
        ValueError: see `check_path`.
        OSError: the file cannot be written.
    """
    check_path(path)
    with atomic_file(path) as file:
        _WRITERS[path.suffix](file, rows, header)


def as_line(value: Mapping[str, Any]) -> str:
    """Return JSON on one line; NaN is refused."""
    return plain_text(json.dumps(value, ensure_ascii=False, allow_nan=False))


def _write_csv(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, Any]) -> None:
    line = " ".join(plain_text(f"# {header['meaning']} [{header['settings']}]").split())
    file.write(line.encode() + b"\n")
    writer = csv.writer(_Lines(file), lineterminator=_Lines.end)
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([row[name] for name in COLUMNS])


def _write_jsonl(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, Any]) -> None:
    for value in chain([{"header": dict(header)}], rows):
        file.write(as_line(value).encode() + b"\n")


def _write_json(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, Any]) -> None:
    file.write(f'{{"header": {as_line(header)},\n"rows": ['.encode())
    before = b"\n"
    for row in rows:
        file.write(before + as_line(row).encode())
        before = b",\n"
    file.write(b"\n]}\n")


def _write_parquet(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, Any]) -> None:
    pyarrow, parquet = import_pyarrow("pyarrow"), import_pyarrow("pyarrow.parquet")
    schema = arrow_schema().with_metadata({KEY: as_line(header).encode()})
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(rows):
            writer.write_table(pyarrow.Table.from_pydict(group, schema=schema))


def _groups(rows: Iterable[Row]) -> Iterator[dict[str, list[Any]]]:
    group: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows:
        for name, values in group.items():
            values.append(row[name])
        if len(group["file"]) == GROUP:
            yield group
            group = {name: [] for name in COLUMNS}
    if group["file"]:
        yield group


class _Lines:
    """Lines of the csv module on a binary file; it quotes what holds a character of `end`."""

    end = "\r\n"

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix(self.end).encode() + b"\n")


_WRITERS: dict[str, Callable[[IO[bytes], Iterable[Row], Mapping[str, Any]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}

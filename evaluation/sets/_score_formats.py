"""CSV, NPZ and Parquet as chunks of columns; nothing in a file is ever run.

Public through evaluation.sets.score_files.
"""

from __future__ import annotations

import csv
import importlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from evaluation.sets._score_columns import Raw
from evaluation.sets.features import array_names, read_arrays

ROWS = 1 << 17  # per chunk
EXTRAS = ("unlisted", "listed_from")


class Chunk(NamedTuple):
    """Some rows of a file.

    Attributes:
        columns: by name; all of one length.
        where: tells of row i of this chunk where it stands in the file.
    """

    columns: dict[str, Raw]
    where: Callable[[int], str]


class Source(NamedTuple):
    """An open file.

    Attributes:
        names: of all its columns.
        chunks: reads some of them.
        extras: `EXTRAS` that it states.
    """

    names: list[str]
    chunks: Callable[[Sequence[str]], Iterator[Chunk]]
    extras: dict[str, float]


def open_source(path: Path) -> AbstractContextManager[Source]:
    """Open a score file by the ending of its name.

    Raises:
        ValueError: no such file, an unknown ending, or a damaged file.
    """
    if not path.is_file():
        raise ValueError(f"no score file {path}")
    return _opener(path)(path)


def write_columns(path: Path, columns: dict[str, NDArray[Any]], extras: dict[str, float]) -> None:
    """Write (N,) columns; see `score_files.write_scores`."""
    suffix = _suffix(path)
    if suffix == ".csv" and extras:
        raise ValueError(
            f"{path}: CSV cannot say that {extras['unlisted']:.0f} non-mated comparisons are not "
            "listed: write .npz or .parquet, or draw a sample of them instead of all"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".npz":
        with path.open("wb") as file:
            stored = columns | {name: np.array(value) for name, value in extras.items()}
            np.savez(file, **cast(dict[str, Any], stored))
    elif suffix == ".csv":
        _write_csv(path, columns)
    else:
        pyarrow, parquet = _pyarrow(path)
        table = pyarrow.table(columns)
        stated = {name: repr(float(value)) for name, value in extras.items()}
        parquet.write_table(table.replace_schema_metadata(stated), path)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npz", ".parquet"):
        raise ValueError(f"{path}: a score file ends in .csv, .npz or .parquet")
    return suffix


def _opener(path: Path) -> Callable[[Path], AbstractContextManager[Source]]:
    return {".csv": _open_csv, ".npz": _open_npz, ".parquet": _open_parquet}[_suffix(path)]


@contextmanager
def _open_csv(path: Path) -> Iterator[Source]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            heading = file.readline()
            delimiter = max(",;\t", key=heading.count)
            names = [name.strip() for name in next(csv.reader([heading], delimiter=delimiter), [])]
            if not names:
                raise ValueError("the file is empty; its first line must name the columns")
            yield Source(names, lambda wanted: _csv_chunks(file, delimiter, names, wanted), {})
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"not a CSV file in UTF-8 ({error})") from error


def _csv_chunks(
    file: Any, delimiter: str, names: list[str], wanted: Sequence[str]
) -> Iterator[Chunk]:
    places = [names.index(name) for name in wanted]
    reader = csv.reader(file, delimiter=delimiter)
    lines = array("Q")
    rows: list[list[str]] = []
    for fields in reader:
        if not fields:
            continue
        if len(fields) != len(names):
            raise ValueError(
                f"line {reader.line_num + 1}: {len(fields)} fields for the {len(names)} columns of "
                "the heading"
            )
        rows.append(fields)
        lines.append(reader.line_num + 1)
        if len(rows) == ROWS:
            yield _csv_chunk(wanted, places, rows, lines)
            rows, lines = [], array("Q")
    if rows:
        yield _csv_chunk(wanted, places, rows, lines)


def _csv_chunk(
    wanted: Sequence[str], places: list[int], rows: list[list[str]], lines: array[int]
) -> Chunk:
    columns: dict[str, Raw] = {
        name: [row[place] for row in rows] for name, place in zip(wanted, places, strict=True)
    }
    return Chunk(columns, lambda row: f"line {lines[row]}")


@contextmanager
def _open_npz(path: Path) -> Iterator[Source]:
    names = array_names(path)
    stated = tuple(name for name in EXTRAS if name in names)
    extras = {name: float(array) for name, array in read_arrays(path, stated).items()}

    def chunks(wanted: Sequence[str]) -> Iterator[Chunk]:
        arrays = read_arrays(path, tuple(wanted))
        shapes = {array.shape for array in arrays.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            each = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
            raise ValueError(f"arrays must be one-dimensional and of one length: {each}")
        yield Chunk(dict(arrays), lambda row: f"row {row} (counted from 0)")

    yield Source([name for name in names if name not in EXTRAS], chunks, extras)


@contextmanager
def _open_parquet(path: Path) -> Iterator[Source]:
    pyarrow, parquet = _pyarrow(path)
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            extras = {
                name: float(metadata[name.encode()]) for name in EXTRAS if name.encode() in metadata
            }
            yield Source(
                list(file.schema_arrow.names), lambda wanted: _parquet_chunks(file, wanted), extras
            )
    except pyarrow.ArrowException as error:
        raise ValueError(f"damaged, or no Parquet file ({error})") from error


def _parquet_chunks(file: Any, wanted: Sequence[str]) -> Iterator[Chunk]:
    start = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=list(wanted)):

        def where(row: int, start: int = start) -> str:
            return f"row {start + row} (counted from 0)"

        columns: dict[str, Raw] = {}
        for name in wanted:
            column = batch.column(batch.schema.get_field_index(name))
            if column.null_count:
                row = column.is_null().to_pylist().index(True)
                raise ValueError(f"{where(row)}: {name} is missing (null)")
            columns[name] = column.to_numpy(zero_copy_only=False)
        yield Chunk(columns, where)
        start += len(batch)


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(
            f"{path}: Parquet files need pyarrow, which is not installed: pip install pyarrow, or "
            "use .npz or .csv"
        ) from None


def _write_csv(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    """Write numbers with as many digits as float32 needs to come back the same."""
    total = len(next(iter(columns.values())))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for start in range(0, total, ROWS):
            parts = (array[start : start + ROWS].astype(str).tolist() for array in columns.values())
            writer.writerows(zip(*parts, strict=True))

"""Tables of any tool: CSV, TSV, NPZ and Parquet, read by column in chunks, and written whole.

Encoding, separator, heading and the names of columns are found here and nowhere else, and every
message about a value says in which line or row it stands. Nothing in a file is ever run.
"""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from utils.arrays import Array, open_npz, read_npz
from utils.files import MOST_UNPACKED, atomic_file, atomic_path, naming, open_input

if TYPE_CHECKING:
    import pyarrow
    from _typeshed import SupportsWrite

ROWS = 1 << 17  # of a chunk
SUFFIXES = (".csv", ".tsv", ".txt", ".npz", ".parquet")
_BLOCK = 1 << 24  # bytes of a CSV file that are parsed together
_LONGEST_LINE = 1 << 16
_MOST_TEXT = 1 << 30  # bytes in a column of a chunk
_SMALL = 1024  # bytes of an array that may be a single number
FAILURE = {"quality": 255.0, "uncertainty": -1.0}  # of an image that could not be assessed
BEST_QUALITY = 100.0  # ISO/IEC 29794-1: qualities are 0..100, and 255 says that there is none
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20].", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?%?|[+-]?(inf|nan)", re.IGNORECASE)
_FLAGS = {"1": True, "0": False, "true": True, "false": False, "1.0": True, "0.0": False}

Values: TypeAlias = "Array | pyarrow.Array"  # numbers, or text
Number = TypeVar("Number", np.int64, np.float64)
Heading: TypeAlias = Callable[[Sequence[str]], bool]


def require_pyarrow(purpose: str) -> None:
    """Raise ValueError where pyarrow is not installed; `purpose` names what needs it."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ValueError(
            f"{purpose} needs pyarrow, which is not installed: pip install pyarrow"
        ) from None


@dataclass(frozen=True)
class Column:
    """Consecutive values of one column, as the file has them.

    Attributes:
        name: of the column.
        values: (n,) numbers or text.
        where: says in which line or row value i stands.
    """

    name: str
    values: Values
    where: Callable[[int], str]

    def numbers(self, dtype: DTypeLike = np.float32) -> NDArray[np.floating]:
        """(n,) finite numbers; ValueError names the first value that is not one."""
        parsed = self._parsed()
        with np.errstate(over="ignore", invalid="ignore"):
            values = parsed.astype(dtype, copy=False)
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.argmin(finite))
            raise ValueError(
                f"{self.where(row)}: {self.name} is {parsed[row]}: every row needs a finite "
                "number; leave out rows that have none"
            )
        return values

    def _parsed(self) -> Array:
        if isinstance(self.values, np.ndarray) and self.values.dtype.kind in "fiub":
            return self.values
        import pyarrow
        from pyarrow import compute

        text = self.text()
        try:
            return compute.cast(text, pyarrow.float64()).to_numpy(zero_copy_only=False)
        except pyarrow.ArrowInvalid:
            values = text.to_pylist()
        for row, value in enumerate(values):
            try:
                if "_" in value or not value.isascii():  # which Python would read
                    raise ValueError
                values[row] = float(value)
            except ValueError:
                raise ValueError(
                    f"{self.where(row)}: {self.name} is {value!r}, which is not a number"
                ) from None
        return np.array(values, np.float64)

    def text(self) -> pyarrow.Array:
        """(n,) text, without space around it."""
        import pyarrow
        from pyarrow import compute

        values = self.values
        if isinstance(values, np.ndarray):
            values = pyarrow.array(values.astype(str).astype(object), pyarrow.string())
        return compute.utf8_trim_whitespace(values)

    def flags(self, meaning: str) -> NDArray[np.bool_]:
        """(n,) booleans from 0/1 or true/false; ValueError for any other, with what they mean."""
        values = self.values
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
            bad, flags = (values != 0) & (values != 1), values == 1
        else:
            places, words = codes_of([self])
            codes = places[:, 0]
            known = [_FLAGS.get(word.lower()) for word in words]
            bad = np.array([flag is None for flag in known], np.bool_)[codes]
            flags = np.array([bool(flag) for flag in known], np.bool_)[codes]
        if bad.any():
            row = int(np.argmax(bad))
            message = f"{self.name} is {str(values[row])!r}: write {meaning}"
            raise ValueError(f"{self.where(row)}: {message}")
        return flags


def codes_of(columns: Sequence[Column]) -> tuple[NDArray[np.int64], list[str]]:
    """(n, c) places of the texts of c columns among the distinct ones, in the order of the rows."""
    import pyarrow

    texts = [column.text() for column in columns]
    rows = np.arange(len(texts) * len(texts[0])).reshape(len(texts), -1).T.ravel()
    encoded = pyarrow.concat_arrays(texts).take(pyarrow.array(rows)).dictionary_encode()
    places = encoded.indices.to_numpy().astype(np.int64).reshape(-1, len(texts))
    return places, encoded.dictionary.to_pylist()


def exact(values: NDArray[np.float64]) -> NDArray[np.floating]:
    """(n,) numbers as float32, or as they are where float32 would make different ones equal."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    order = np.argsort(values)
    became_equal = np.diff(rounded[order]) == 0
    lost = np.isinf(rounded).any() or bool((became_equal & (np.diff(values[order]) > 0)).any())
    return values if lost else rounded


def assess_failures(
    sides: Sequence[NDArray[np.floating]], kind: Literal["quality", "uncertainty"]
) -> str:
    """Make failures to assess an image the worst values, in place; return a sentence about them.

    A quality of 255 where all others are at most 100 (ISO/IEC 29794-1), or an uncertainty of -1
    where all others are at least 0, says that there is none. "" where there is no such value.

    Args:
        sides: (n,) values each.
        kind: what they are.
    """
    code = FAILURE[kind]
    failed = [values == code for values in sides]
    count = sum(int(mask.sum()) for mask in failed)
    rest = np.concatenate([values[~mask] for values, mask in zip(sides, failed, strict=True)])
    if not count or not rest.size:
        return ""
    if kind == "quality":
        if rest.max() > BEST_QUALITY:
            return ""
        worst = 0.0 if rest.min() > 0 else float(rest.min()) - 1
    else:
        if rest.min() < 0:
            return ""
        worst = float(rest.max()) + 1
    for values, mask in zip(sides, failed, strict=True):
        values[mask] = worst
    return (
        f"{count} of {count + rest.size} values of {kind} are {code:g}, which says that the image "
        "could not be assessed: they count as the worst"
    )


def _row(row: int) -> str:
    return f"row {row} (counted from 0)"


@dataclass(frozen=True)
class Table:
    """An open table; `chunks` reads some of its columns.

    Attributes:
        path: the file.
        columns: their names, as the file has them but without space around them; "field 1",
            "field 2", ... where it has no heading.
        read: yields parts of the columns of some names.
        where: says in which line or row a row stands, for a message.
        metadata: what the file states beside its columns: single numbers of an NPZ file, entries of
            a Parquet file.
    """

    path: Path
    columns: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[list[Values]]]
    where: Callable[[int], str] = _row
    metadata: Mapping[str, str] = field(default_factory=dict)

    def chunks(self, names: Sequence[str]) -> Iterator[dict[str, Column]]:
        """Read columns, part of the rows at a time; ValueError where the file is damaged."""
        start = 0
        with naming(self.path):
            names = list(dict.fromkeys(names))
            twice = [name for name in names if list(self.columns).count(name) > 1]
            if twice:
                raise ValueError(f"two columns are called {twice[0]!r}: rename or remove one")
            for arrays in self.read(names):

                def where(row: int, start: int = start) -> str:
                    return self.where(start + row)

                pairs = zip(names, arrays, strict=True)
                yield {name: Column(name, values, where) for name, values in pairs}
                start += len(arrays[0])


def read_table(
    path: str | Path, what: str = "table", *, is_heading: Heading = lambda fields: True
) -> Table:
    """Open a table by the ending of its name.

    Args:
        path: a `.csv` or `.tsv` file (comma, semicolon or tab; UTF-8 or UTF-16), an `.npz` file of
            one-dimensional arrays, or a `.parquet` file.
        what: what messages call it.
        is_heading: of the first fields of a CSV file, whether they name the columns.

    Raises:
        ValueError: no such file, another ending, or a damaged file; the message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no {what} {path}")
    suffix = _suffix(path, what, SUFFIXES)
    with naming(path):
        if suffix == ".npz":
            return _open_npz(path)
        require_pyarrow(f"a {suffix} file")
        return _open_parquet(path) if suffix == ".parquet" else _open_csv(path, is_heading)


def write_table(
    path: str | Path,
    columns: Mapping[str, Array],
    metadata: Mapping[str, float] | None = None,
    what: str = "table",
) -> None:
    """Write (N,) columns in the format of the file's ending, whole or not at all.

    Args:
        path: ends in .csv, .npz or .parquet. A CSV file has as many digits as its numbers need to
            come back the same.
        columns: by name; all of one length.
        metadata: numbers beside the columns; a CSV file cannot hold any.
        what: what messages call the file.

    Raises:
        ValueError: another ending, or metadata for a CSV file.
    """
    path, metadata = Path(path), metadata or {}
    suffix = _suffix(path, what, (".csv", ".npz", ".parquet"))
    if suffix == ".npz":
        arrays = {**columns, **{name: np.array(value) for name, value in metadata.items()}}
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, **arrays)
    elif suffix == ".parquet":
        require_pyarrow(f"{path}: a .parquet file")
        import pyarrow
        from pyarrow import parquet

        stated = {name: repr(float(value)) for name, value in metadata.items()}
        with atomic_path(path) as temporary:
            table = pyarrow.table(dict(columns)).replace_schema_metadata(stated)
            parquet.write_table(table, temporary)
    elif metadata:
        raise ValueError(f"{path}: CSV cannot hold {', '.join(metadata)}: write .npz or .parquet")
    else:
        with atomic_file(path, "w") as text:
            write_csv(text, [columns])
            for start in range(0, len(next(iter(columns.values()))), ROWS):
                rows = slice(start, start + ROWS)
                parts = [array[rows].astype(str).tolist() for array in columns.values()]
                write_csv(text, zip(*parts, strict=True))


def csv_cell(value: object) -> object:
    """A value as a CSV file has it: text that a spreadsheet would run gets an apostrophe before it.

    That is text of two or more characters that begins with one of `= + - @`, their wide forms, a
    tab or a line end, and is not a number; `plain_cell` undoes it.
    """
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def plain_cell(text: str) -> str:
    """The text that `csv_cell` was given."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text.lstrip("'"))


def write_csv(
    file: SupportsWrite[str], rows: Iterable[Iterable[object]], delimiter: str = ","
) -> None:
    r"""Write rows of values, such as a heading and what is below it, in lines that end in \n.

    See `csv_cell` for text.
    """
    csv.writer(_Lines(file), delimiter=delimiter, lineterminator=_Lines.end).writerows(
        map(csv_cell, row) for row in rows
    )


class _Lines:
    """Lines of the csv module, which quotes what holds a character of `end`.

    Semicolons and tabs part cells where a spreadsheet is set so: unquoted, what follows them in a
    name would be a cell of its own.
    """

    end = ";\t\r\n"

    def __init__(self, file: SupportsWrite[str]) -> None:
        self._file = file

    def write(self, line: str) -> object:
        return self._file.write(line.removesuffix(self.end) + "\n")


def csv_rows(
    path: str | Path, *, separators: str = ",;\t", errors: str = "strict"
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line and the fields of each row of a CSV file.

    Empty lines are no rows, nor are lines above the first row that start with #.

    Args:
        path: comma, semicolon or tab; UTF-8, or UTF-16 with its mark, as Windows' shell writes it.
        separators: of fields; that which the first line has most of is taken.
        errors: of decoding; "surrogateescape" keeps file names that are not UTF-8.

    Raises:
        ValueError: not a text file in these encodings, or an endless line.
        OSError: it cannot be read.
    """
    try:
        separator = _separator(path, separators, errors)
        reader = csv.reader(_without_comments(text_lines(path, errors)), delimiter=separator)
        for fields in reader:
            if fields:
                yield reader.line_num, list(map(plain_cell, fields))
    except csv.Error as error:
        raise ValueError(f"{path} is not a CSV file in UTF-8 ({error})") from error


def text_lines(path: str | Path, errors: str = "strict") -> Iterator[str]:
    """Yield the lines of a text file, as they are; see `csv_rows`."""
    encoding = _encoding(path)
    with open_input(path, encoding, errors) as file:
        lines = iter(partial(file.readline, _LONGEST_LINE), "")
        try:
            for number, line in enumerate(lines, start=1):
                if "\0" in line or len(line) >= _LONGEST_LINE:
                    raise ValueError(f"line {number} is not text, or endless")
                yield line.removeprefix("\ufeff") if number == 1 else line
        except UnicodeDecodeError:
            raise ValueError(_not_utf8(Path(path), encoding)) from None


def numbers_of(text: bytes, kind: type[Number]) -> NDArray[Number]:
    """All numbers of a text; none at all where something in it is not a number."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how NumPy reports text
        try:
            return np.fromstring(text, dtype=kind, sep=" ")
        except (ValueError, DeprecationWarning):
            return np.empty(0, kind)


def _without_comments(lines: Iterator[str]) -> Iterator[str]:
    """Empty the lines above the first row that start with #."""
    for line in lines:
        if line.strip() and not line.startswith("#"):
            yield line
            break
        yield "\n"
    yield from lines


def _not_utf8(path: Path, encoding: str) -> str:
    """Say which line is in another encoding, and the way out."""
    if encoding != "utf-8-sig":
        return "damaged UTF-16 text: save it as UTF-8"
    with open_input(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return f"line {number} is not UTF-8 ({line.strip()[:40]!r}): save it as UTF-8"
    return "not UTF-8: save it as UTF-8"


def _separator(path: str | Path, separators: str = ",;\t", errors: str = "replace") -> str:
    lines = _without_comments(text_lines(path, errors))
    first = next((line for line in lines if line.strip()), "").strip()
    separator = max(separators, key=first.count)
    return separator if separator in first or Path(path).suffix != ".txt" else " "


def _encoding(path: str | Path) -> str:
    """UTF-16 by its mark, or by the zeros that Latin letters have in it; else UTF-8."""
    with open_input(path) as file:
        start = file.read(64)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    halves = start[: len(start) // 2 * 2]
    for encoding, zeros, letters in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if len(halves) > 2 and not any(halves[zeros::2]) and all(halves[letters::2]):
            return encoding
    return "utf-8-sig"


def _suffix(path: Path, what: str, suffixes: Sequence[str]) -> str:
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise ValueError(f"{path}: a {what} ends in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
    return suffix


def _npz_columns(path: Path, names: Sequence[str]) -> Iterator[list[Values]]:
    arrays = [
        array[:, 0] if array.shape[1:] == (1,) else array
        for array in read_npz(path, names).values()
    ]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) > 1 or len(shapes[0]) != 1:
        each = ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
        raise ValueError(f"arrays must be one-dimensional and of one length: {each}")
    yield list(arrays)


def _open_npz(path: Path) -> Table:
    with open_npz(path) as archive:
        metadata: dict[str, str] = {}
        for name in archive.names:
            with suppress(ValueError):  # Python objects, which nobody may ask for
                array = archive.read(name) if archive.size(name) < _SMALL else np.empty(1)
                metadata |= {name: str(array)} if array.ndim == 0 else {}
        names = [name for name in archive.names if name not in metadata]
        return Table(path, names, partial(_npz_columns, path), metadata=metadata)


def _open_parquet(path: Path) -> Table:
    import pyarrow
    from pyarrow import compute, parquet

    @contextmanager
    def opened() -> Iterator[parquet.ParquetFile]:
        try:
            with parquet.ParquetFile(path) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"damaged, or not a Parquet file ({error})") from error

    def read(names: Sequence[str]) -> Iterator[list[Values]]:
        start = 0
        with opened() as file:
            rows, size = file.metadata.num_rows, path.stat().st_size
            if 8 * rows * len(names) > MOST_UNPACKED * size + (1 << 30):
                raise ValueError(f"{rows} rows in {size} bytes: refused")
            for batch in file.iter_batches(batch_size=ROWS, columns=list(names)):
                arrays = [batch.column(name) for name in names]
                for place, array in enumerate(arrays):
                    if array.null_count:
                        row = start + compute.index(array.is_null(), True).as_py()
                        raise ValueError(f"{_row(row)}: {names[place]} is missing (null)")
                    length = array.nbytes
                    if pyarrow.types.is_dictionary(array.type):  # at most as many of the longest
                        lengths = compute.binary_length(array.dictionary.cast(pyarrow.string()))
                        length = len(array) * (compute.max(lengths).as_py() or 0)
                    if length > _MOST_TEXT:
                        raise ValueError(f"{_row(start)} and on: {names[place]} has endless text")
                    if pyarrow.types.is_dictionary(array.type):
                        arrays[place] = array = array.dictionary_decode()
                    if not pyarrow.types.is_string(array.type):
                        arrays[place] = array.to_numpy(zero_copy_only=False)
                yield arrays
                start += len(batch)

    with opened() as file:
        schema = file.schema_arrow
    metadata = {
        key.decode(errors="replace"): value.decode(errors="replace")
        for key, value in (schema.metadata or {}).items()
    }
    return Table(path, schema.names, read, metadata=metadata)


def _plain_cells(texts: pyarrow.Array) -> pyarrow.Array:
    import pyarrow
    from pyarrow import compute

    if not compute.any(compute.starts_with(texts, "'")).as_py():
        return texts
    return pyarrow.array([text and plain_cell(text) for text in texts.to_pylist()], texts.type)


def _open_csv(path: Path, is_heading: Heading) -> Table:
    import pyarrow
    import pyarrow.csv

    rows_at_start = list(islice(csv_rows(path), 2))
    if not rows_at_start:
        raise ValueError("the file is empty; its first line must name the columns")
    line_of_first, first = rows_at_start[0]
    heading = int(is_heading(first))
    columns = [
        name.strip() if heading else f"field {place}" for place, name in enumerate(first, start=1)
    ]
    width, second = len(first), rows_at_start[-1][1]
    if abs(len(second) - width) == 1 and not max(first, second, key=len)[-1].strip():
        width = len(second)  # the rows, or the heading alone, end in a separator
        columns = columns[:width]

    def where(row: int) -> str:  # reads the file again
        return f"line {next(islice(csv_rows(path), row + heading, None), (0, []))[0]}"

    def read(names: Sequence[str]) -> Iterator[list[Values]]:
        places = [f"f{columns.index(name)}" for name in names]
        try:
            batches = pyarrow.csv.open_csv(
                path,
                read_options=pyarrow.csv.ReadOptions(
                    column_names=[f"f{place}" for place in range(width)],
                    skip_rows=line_of_first - 1 + heading,
                    encoding=_encoding(path).removesuffix("-sig"),
                    block_size=_BLOCK,
                ),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=_separator(path), newlines_in_values=True
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=places,
                    column_types=dict.fromkeys(places, pyarrow.string()),
                    strings_can_be_null=False,
                ),
            )
            for rows in batches:
                for start in range(0, len(rows), ROWS):
                    parts = [rows.column(place).slice(start, ROWS) for place in places]
                    yield list(map(_plain_cells, parts))
        except pyarrow.ArrowInvalid as error:
            for line, fields in islice(csv_rows(path), heading, None):
                if len(fields) != width:
                    raise ValueError(
                        f"line {line}: {len(fields)} fields, but the first line has {len(first)}"
                    ) from error
            if heading and len(rows_at_start) < 2:
                return
            raise ValueError(f"not a CSV file in UTF-8 ({error})") from error

    return Table(path, columns, read, where)

r"""The flat row of a scored face, its files (CSV, JSON, JSON lines, Parquet), and a job's parts.

Names, order, rounding and types of the columns are the same in score_images' files, in `to_rows` of
the Python scorer and in the Ray engine's parts; docs/score_photos.md shows how to read them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np

from report.sheet import LANDMARKS, FaceScore, Measures
from utils.config import parsed
from utils.files import (
    DAMAGE,
    Json,
    atomic_file,
    naming,
    open_input,
    parse_json,
    remove_leftovers,
    visible,
)
from utils.parts import PartStore
from utils.tables import csv_rows, require_pyarrow, write_csv

if TYPE_CHECKING:
    import pyarrow

    from photos.sources import Item

Row: TypeAlias = dict[str, Any]  # column -> text, number or None

KEY = b"face-uncertainty"  # of a Parquet file's metadata, as in extracted shards
ABOUT = "about.json"
WAY_OUT = "give what it was made with, or --restart to begin anew, or another --out"
GROUP = 16384  # rows of a Parquet row group

_BOX = ("left", "top", "right", "bottom")
_POINTS = tuple(f"{name}_{axis}" for name in LANDMARKS for axis in "xy")
_MEASURES = ("sharpness", "brightness", "contrast", "eye_distance", "yaw", "roll")
WORDS = ("file", "status", "note", "verdict", "reasons")
COLUMNS = (
    *("file", "index", "face", "status", "note"),
    *_BOX,
    *_POINTS,
    *("detection", "uncertainty", "quality", "percentile", "p_false_non_match"),
    *("verdict", "reasons"),
    *_MEASURES,
)


@dataclass(frozen=True)
class Source:
    """Where an image came from.

    Attributes:
        file: path as given; "" for pixels that came without one.
        index: row of a pack or frame of a video; None for a photo.
    """

    file: str = ""
    index: int | None = None

    @property
    def display_name(self) -> str:
        """The name in a line for people."""
        name = visible(self.file)
        return name if self.index is None else f"{name}[{self.index}]"


def flat_row(file: str, index: int | None, score: FaceScore) -> Row:
    r"""Return the columns of one face of a file (`index`: row of a pack, frame of a video).

    The order is that of `COLUMNS`. Words are never None; of numbers, None is missing. Pixels and
    measures have two decimals, `uncertainty` the digits of its float32, probabilities six
    significant digits. Bytes of the file's name that are not text become `\udcff`.
    """
    points = (
        [None] * len(_POINTS) if score.landmarks is None else score.landmarks.reshape(-1).tolist()
    )
    measures = score.measures
    return {
        "file": plain_text(file),
        "index": index,
        "face": score.face,
        "status": score.status,
        "note": plain_text(score.note),
        **dict(zip(_BOX, map(_rounded, score.box or [None] * 4), strict=True)),
        **dict(zip(_POINTS, map(_rounded, points), strict=True)),
        "detection": _significant(score.detection, 4),
        "uncertainty": _shortest(score.uncertainty),
        "quality": int(score.quality),
        "percentile": _rounded(score.percentile),
        "p_false_non_match": _significant(score.p_false_non_match, 6),
        "verdict": score.verdict,
        "reasons": "; ".join(score.reasons),
        **{name: _rounded(getattr(measures, name, None)) for name in _MEASURES},
    }


def face_score(row: Row, image: int) -> FaceScore:
    """Turn a flat row back into the face of image number `image`, without pixels and embedding."""
    box = tuple(row[name] for name in _BOX)
    points = [row[name] for name in _POINTS]
    measures = {name: row[name] for name in _MEASURES}
    return FaceScore(
        image=image,
        face=row["face"],
        status=row["status"],
        note=row["note"],
        box=None if None in box else box,
        landmarks=None if None in points else np.array(points, np.float32).reshape(-1, 2),
        detection=row["detection"],
        uncertainty=_or_nan(row["uncertainty"]),
        quality=row["quality"],
        percentile=_or_nan(row["percentile"]),
        p_false_non_match=_or_nan(row["p_false_non_match"]),
        verdict=row["verdict"],
        reasons=tuple(filter(None, row["reasons"].split("; "))),
        measures=None if measures["sharpness"] is None else Measures(**measures),
    )


def plain_text(text: str) -> str:
    r"""Return text that UTF-8 can carry: bytes of file names that are not text become `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_line(value: Mapping[str, object]) -> str:
    """Return JSON on one line; NaN is refused."""
    return plain_text(json.dumps(value, ensure_ascii=False, allow_nan=False))


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
        require_pyarrow(f"--out {path}: Parquet")


def write_rows(path: Path, rows: Iterable[Row], header: Mapping[str, object]) -> None:
    """Write a file in the format of its ending, in memory that does not grow.

    It is replaced when the new one is complete. The header says what the numbers come from; a CSV
    has its `meaning` and `settings`, a line each.

    Raises:
        ValueError: see `check_path`.
        OSError: the file cannot be written.
    """
    check_path(path)
    with atomic_file(path) as file:
        _WRITERS[path.suffix](file, rows, header)


def input_names(path: Path) -> Iterator[list[Json]]:
    """Yield path and row of each input that a file of `write_rows` has rows of, as `plain_name`.

    Raises:
        ValueError: damaged; names the file.
    """
    with naming(path, *DAMAGE, OSError):
        for file, index, face in _READERS.get(path.suffix, _read_json)(path):
            if int(face) <= 0:  # the first row of an input
                yield [file, None if index in (None, "") else int(index)]


def _read_csv(path: Path) -> Iterator[Sequence[Any]]:
    rows = csv_rows(path, separators=",")
    columns = next((fields for _, fields in rows if fields[0] == COLUMNS[0]), [])
    for _, fields in rows:
        row = dict(zip(columns, fields, strict=True))
        yield row["file"], row["index"], row["face"]


def _read_json(path: Path) -> Iterator[Sequence[Any]]:
    with open_input(path, "utf-8") as file:
        for line in file:
            if line.startswith('{"file"'):
                yield [parse_json(line.rstrip(",\n"))[name] for name in COLUMNS[:3]]


def _read_parquet(path: Path) -> Iterator[Sequence[Any]]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        for batch in file.iter_batches(GROUP, columns=COLUMNS[:3]):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


_READERS: dict[str, Callable[[Path], Iterator[Sequence[Any]]]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def arrow_table(rows: Iterable[Row], metadata: Mapping[bytes, bytes]) -> pyarrow.Table:
    """Return rows as a table with typed columns."""
    import pyarrow

    kinds = {name: pyarrow.float64() for name in COLUMNS}
    kinds |= dict.fromkeys(WORDS, pyarrow.string())
    kinds |= {"index": pyarrow.int64(), "face": pyarrow.int32(), "quality": pyarrow.uint8()}
    schema = pyarrow.schema(list(kinds.items())).with_metadata(dict(metadata))
    return pyarrow.Table.from_pylist(list(rows), schema=schema)


def _write_csv(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, object]) -> None:
    line = " ".join(plain_text(f"# {header['meaning']} [{header['settings']}]").split())
    file.write(line.encode() + b"\n")
    cells = ([row[name] for name in COLUMNS] for row in rows)
    text = io.TextIOWrapper(file, "utf-8", newline="")
    write_csv(text, chain([COLUMNS], cells))
    text.detach()


def _write_jsonl(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, object]) -> None:
    for value in chain([{"header": dict(header)}], rows):
        file.write(as_line(value).encode() + b"\n")


def _write_json(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, object]) -> None:
    file.write(f'{{"header": {as_line(header)},\n"rows": ['.encode())
    before = b"\n"
    for row in rows:
        file.write(before + as_line(row).encode())
        before = b",\n"
    file.write(b"\n]}\n")


def _write_parquet(file: IO[bytes], rows: Iterable[Row], header: Mapping[str, object]) -> None:
    from pyarrow.parquet import ParquetWriter

    metadata, rows = {KEY: as_line(header).encode()}, iter(rows)
    with ParquetWriter(file, arrow_table([], metadata).schema, compression="zstd") as writer:
        while group := list(islice(rows, GROUP)):
            writer.write_table(arrow_table(group, metadata))


_WRITERS: dict[str, Callable[[IO[bytes], Iterable[Row], Mapping[str, object]], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


class PartFacts(TypedDict):
    """What a part says of itself: its inputs, the path and row of the last one, its rows."""

    inputs: int
    last: object
    rows: int


class RowParts:
    """Rows of consecutive inputs, part after part, in the folder `OUT.parts` beside the output.

    Attributes:
        settings: short hash of all that rows depend on; it stands in the output too.
        count: of finished parts that are known.
    """

    def __init__(self, out: Path, fingerprint: Mapping[str, Json]) -> None:
        self.out, self.count = out, 0
        folder = out.with_name(f"{out.name}.parts")
        name = "part-{:06d}.jsonl"
        self._store = PartStore(folder, fingerprint, name=name, about=ABOUT, way_out=WAY_OUT)
        self.settings = f"settings {self._store.settings[:16]}"

    def is_finished(self) -> bool:
        """Whether the output is there and was made with these settings; nothing is left to do.

        Raises:
            ValueError: the output is there and was made with others, or by something else.
        """
        remove_leftovers(self.out.parent, self.out.name)
        begun = (self._store.folder / ABOUT).exists()
        if not self.out.exists() or (begun and not self._store.is_finished):
            return False
        if self.settings.encode() in _ends(self.out):
            self._store.discard()  # what a crash left
            return True
        raise ValueError(
            f"{self.out} is there already, made in another way: --restart overwrites it, or name "
            "another --out"
        )

    def open(self, *, restart: bool = False) -> None:
        """Make the folder, or take up the one that is there; see `PartStore.claim`."""
        self._store.claim(restart)

    def resume(self, items_from: Callable[[int], Iterator[Item]]) -> tuple[int, Iterator[Item]]:
        """Return how many inputs finished parts have, and the inputs after them.

        `items_from` gives the inputs from a number on.

        Raises:
            ValueError: the input before these is another than when the parts were made.
        """
        done, last = 0, None
        while self._store.has(self.count):
            facts = self._facts(self.count)
            done, last = done + facts["inputs"], facts["last"]
            self.count += 1
        for number in self._store.numbers()[self.count :]:  # after one that somebody has deleted
            self._store.remove(number)
        if not done:
            return 0, items_from(0)
        items = items_from(done - 1)
        item = next(items, None)
        if item is None or plain_name(item) != last:
            raise ValueError(
                f"the inputs have changed since {self._store.folder} was begun (files were added, "
                "removed or renamed): --restart begins anew"
            )
        return done, items

    def add(self, sources: Sequence[Source], rows: Sequence[Row]) -> None:
        """Store the part that comes next."""
        facts = {"inputs": len(sources), "last": plain_name(sources[-1]), "rows": len(rows)}
        lines = [as_line(facts), *map(as_line, rows)]
        text = "\n".join(lines) + "\n"
        self._store.write(self.count, lambda path: path.write_bytes(text.encode()))
        self.count += 1

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all parts in order; ValueError where one is damaged."""
        for number in range(self.count):
            left = self._facts(number)["rows"]
            with self._store.reading(number) as path, path.open(encoding="utf-8") as file:
                next(file)
                for line in file:
                    yield parse_json(line)
                    left -= 1
                if left:
                    raise ValueError("rows are missing")

    def discard(self) -> None:
        """Remove the folder; a crash meanwhile leaves one that says that it is finished."""
        self._store.finish()
        self._store.discard()

    def close(self) -> None:
        """Let another process have the folder."""
        self._store.close()

    def _facts(self, number: int) -> PartFacts:
        with self._store.reading(number) as path, path.open(encoding="utf-8") as file:
            facts: PartFacts = parsed(PartFacts, parse_json(file.readline()), "its first line")
            if facts["inputs"] < 1 or facts["rows"] < 0:
                raise ValueError("its first line has a count below 0")
            return facts


def digest(value: Json | Mapping[str, object]) -> str:
    """Return a short hash of plain values, to compare them by."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def plain_name(item: Item | Source) -> list[Json]:
    """Return path and row of an input, as parts store them."""
    return [plain_text(item.file), item.index]


def _ends(path: Path) -> bytes:
    """First and last bytes of a file: its header lies in one of them, whatever the format."""
    size = 1 << 16
    with path.open("rb") as file:
        first = file.read(size)
        file.seek(max(0, path.stat().st_size - size))
        return first + file.read(size)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 2)


def _significant(value: float | None, digits: int) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}")


def _shortest(value: float) -> float | None:
    """The shortest decimal number that reads back as the same float32."""
    return float(str(np.float32(value))) if math.isfinite(value) else None

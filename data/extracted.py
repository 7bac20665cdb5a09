"""Read what extraction/extract.py wrote: embeddings and uncertainties of every image of a source.

`evaluation.sets.stored` evaluates them as labelled faces. The first part says what the files of a
shard are, and is what extraction/ writes by.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

from data.features import Embeddings
from utils.arrays import read_npy
from utils.config import parsed
from utils.files import DAMAGE, naming, open_input, parse_json, read_json
from utils.tables import plain_cell, require_pyarrow

ABOUT = "about.json"
BAD = "bad.csv"
SHARDS = "shards"
ARRAYS = ("row", "label", "embedding", "uncertainty", "ok")
NAMES = "names.txt"
FACTS = "shard.json"
KEY = b"face-uncertainty"  # of a Parquet file's metadata

MOST_ROWS = 1 << 48

Format = Literal["npy", "parquet"]


class _Sizes(TypedDict, total=False):
    bytes: dict[str, int]  # of the files of a folder


class ShardFacts(_Sizes):
    """What a shard says of itself: its rows, its images without embedding, and how it was made."""

    start: int
    stop: int
    bad: int
    settings: str


class About(TypedDict):
    """What about.json says of the folder, among other things."""

    columns: list[str]
    embedding_size: int
    format: Format
    images: int
    shard_images: int


@dataclass(frozen=True)
class Shard:
    """Consecutive images of a source.

    Attributes:
        row: (n,) int64 row numbers in the source.
        label: (n,) int64 identities, numbered as `data.faces.open_faces` does.
        embedding: (n, D) float16 or float32, as the backbone gives it; NaN where not ok.
        uncertainty: (n, c) float32, larger = less reliable, one column per method; NaN where not
            ok.
        ok: (n,) whether the image could be read and embedded.
        name: (n,) paths below the folder or list, or keys of the pack.
    """

    row: NDArray[np.int64]
    label: NDArray[np.int64]
    embedding: NDArray[np.floating]
    uncertainty: NDArray[np.float32]
    ok: NDArray[np.bool_]
    name: Sequence[str]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> Shard:
        """Return these images, by place in the shard or by a mask."""
        places = np.arange(len(self))[places]
        arrays = {name: getattr(self, name)[places] for name in ARRAYS}
        return Shard(**arrays, name=[self.name[place] for place in places.tolist()])


class Bad(NamedTuple):
    """An image without embedding: its row in the source, its name and what is wrong."""

    row: int
    name: str
    reason: str


def shard_path(folder: Path, number: int, form: Format) -> Path:
    """Return where a shard lies: a folder of `.npy` files, or one Parquet file."""
    return folder / SHARDS / (f"{number:06d}" if form == "npy" else f"{number:06d}.parquet")


def shard_facts(path: Path) -> ShardFacts | None:
    """Return what a shard says of itself, None where there is no such shard.

    Reads no rows: the sizes of `.npy` files, or the Parquet file's own index, show a damage.

    Raises:
        ValueError: the shard is damaged.
    """
    if not path.exists():
        return None
    return _parquet_facts(path) if path.suffix == ".parquet" else _npy_facts(path)


def _facts(stored: object) -> ShardFacts:
    facts: ShardFacts = parsed(ShardFacts, stored, "facts")
    if not 0 <= facts["bad"] <= facts["stop"] - facts["start"]:
        raise ValueError(f"rows {facts['start']} to {facts['stop']}, {facts['bad']} of them bad")
    return facts


def _npy_facts(path: Path) -> ShardFacts:
    with naming(path / FACTS, *DAMAGE, OSError):
        facts = _facts(read_json(path / FACTS))
        sizes = facts["bytes"]
    for name, size in sizes.items():
        file = path / name
        stored = file.stat().st_size if file.is_file() else 0
        if stored != size:
            raise ValueError(f"{file} has {stored} bytes, not {size}")
    return facts


def _parquet_facts(path: Path) -> ShardFacts:
    require_pyarrow(str(path))
    import pyarrow
    from pyarrow import parquet

    try:
        with open_input(path) as file:
            metadata = parquet.read_metadata(file)
        facts = _facts(parse_json(metadata.metadata[KEY]))
    except (pyarrow.ArrowException, OSError, ValueError, *DAMAGE) as error:
        raise ValueError(f"{path} is not a whole shard ({error})") from error
    if metadata.num_rows != facts["stop"] - facts["start"]:
        raise ValueError(f"{path} has {metadata.num_rows} rows")
    return facts


def read_shard(
    path: Path,
    columns: Sequence[str],
    rows: int,
    size: int,
    places: NDArray[np.intp] | None = None,
) -> Shard:
    """Read a shard, or images by their place in it: of `.npy` arrays only those are read.

    Raises:
        ValueError: damaged, or not so many rows and numbers in an embedding; names the file.
    """
    if path.suffix == ".parquet":
        shard = _read_parquet(path, columns)
        shard = shard if places is None else shard.take(places)
    else:
        arrays = {name: read_npy(path / f"{name}.npy", places) for name in ARRAYS}
        names: Sequence[str] = Lines(path / NAMES, rows)
        shard = Shard(**arrays, name=names if places is None else [names[i] for i in places])
    count = rows if places is None else len(places)
    shapes = {"embedding": (count, size), "uncertainty": (count, len(columns))}
    for name, kind in zip(ARRAYS, "iiffb", strict=True):
        array = getattr(shard, name)
        if array.dtype.kind != kind or array.shape != shapes.get(name, (count,)):
            raise ValueError(f"{path} is damaged: {name} has {array.shape} of {array.dtype}")
    return shard


def _read_parquet(path: Path, columns: Sequence[str]) -> Shard:
    require_pyarrow(str(path))
    import pyarrow
    from pyarrow import parquet

    with naming(path, *DAMAGE, OSError, pyarrow.ArrowException):
        table = parquet.read_table(path)
        fixed = table["embedding"].combine_chunks()
        embedding = fixed.flatten().to_numpy(zero_copy_only=False).reshape(len(table), -1)
        uncertainty = [table[uncertainty_column(name)].to_numpy() for name in columns]
        return Shard(
            table["row"].to_numpy(),
            table["label"].to_numpy(),
            embedding,
            np.stack(uncertainty, axis=1),
            table["ok"].to_numpy(),
            table["name"].to_pylist(),
        )


def uncertainty_column(method: str) -> str:
    """Return what a method's column is called in a Parquet shard."""
    return f"uncertainty_{method}"


def bad_images(path: Path) -> list[Bad]:
    """Return the images of a shard that have no embedding, by row."""
    if path.suffix == ".parquet":
        require_pyarrow(str(path))
        import pyarrow
        from pyarrow import parquet

        with naming(path, *DAMAGE, OSError, pyarrow.ArrowException):
            rows = parquet.read_table(
                path, columns=["row", "name", "reason"], filters=[("ok", "==", False)]
            )
            return [Bad(**row) for row in rows.to_pylist()]
    file = path / BAD
    if not file.exists():
        return []
    with naming(file, csv.Error), open_input(file, "utf-8", "surrogateescape") as lines:
        rows = [map(plain_cell, row) for row in csv.reader(lines)]
        return [Bad(int(row), name, reason) for row, name, reason in rows[1:]]


class Lines(Sequence[str]):
    """Names of a shard, one per line of a file that is read when one is needed."""

    def __init__(self, path: Path, count: int) -> None:
        self._path, self._count = path, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return one name or several."""
        return self._lines[place]

    @cached_property
    def _lines(self) -> list[str]:
        with open_input(self._path, "utf-8", "surrogateescape") as file:
            lines = file.read().split("\n")[:-1]
        if len(lines) != self._count:
            raise ValueError(f"{self._path} has {len(lines)} lines, not {self._count}")
        return lines


class Extracted:
    """A complete extracted folder; iterating gives its shards in the order of the source.

    A shard is read whole, but for `take`, which of `.npy` shards reads the rows that it gives.
    Nothing is kept between calls.

    Attributes:
        about: content of its about.json.
        columns: names of the uncertainties.
        num_bad: images without embedding.

    Raises:
        ValueError: not such a folder, or one in which shards are missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.about = _read_about(self.path)
        self.columns: tuple[str, ...] = tuple(self.about["columns"])
        self.shard_images: int = self.about["shard_images"]
        self.num_shards = -(-len(self) // self.shard_images)
        self._bad = self._checked()
        self.num_bad = sum(self._bad)

    def __len__(self) -> int:
        return int(self.about["images"])

    def __iter__(self) -> Iterator[Shard]:
        return (self.shard(number) for number in range(self.num_shards))

    def shard(self, number: int) -> Shard:
        """Return shard `number`, with rows from `number * shard_images` on."""
        shard = self._read(number)
        bad = len(shard) - int(np.count_nonzero(shard.ok))
        if bad != self._bad[number]:
            raise ValueError(f"{self._path(number)} is damaged: {bad} images without embedding")
        return shard

    def _read(self, number: int, places: NDArray[np.intp] | None = None) -> Shard:
        rows = min(self.shard_images, len(self) - number * self.shard_images)
        size = self.about["embedding_size"]
        return read_shard(self._path(number), self.columns, rows, size, places)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> Shard:
        """Return any rows in the order given, in memory; each shard is opened once.

        Raises:
            IndexError: a row that the source does not have.
        """
        chosen = np.asarray(rows, np.int64)
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        if outside.size:
            raise IndexError(f"{self.path}: row {outside[0]} of {len(self)}")
        number, place = np.divmod(chosen, self.shard_images)
        order = np.argsort(number, kind="stable")
        parts = []
        for shard in np.unique(number).tolist() or [0]:
            parts.append(self._read(shard, place[number == shard]))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return _joined(parts).take(back)

    def bad(self) -> Iterator[Bad]:
        """Images without embedding, by row: what bad.csv lists."""
        for number in range(self.num_shards):
            yield from bad_images(self._path(number))

    def labelled(self) -> Embeddings:
        """Load all good images into memory, embeddings as float32, to be evaluated.

        Raises:
            ValueError: no good image, or arrays that are unsound.
        """
        self.shard(0)  # which shows that sizes are true before there is memory for them
        count = len(self) - self.num_bad
        mu = np.empty((count, self.about["embedding_size"]), np.float32)
        sigma_sq = np.empty((count, len(self.columns)), np.float32)
        identity = np.empty(count, np.int64)
        names: list[str] = []
        start = 0
        for shard in self:
            good = np.flatnonzero(shard.ok)
            place = slice(start, start + len(good))
            mu[place], sigma_sq[place] = shard.embedding[good], shard.uncertainty[good]
            identity[place] = shard.label[good]
            names += [shard.name[row] for row in good.tolist()]
            start += len(good)
        try:
            return Embeddings(mu, sigma_sq, identity, np.array(names, np.str_))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _path(self, number: int) -> Path:
        return shard_path(self.path, number, self.about["format"])

    def _checked(self) -> list[int]:
        """Bad images of each shard; ValueError where one is missing, damaged or of another run."""
        names = (path.stem for path in self._path(0).parent.glob("[0-9]*"))
        numbers = {int(name) for name in names if name.isdecimal() and self._exists(int(name))}
        if len(numbers) < self.num_shards:
            first = next(number for number in count() if number not in numbers)
            raise ValueError(
                f"{self.path} is incomplete: {self.num_shards - len(numbers)} of {self.num_shards} "
                f"shards are missing, the first is {first}; give the command of "
                "extraction/extract.py again, which makes those alone"
            )
        facts = [shard_facts(self._path(number)) for number in range(self.num_shards)]
        settings = {own["settings"] for own in facts if own}
        rows = {(own["start"], own["stop"]) for own in facts if own}
        if sum(stop - start for start, stop in rows) != len(self):
            raise ValueError(f"{self.path}: its shards hold other rows; give the command again")
        if len(settings) > 1:
            raise ValueError(
                f"{self.path}: its shards were made with {len(settings)} different settings; give "
                "the command of extraction/extract.py again"
            )
        return [own["bad"] for own in facts if own]

    def _exists(self, number: int) -> bool:
        return number < self.num_shards and self._path(number).exists()


def open_extracted(path: str | Path) -> Extracted:
    """Open a folder that extraction/extract.py wrote; see `Extracted`."""
    return Extracted(path)


def _read_about(folder: Path) -> About:
    file = folder / ABOUT
    if not file.is_file():
        raise ValueError(f"{folder} was not written by extraction/extract.py: it has no {ABOUT}")
    with naming(file, *DAMAGE):
        about: About = parsed(About, read_json(file), "about.json")
        sizes = (about["embedding_size"], about["images"], about["shard_images"])
        if not 1 <= min(sizes) <= max(sizes) < MOST_ROWS or not about["columns"]:
            raise ValueError(f"sizes {sizes}: must be at least 1, of at least one column")
        return about


def _joined(parts: Sequence[Shard]) -> Shard:
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Shard(**arrays, name=[name for part in parts for name in part.name])

"""Embeddings and uncertainties of every image of a source, in shards: read and written.

extraction/extract.py writes them, each whole or not at all; `evaluation.sets.stored` evaluates them
as labelled faces.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, overload

import numpy as np
from numpy.typing import NDArray

from data.features import Embeddings
from utils.arrays import read_npy
from utils.config import parsed
from utils.files import (
    DAMAGE,
    Json,
    atomic_file,
    atomic_path,
    naming,
    open_input,
    parse_json,
    read_json,
    remove,
    remove_leftovers,
    require_folder,
)
from utils.tables import plain_cell, require_pyarrow, write_csv

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
        about = (self.about["format"], len(self), self.shard_images)
        self._shards = ShardFolder(self.path, *about, self.columns, settings="")
        self.num_shards = len(self._shards)
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
            raise ValueError(
                f"{self._shards.path(number)} is damaged: {bad} images without embedding"
            )
        return shard

    def _read(self, number: int, places: NDArray[np.intp] | None = None) -> Shard:
        rows = len(range(*self._shards.bounds(number)))
        size = self.about["embedding_size"]
        return read_shard(self._shards.path(number), self.columns, rows, size, places)

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
            yield from bad_images(self._shards.path(number))

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

    def _checked(self) -> list[int]:
        """Bad images of each shard; ValueError where one is missing, damaged or of another run."""
        names = (path.stem for path in self._shards.path(0).parent.glob("[0-9]*"))
        numbers = {int(name) for name in names if name.isdecimal() and self._exists(int(name))}
        if len(numbers) < self.num_shards:
            first = next(number for number in count() if number not in numbers)
            raise ValueError(
                f"{self.path} is incomplete: {self.num_shards - len(numbers)} of {self.num_shards} "
                f"shards are missing, the first is {first}; give the command of "
                "extraction/extract.py again, which makes those alone"
            )
        facts = [shard_facts(self._shards.path(number)) for number in range(self.num_shards)]
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
        return number < self.num_shards and self._shards.path(number).exists()


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


@dataclass(frozen=True)
class ShardFolder:
    """The shards of one folder.

    Attributes:
        folder: that about.json lies in.
        form: of the shards.
        total: images of the source.
        shard_images: images of a shard; the last one may have fewer.
        columns: names of the uncertainties.
        settings: hash of what about.json says; a shard made under another one is made again.
    """

    folder: Path
    form: Format
    total: int
    shard_images: int
    columns: tuple[str, ...]
    settings: str

    def __len__(self) -> int:
        return -(-self.total // self.shard_images)

    def bounds(self, number: int) -> tuple[int, int]:
        """Rows [start, stop) of a shard."""
        start = number * self.shard_images
        return start, min(start + self.shard_images, self.total)

    def path(self, number: int) -> Path:
        """Return where a shard lies: a folder of `.npy` files, or one Parquet file."""
        name = f"{number:06d}" if self.form == "npy" else f"{number:06d}.parquet"
        return self.folder / SHARDS / name

    def bad_of_done(
        self, number: int, max_bad_share: float, report: Callable[[str], None]
    ) -> int | None:
        """Return how many bad images a whole shard has, None where there is no such shard.

        One that is damaged, or of which too many are bad (which may be mended meanwhile), is
        removed, and reported in a line.
        """
        path = self.path(number)
        try:
            facts = shard_facts(path)
            if facts is None:
                return None
            if facts["settings"] != self.settings:
                raise ValueError(f"{path} was made with other settings")
            if (facts["start"], facts["stop"]) != self.bounds(number):
                raise ValueError(f"{path} holds other rows")
            if facts["bad"] > max_bad_share * (facts["stop"] - facts["start"]):
                raise ValueError(f"{path} lists {facts['bad']} bad images")
        except ValueError as error:
            report(f"{' '.join(str(error).split())}: made again")
            remove(path)
            return None
        return facts["bad"]

    def count_done(self) -> int:
        """Count shards without looking into them."""
        return sum(self.path(number).exists() for number in range(len(self)))

    def write(
        self, number: int, shard: Shard, bad: Sequence[Bad], facts: Mapping[str, Json]
    ) -> None:
        """Write a shard under a temporary name, and give it its own when it is complete."""
        path = self.path(number)
        require_folder(self.folder)
        start, stop = self.bounds(number)
        own = {"shard": number, "start": start, "stop": stop, "bad": len(bad)}
        facts = {**own, "settings": self.settings, **facts}
        with atomic_path(path) as temporary:
            if self.form == "npy":
                _write_npy(temporary, shard, bad, facts)
            else:
                _write_parquet(temporary, shard, bad, facts, self.columns)

    def join_bad(self) -> int:
        """Write bad.csv from the lists of all shards; returns how many images are in it."""
        total = 0

        def rows() -> Iterator[Bad]:
            nonlocal total
            for number in range(len(self)):
                bad = bad_images(self.path(number))
                total += len(bad)
                yield from bad

        with atomic_file(self.folder / BAD, "w") as file:
            write_csv(file, chain([Bad._fields], rows()))
        remove_leftovers(self.path(0).parent)
        return total


def _write_npy(folder: Path, shard: Shard, bad: Sequence[Bad], facts: dict[str, Json]) -> None:
    folder.mkdir()
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(shard, name))
    with _open(folder / NAMES) as file:
        file.writelines(f"{name}\n" for name in shard.name)
    if bad:
        with _open(folder / BAD) as file:
            write_csv(file, [Bad._fields, *bad])
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    text = json.dumps({**facts, "bytes": sizes}, indent=1) + "\n"
    (folder / FACTS).write_text(text, encoding="utf-8")


def _write_parquet(
    path: Path, shard: Shard, bad: Sequence[Bad], facts: dict[str, Json], columns: Sequence[str]
) -> None:
    require_pyarrow(str(path))
    import pyarrow
    from pyarrow import parquet

    reasons = {image.row: _utf8(image.reason) for image in bad}
    size = shard.embedding.shape[1]
    flat = pyarrow.array(shard.embedding.reshape(-1))
    arrays: dict[str, Any] = {
        "row": shard.row,
        "label": shard.label,
        "name": [_utf8(name) for name in shard.name],
        "ok": shard.ok,
        "reason": pyarrow.array([reasons.get(row) for row in shard.row.tolist()], pyarrow.string()),
        **{
            uncertainty_column(name): np.ascontiguousarray(shard.uncertainty[:, place])
            for place, name in enumerate(columns)
        },
        "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, size),
    }
    table = pyarrow.table(arrays).replace_schema_metadata({KEY: json.dumps(facts)})
    plain = ["name", "reason", "row", "label", "ok"]
    others = [*map(uncertainty_column, columns), "embedding.list.element"]
    compression = dict.fromkeys(plain, "zstd") | dict.fromkeys(others, "none")
    parquet.write_table(
        table,
        path,
        compression=compression,
        use_dictionary=False,
        write_statistics=["row", "label", "ok"],
        store_schema=True,
    )


def _utf8(text: str) -> str:
    """Replace what UTF-8 cannot carry: bytes of file names that are not text."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def one_line(name: str) -> str:
    """Return a name that fits on one line of names.txt."""
    return name.replace("\n", "\\n").replace("\r", "\\r")


def _open(path: Path) -> Any:
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


def empty(rows: NDArray[np.int64], size: int, columns: int, dtype: str) -> Shard:
    """Return a shard to be filled: nothing ok, NaN in every number."""
    images = len(rows)
    return Shard(
        rows,
        np.zeros(images, np.int64),
        np.full((images, size), np.nan, dtype),
        np.full((images, columns), np.nan, np.float32),
        np.zeros(images, np.bool_),
        [""] * images,
    )

"""Files of an extracted folder: where each shard lies, what is in it, and whether it is whole.

Public through evaluation.sets.extracted; extraction/extract.py writes them.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

ABOUT = "about.json"
BAD = "bad.csv"
SHARDS = "shards"
ARRAYS = ("row", "label", "embedding", "uncertainty", "ok")
NAMES = "names.txt"
FACTS = "shard.json"
KEY = b"face-uncertainty"  # of a Parquet file's metadata

Format = Literal["npy", "parquet"]


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


def shard_facts(path: Path) -> dict[str, Any] | None:
    """Return what a shard says of itself, None where there is no such shard.

    Reads no rows: the sizes of `.npy` files, or the Parquet file's own index, show a damage.

    Raises:
        ValueError: the shard is damaged.
    """
    if not path.exists():
        return None
    return _parquet_facts(path) if path.suffix == ".parquet" else _npy_facts(path)


def _npy_facts(path: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((path / FACTS).read_text(encoding="utf-8"))
        sizes: dict[str, int] = facts["bytes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path / FACTS} cannot be read ({error})") from error
    for name, size in sizes.items():
        file = path / name
        found = file.stat().st_size if file.is_file() else 0
        if found != size:
            raise ValueError(f"{file} has {found} bytes, not {size}")
    return facts


def _parquet_facts(path: Path) -> dict[str, Any]:
    pyarrow, parquet = import_pyarrow(path)
    try:
        found = parquet.read_metadata(path)
        facts: dict[str, Any] = json.loads(found.metadata[KEY])
    except (pyarrow.ArrowException, OSError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no whole shard ({error})") from error
    if found.num_rows != facts["stop"] - facts["start"]:
        raise ValueError(f"{path} has {found.num_rows} rows")
    return facts


def read_shard(path: Path, columns: Sequence[str]) -> Shard:
    """Read a shard: `.npy` arrays stay on disk (memory-mapped), Parquet comes into memory."""
    if path.suffix == ".parquet":
        return _read_parquet(path, columns)
    arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    return Shard(**arrays, name=Lines(path / NAMES))


def _read_parquet(path: Path, columns: Sequence[str]) -> Shard:
    _, parquet = import_pyarrow(path)
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
        _, parquet = import_pyarrow(path)
        rows = parquet.read_table(
            path, columns=["row", "name", "reason"], filters=[("ok", "==", False)]
        )
        return [Bad(**row) for row in rows.to_pylist()]
    file = path / BAD
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as lines:
        return [Bad(int(row), name, reason) for row, name, reason in list(csv.reader(lines))[1:]]


class Lines(Sequence[str]):
    """Names of a shard, one per line of a file that is read when the first one is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] | None = None

    def __len__(self) -> int:
        return len(self._read())

    def __getitem__(self, place: Any) -> Any:
        return self._read()[place]

    def _read(self) -> list[str]:
        if self._lines is None:
            text = self._path.read_text(encoding="utf-8", errors="surrogateescape")
            self._lines = text.split("\n")[:-1]
        return self._lines


def import_pyarrow(path: Path) -> tuple[Any, Any]:
    """Return (pyarrow, pyarrow.parquet); ValueError with the way out where they are missing."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(
            f"{path}: Parquet files need pyarrow, which is not installed: pip install pyarrow "
            "(or write --format npy)"
        ) from None

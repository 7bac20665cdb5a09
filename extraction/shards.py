"""Writes the shards of an extracted folder, each whole or not at all, and finds those to be done.

For extraction/extract.py; data/extracted.py reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.extracted import (
    ARRAYS,
    BAD,
    FACTS,
    KEY,
    NAMES,
    Bad,
    Format,
    Shard,
    bad_images,
    shard_facts,
    shard_path,
    uncertainty_column,
)
from utils.files import Json, atomic_file, atomic_path, remove, remove_leftovers, require_folder
from utils.tables import require_pyarrow, write_csv


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
        """Return where a shard lies."""
        return shard_path(self.folder, number, self.form)

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
        count = 0

        def rows() -> Iterator[Bad]:
            nonlocal count
            for number in range(len(self)):
                bad = bad_images(self.path(number))
                count += len(bad)
                yield from bad

        with atomic_file(self.folder / BAD, "w") as file:
            write_csv(file, chain([Bad._fields], rows()))
        remove_leftovers(self.path(0).parent)
        return count


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
    count = len(rows)
    return Shard(
        rows,
        np.zeros(count, np.int64),
        np.full((count, size), np.nan, dtype),
        np.full((count, columns), np.nan, np.float32),
        np.zeros(count, np.bool_),
        [""] * count,
    )

"""Read what extraction/extract.py wrote: embeddings and uncertainties of every image of a source.

For whoever works on them; `evaluation.sets.stored` evaluates them as labelled faces.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.sets._extracted_files import (
    ABOUT,
    ARRAYS,
    Bad,
    Shard,
    bad_images,
    read_shard,
    shard_facts,
    shard_path,
)
from evaluation.sets.features import Embeddings

__all__ = ["Bad", "Extracted", "Shard", "open_extracted"]

log = logging.getLogger("faceuq")


class Extracted:
    """A complete extracted folder; iterating gives its shards in the order of the source.

    `.npy` shards are memory-mapped: what is not touched costs nothing. A Parquet shard is read
    whole. Nothing is kept between calls.

    Args:
        path: the folder.

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
        self.num_bad = self._checked()

    def __len__(self) -> int:
        return int(self.about["images"])

    def __iter__(self) -> Iterator[Shard]:
        return (self.shard(number) for number in range(self.num_shards))

    def shard(self, number: int) -> Shard:
        """Return shard `number`, with rows from `number * shard_images` on."""
        return read_shard(self._path(number), self.columns)

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> Shard:
        """Return any rows in the order given, in memory; each shard is opened once.

        Raises:
            IndexError: a row that the source does not have.
        """
        wanted = np.asarray(rows, np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if outside.size:
            raise IndexError(f"{self.path}: row {outside[0]} of {len(self)}")
        number, place = np.divmod(wanted, self.shard_images)
        order = np.argsort(number, kind="stable")
        parts = []
        for one in np.unique(number).tolist() or [0]:
            parts.append(self.shard(one).take(place[number == one]))
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
        count = len(self) - self.num_bad
        if self.num_bad:
            log.warning(
                "%s: %d of %d images have no embedding and are left out",
                self.path,
                self.num_bad,
                len(self),
            )
        mu = np.empty((count, self.about["embedding_size"]), np.float32)
        sigma_sq = np.empty((count, len(self.columns)), np.float32)
        identity = np.empty(count, np.int64)
        names: list[str] = []
        start = 0
        for shard in self:
            kept = np.flatnonzero(shard.ok)
            place = slice(start, start + len(kept))
            mu[place], sigma_sq[place] = shard.embedding[kept], shard.uncertainty[kept]
            identity[place] = shard.label[kept]
            names += [shard.name[row] for row in kept.tolist()]
            start += len(kept)
        try:
            return Embeddings(mu, sigma_sq, identity, np.array(names, np.str_))
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error

    def _path(self, number: int) -> Path:
        return shard_path(self.path, number, self.about["format"])

    def _checked(self) -> int:
        """Count bad images; ValueError where shards are not there, damaged or of another run."""
        missing, bad, settings = [], 0, set()
        for number in range(self.num_shards):
            facts = shard_facts(self._path(number))
            if facts is None:
                missing.append(number)
                continue
            bad += facts["bad"]
            settings.add(facts["settings"])
        if missing:
            raise ValueError(
                f"{self.path} is incomplete: {len(missing)} of {self.num_shards} shards are "
                f"missing, the first is {missing[0]}; give the command of extraction/extract.py "
                "again, which makes those alone"
            )
        if len(settings) > 1:
            raise ValueError(
                f"{self.path}: its shards were made with {len(settings)} different settings; give "
                "the command of extraction/extract.py again"
            )
        return bad


def open_extracted(path: str | Path) -> Extracted:
    """Open a folder that extraction/extract.py wrote; see `Extracted`."""
    return Extracted(path)


def _read_about(folder: Path) -> dict[str, Any]:
    file = folder / ABOUT
    if not file.is_file():
        raise ValueError(f"{folder} was not written by extraction/extract.py: it has no {ABOUT}")
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        needed = ("columns", "embedding_size", "format", "images", "shard_images")
        missing = [name for name in needed if name not in about]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error
    if missing:
        raise ValueError(f"{file} does not say {', '.join(missing)}")
    return about


def _joined(parts: Sequence[Shard]) -> Shard:
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS}
    return Shard(**arrays, name=[name for part in parts for name in part.name])

"""Scores that another tool gave the same images, through the same evaluation.

Reads `.npz` with arrays `key` and `quality` (or `uncertainty`), or `.csv` with two columns.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from estimators.base import Batch, Estimate
from evaluation.sets.features import array_names, read_arrays
from models.frozen import FrozenBackbone

__all__ = ["FromFile"]

Orientation = Literal["quality", "uncertainty"]
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)


class FromFile:
    """Embeddings of a backbone with stored scores beside them.

    Args:
        path: `.npz` (arrays `key` and `quality` or `uncertainty`) or `.csv` (name, score; a first
            line whose second field is no number is a heading).
        orientation: of the stored scores: "quality" (larger = better) or "uncertainty"; None goes
            by the name of the array or the heading, and takes anything else as a quality.
        frozen: gives the embeddings; None for `uncertainty_of` alone.

    Raises:
        ValueError: no such file, a score that is no number, a name that occurs twice, or an
            orientation that contradicts the name in the file.
    """

    name = "from_file"

    def __init__(
        self,
        *,
        path: str,
        orientation: Orientation | None = None,
        frozen: FrozenBackbone | None = None,
    ) -> None:
        if orientation not in (None, *ORIENTATIONS):
            raise ValueError(f"orientation = {orientation!r}: must be quality or uncertainty")
        scores, named = _read(Path(path))
        if orientation and named and orientation != named:
            raise ValueError(
                f"{path}: orientation = {orientation!r}, but the file calls its scores {named!r}"
            )
        sign = 1.0 if (orientation or named) == "uncertainty" else -1.0
        self.path = path
        self.frozen = frozen
        self.scores = {name: sign * score for name, score in scores.items()}

    def uncertainty_of(self, names: Iterable[str | int]) -> NDArray[np.float32]:
        """(N,) uncertainties in the order of the names.

        Raises:
            ValueError: names without a score; the message has their number and the first one.
        """
        wanted = [str(name) for name in names]
        missing = [name for name in wanted if name not in self.scores]
        if missing:
            raise ValueError(
                f"{self.path}: no score for {len(missing)} of {len(wanted)} images, "
                f"the first is {missing[0]!r} (the file has such as {next(iter(self.scores))!r})"
            )
        return np.array([self.scores[name] for name in wanted], np.float32)

    def check_names(self, names: Sequence[str]) -> None:
        """Refuse names without a score, as `uncertainty_of` does."""
        self.uncertainty_of(names)

    def __call__(self, batch: Batch) -> Estimate:
        """Estimate for a batch of a set, by its images' names or else by their row numbers."""
        if self.frozen is None:
            raise ValueError("from_file needs a backbone for the embeddings")
        names = batch.rows if batch.names is None else batch.names
        if names is None:
            raise ValueError("from_file scores the images of a set, and these have no names")
        uncertainty = self.uncertainty_of(names)
        return Estimate(batch.output(self.frozen).embedding.cpu().numpy(), uncertainty[:, None])


Rows = tuple[list[tuple[str, float]], str]


def _read(path: Path) -> tuple[dict[str, float], Orientation | None]:
    """Return the scores, and their orientation where the file says it."""
    if not path.is_file():
        raise ValueError(f"no score file {path}")
    rows, heading = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    found: dict[str, float] = {}
    for name, score in rows:
        if name in found:
            raise ValueError(f"{path}: two scores for {name!r}")
        if not np.isfinite(score):
            raise ValueError(f"{path}: the score of {name!r} is {score}")
        found[name] = score
    if not found:
        raise ValueError(f"{path}: no scores in it")
    named = [one for one in ORIENTATIONS if one == heading.strip().lower()]
    return found, named[0] if named else None


def _read_npz(path: Path) -> Rows:
    try:
        heading = "uncertainty" if "uncertainty" in array_names(path) else "quality"
        arrays = read_arrays(path, ("key", heading))
        keys, scores = arrays["key"].ravel(), arrays[heading].astype(np.float64).ravel()
        if len(keys) != len(scores):
            raise ValueError(f"{len(keys)} keys for {len(scores)} scores")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return [(str(key), float(score)) for key, score in zip(keys, scores, strict=True)], heading


def _read_csv(path: Path) -> Rows:
    rows: list[tuple[str, float]] = []
    heading = ""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, fields in enumerate(csv.reader(file), start=1):
            if not fields:
                continue
            try:
                rows.append((fields[0].strip(), float(fields[1])))
            except (ValueError, IndexError) as error:
                if line == 1 and len(fields) > 1:
                    heading = fields[1]
                    continue
                raise ValueError(
                    f"{path}, line {line}: expected a name and a number, got {fields}"
                ) from error
    return rows, heading

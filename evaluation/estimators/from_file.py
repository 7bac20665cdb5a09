"""Scores that another tool gave the same images, through the same evaluation.

Reads `.npz` with arrays `key` and `quality`, or `.csv` with two columns (name, quality).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.estimate import Estimate
from evaluation.features import read_arrays
from models.frozen import FrozenBackbone

__all__ = ["FromFile"]


class FromFile:
    """Embeddings of a backbone with stored scores beside them.

    Args:
        path: `.npz` (arrays `key`, `quality`) or `.csv` (name, quality; a first line whose second
            field is no number is a heading).
        orientation: of the stored scores: "quality" (larger = better) or "uncertainty".
        frozen: gives the embeddings; None for `uncertainty_of` alone.

    Raises:
        ValueError: no such file, a score that is no number, or a name that occurs twice.
    """

    name = "from_file"
    reads_rows = True

    def __init__(
        self,
        *,
        path: str,
        orientation: Literal["quality", "uncertainty"] = "quality",
        frozen: FrozenBackbone | None = None,
    ) -> None:
        if orientation not in ("quality", "uncertainty"):
            raise ValueError(f"orientation = {orientation!r}: must be quality or uncertainty")
        sign = -1.0 if orientation == "quality" else 1.0
        self.path = path
        self.frozen = frozen
        self.scores = {name: sign * score for name, score in _read(Path(path)).items()}

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
                f"the first is {missing[0]!r}"
            )
        return np.array([self.scores[name] for name in wanted], np.float32)

    def __call__(self, images: NDArray[np.uint8], start: int = 0) -> Estimate:
        """Estimate for (B, 112, 112, 3) RGB images whose names are the row numbers from `start`."""
        if self.frozen is None:
            raise ValueError("from_file needs a backbone for the embeddings")
        uncertainty = self.uncertainty_of(range(start, start + len(images)))
        output = self.frozen(torch.from_numpy(np.ascontiguousarray(images)))
        return Estimate(output.embedding.cpu().numpy(), uncertainty[:, None])


def _read(path: Path) -> dict[str, float]:
    if not path.is_file():
        raise ValueError(f"no score file {path}")
    rows = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    found: dict[str, float] = {}
    for name, score in rows:
        if name in found:
            raise ValueError(f"{path}: two scores for {name!r}")
        if not np.isfinite(score):
            raise ValueError(f"{path}: the score of {name!r} is {score}")
        found[name] = score
    if not found:
        raise ValueError(f"{path}: no scores in it")
    return found


def _read_npz(path: Path) -> list[tuple[str, float]]:
    try:
        arrays = read_arrays(path, ("key", "quality"))
        keys, scores = arrays["key"].ravel(), arrays["quality"].astype(np.float64).ravel()
        if len(keys) != len(scores):
            raise ValueError(f"{len(keys)} keys for {len(scores)} scores")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return [(str(key), float(score)) for key, score in zip(keys, scores, strict=True)]


def _read_csv(path: Path) -> list[tuple[str, float]]:
    rows: list[tuple[str, float]] = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for line, fields in enumerate(csv.reader(file), start=1):
            if not fields:
                continue
            try:
                rows.append((fields[0].strip(), float(fields[1])))
            except (ValueError, IndexError) as error:
                if line == 1 and len(fields) > 1:
                    continue
                raise ValueError(
                    f"{path}, line {line}: expected a name and a number, got {fields}"
                ) from error
    return rows

"""Scores that another tool gave the same images, through the same evaluation.

Reads `.npz` or `.parquet` with `key` and `quality` (or `uncertainty`), or `.csv` with two columns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from estimators.base import Batch, Estimate
from utils.files import naming
from utils.tables import Table, assess_failures, exact, read_table

if TYPE_CHECKING:
    from models.frozen import FrozenBackbone

__all__ = ["FromFile"]

log = logging.getLogger("faceuq")

Orientation = Literal["quality", "uncertainty"]
IMAGES = ("key", "image", "path", "image_path", "filename", "file", "name")  # headings
ORIENTATIONS: tuple[Orientation, ...] = get_args(Orientation)


class FromFile:
    """Embeddings of a backbone with stored scores beside them.

    Args:
        path: `.npz` or `.parquet` (`key` and `quality` or `uncertainty`), or text (`.csv`, `.tsv`,
            `.txt`; comma, semicolon, tab or blanks): image and score, or columns with a heading.
            A first line whose second field is not a number is a heading.
        orientation: of the stored scores: "quality" (larger = better) or "uncertainty"; None goes
            by the name of the array or the heading, and takes anything else as a quality.
        column: name of the scores' column, where the file has several; None takes `quality` or
            `uncertainty`, or else the only column that is not the images'.
        frozen: gives the embeddings; None for `uncertainty_of` alone.

    Raises:
        ValueError: no such file, a score that is not a number, a name that occurs twice, or an
            orientation that contradicts the name in the file.
    """

    name = "from_file"

    def __init__(
        self,
        *,
        path: str,
        orientation: Orientation | None = None,
        column: str | None = None,
        frozen: FrozenBackbone | None = None,
    ) -> None:
        if orientation not in (None, *ORIENTATIONS):
            raise ValueError(f"orientation = {orientation!r}: must be quality or uncertainty")
        scores, named = _read(Path(path), column)
        if orientation and named and orientation != named:
            raise ValueError(
                f"{path}: orientation = {orientation!r}, but the file calls its scores {named!r}"
            )
        kind: Orientation = orientation or named or "quality"
        self.path = path
        self.frozen = frozen
        self.scores = _uncertainties(path, scores, kind)

    def uncertainty_of(self, names: Iterable[str | int]) -> NDArray[np.float32]:
        """(N,) uncertainties in the order of the names.

        Raises:
            ValueError: names without a score; the message has their number and the first one.
        """
        keys = [str(name) for name in names]
        missing = [name for name in keys if name not in self.scores]
        if missing:
            raise ValueError(
                f"{self.path}: no score for {len(missing)} of {len(keys)} images, "
                f"the first is {missing[0]!r} (the file has such as {next(iter(self.scores))!r})"
            )
        return np.array([self.scores[name] for name in keys], np.float32)

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


def _uncertainties(path: str, scores: dict[str, float], kind: Orientation) -> dict[str, float]:
    """Turn scores into uncertainties that differ as float32 wherever they differ at all."""
    values = np.array(list(scores.values()), np.float64)
    if (largest := np.abs(values).max()) > np.finfo(np.float32).max:
        raise ValueError(f"{path}: scores reach {largest:g}, more than float32 holds")
    failures = assess_failures([values], kind)
    if failures:
        log.warning("%s: %s", path, failures)
    values = values if kind == "uncertainty" else -values
    if exact(values).dtype == np.float64:
        centre = float(np.median(values))
        log.warning("%s: scores are too close together for float32: %r is taken off", path, centre)
        values -= centre
    return dict(zip(scores, values.tolist(), strict=True))


def _read(path: Path, column: str | None) -> tuple[dict[str, float], Orientation | None]:
    """Return the scores, and their orientation where the file says it."""
    with naming(path):
        table = read_table(path, "score file", is_heading=_is_heading)
        name, score = _columns(table, column)
        scores: dict[str, float] = {}
        for chunk in table.chunks((name, score)):
            names = chunk[name].text().to_pylist()
            values = chunk[score].numbers(np.float64).tolist()
            for row, (key, value) in enumerate(zip(names, values, strict=True)):
                if key in scores:
                    raise ValueError(f"{chunk[name].where(row)}: two scores for {key!r}")
                scores[key] = value
    if not scores:
        raise ValueError(f"{path}: no scores in it")
    heading = score.lower()
    return scores, next((kind for kind in ORIENTATIONS if kind == heading), None)


def _columns(table: Table, column: str | None) -> tuple[str, str]:
    """The columns of images and scores, by their names, or the two of a file that has only two."""
    by_name = {name.lower(): name for name in table.columns}
    has = ", ".join(table.columns)
    if len(table.columns) < 2:
        raise ValueError(f"expected a name and a number in each line, got {has!r}")
    if column is not None and column.lower() not in by_name:
        raise ValueError(f"no column {column!r} (it has: {has})")
    named = ORIENTATIONS[::-1] if column is None else (column.lower(),)
    score = next((by_name[name] for name in named if name in by_name), None)
    image = next((by_name[name] for name in IMAGES if name in by_name), None)
    if image is None:
        if table.path.suffix.lower() in (".npz", ".parquet"):
            hint = ": stored embeddings go into --features" if "mu" in by_name else ""
            raise ValueError(f"no array key (it has: {has}){hint}")
        image = next((name for name in table.columns if name != score), table.columns[0])
    others = [name for name in table.columns if name != image and name]
    if score is None and len(others) != 1:
        raise ValueError(
            f"which column has the scores? Say column=NAME: one of {', '.join(others)}"
        )
    return image, score or others[0]


def _is_heading(fields: Sequence[str]) -> bool:
    try:
        float(fields[1])
    except (ValueError, IndexError):
        return len(fields) > 1
    return False

"""Score files: comparisons and qualities from any tool, as CSV, NPZ or Parquet, read and written.

A column's name says what it holds and which direction is better; docs/formats.md has the list.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons
from evaluation.sets._score_build import ROUNDING, build, compact, first_unequal, gather
from evaluation.sets._score_columns import Chosen, choose
from evaluation.sets._score_formats import open_source, write_columns

__all__ = ["ScoreFile", "load_scores", "read_scores", "write_scores"]


@dataclass(frozen=True)
class ScoreFile:
    """What was read from a score file, and how.

    Attributes:
        path: of the file.
        comparisons: what is in it.
        columns: which ones were read as what.
    """

    path: Path
    comparisons: Comparisons
    columns: Chosen

    def describe(self) -> str:
        """Say in one line what was read and in which direction each column was taken."""
        found, read = self.comparisons, self.columns
        mated = int(np.count_nonzero(found.mated))
        alike = "larger = more alike" if read.score_sign > 0 else "smaller = more alike"
        better = "larger = less reliable"
        if read.reliability_sign < 0:
            better = "larger = more reliable (uncertainty = -quality)"
        known = [*read.images, *read.identities]
        lines = [
            f"{self.path}: {mated} mated and {found.non_mated_total} non-mated comparisons",
            f"{read.score}: {alike}",
            f"{' and '.join(read.reliability)}: {better}",
            f"names in {', '.join(known)}" if known else "images and people not named",
        ]
        if found.unlisted:
            lines.append(f"non-mated scores listed from {found.listed_from:.6g} up")
        if read.ignored:
            lines.append(f"not read: {', '.join(read.ignored)}")
        return "; ".join(lines)


def read_scores(path: str | Path) -> Comparisons:
    """Read a score file; see `load_scores`."""
    return load_scores(path).comparisons


def load_scores(path: str | Path) -> ScoreFile:
    """Read comparisons, labels and uncertainties that any tool wrote.

    Columns (in any order and case; further ones are not read): `score` or `similarity` (larger =
    more alike) or `distance` (smaller = more alike, its sign is turned); `mated` (or `issame`,
    `same`, `genuine`, `label`), 1 or 0; `uncertainty_a` and `uncertainty_b` of the two images, or
    `quality_a` and `quality_b`, whose sign is turned, or one `uncertainty` or `quality` for each
    comparison; optionally `image_a` and `image_b`, `identity_a` and `identity_b`, names or whole
    numbers.

    Numbers are kept as float32. Nothing in the file is run.

    Raises:
        ValueError: no such file or no such kind of file, missing or doubled columns, values that
            are no finite numbers or no labels, an image with two uncertainties or two identities,
            a label that contradicts the identities, or comparisons of one class only. The message
            names the file, the line or row, and the value.
    """
    path = Path(path)
    try:
        with open_source(path) as source:
            chosen = choose(source.names)
            table = gather(source, chosen)
            extras = source.extras
        return ScoreFile(path, build(path.stem, table, chosen, extras), chosen)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if str(path) in message else f"{path}: {message}") from error


def write_scores(path: str | Path, comparisons: Comparisons) -> None:
    """Write a file that `read_scores` and other tools read.

    Columns: score, mated, uncertainty_a and uncertainty_b (or one uncertainty, where comparisons
    have one each), image_a and image_b, identity_a and identity_b where they are known.

    Args:
        path: ends in .csv, .npz or .parquet; its folder is made.
        comparisons: what to write.

    Raises:
        ValueError: another ending, pyarrow missing, an image whose rows differ in uncertainty, or
            a CSV of comparisons that are not all listed.
    """
    path, found = Path(path), comparisons
    first, second = found.pairs.T
    columns: dict[str, NDArray[Any]] = {"score": found.scores, "mated": found.mated.astype(np.int8)}
    if np.array_equal(first, second):
        columns["uncertainty"] = found.uncertainty[first]
    else:
        columns["uncertainty_a"] = found.uncertainty[first]
        columns["uncertainty_b"] = found.uncertainty[second]
    for kind in ("image", "identity"):
        ids = getattr(found, kind)
        if ids is not None:
            columns[f"{kind}_a"], columns[f"{kind}_b"] = ids[first], ids[second]
    if found.image is not None:
        row = first_unequal(compact(found.image)[1], found.uncertainty, ROUNDING)
        if row is not None:
            raise ValueError(
                f"{path}: image {found.image[row]} has another uncertainty in each of its rows (a "
                "sampled estimate?), and a score file has one per image: store mu, sigma_sq and "
                "issame as .npz instead"
            )
    extras = {"unlisted": found.unlisted, "listed_from": found.listed_from}
    write_columns(path, columns, extras if found.unlisted else {})

"""Comparisons from something stored, whichever of the four kinds it is.

Features (mu, sigma_sq, issame), embeddings of labelled images (mu, sigma_sq, identity), a folder of
extraction/extract.py, or a score file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.extracted import open_extracted
from data.features import Embeddings, Features, equal_rows
from data.labelled_pairs import CAP
from evaluation.metrics.comparisons import (
    Comparisons,
    Uncertainty,
    cosine_of_pairs,
    image_uncertainties,
    with_people,
)
from evaluation.metrics.thresholds import Caution
from evaluation.sets.labelled import NonMated, labelled_comparisons
from evaluation.sets.score_files import read_scores
from utils.arrays import npz_names
from utils.files import check_archive, naming
from utils.tables import SUFFIXES


class Labelled(NamedTuple):
    """Labelled images, each of their uncertainties, and what is missing."""

    embeddings: Embeddings
    uncertainties: list[Uncertainty]
    notes: tuple[Caution, ...]


@dataclass(frozen=True)
class StoredSet:
    """A stored file or folder, as `evaluation.run.evaluate` takes it; see `open_stored`."""

    path: Path
    non_mated: NonMated
    cap: int | None
    seed: int

    @property
    def name(self) -> str:
        """Shown in messages and reports."""
        return self.path.stem

    @cached_property
    def features(self) -> Features | None:
        """Pairs, where the file has them; None for any other kind."""
        return Features.load(self.path) if _kind(self.path) == "pairs" else None

    def image_names(self) -> list[str]:
        """(M,) what files of scores call its images: their names, or else row numbers.

        Raises:
            ValueError: a score file, which has comparisons and no images of its own.
        """
        if self.features is not None:
            return [*map(str, range(len(self.features.mu)))]
        if _kind(self.path) == "scores":
            raise ValueError(f"{self.path} holds no embeddings, so a score per image does not go")
        stored = self.labelled().embeddings
        return [*map(str, range(len(stored.mu)) if stored.name is None else stored.name.tolist())]

    def comparisons(
        self, sigma_sizes: Sequence[int] | None = None
    ) -> list[tuple[str, Comparisons]]:
        """Score what is stored.

        Args:
            sigma_sizes: columns of each uncertainty in sigma_sq.

        Returns:
            (label, comparisons) of each uncertainty; the label is "" when there is only one.

        Raises:
            ValueError: none of the kinds, or unsound content; the message names the file.
        """
        if self.features is not None:
            return comparisons_of(self.features, self.name, sigma_sizes)
        if _kind(self.path) == "scores":
            if sigma_sizes is not None:
                raise ValueError(
                    f"{self.path}: a score file has no sigma_sq for sigma_sizes to divide"
                )
            return [("", read_scores(self.path))]
        stored, uncertainties, notes = self.labelled(sigma_sizes)
        first = labelled_comparisons(
            stored.mu,
            stored.identity,
            uncertainties[0].values,
            non_mated=self.non_mated,
            cap=self.cap,
            seed=self.seed,
            name=self.name,
        )
        if stored.name is not None:
            first = replace(first, notes=first.notes + notes, name_of=stored.name.__getitem__)
        return [(each.label, first.with_uncertainty(each.values)) for each in uncertainties]

    def labelled(self, sigma_sizes: Sequence[int] | None = None) -> Labelled:
        """Read labelled images, of a file or of an extracted folder; `sigma_sizes` as above.

        Raises:
            ValueError: another kind, or unsound content; the message names the file.
        """
        path = self.path
        if _kind(path) != "labelled":
            raise ValueError(f"{path} has comparisons, not labelled images (mu and identity)")
        if not path.is_dir():
            stored = Embeddings.load(path)
            with naming(path):
                return Labelled(stored, image_uncertainties(stored.sigma_sq, sigma_sizes), ())
        if sigma_sizes is not None:
            raise ValueError(f"{path}: its columns are one method each; sigma_sizes does not apply")
        extracted = open_extracted(path)
        stored = extracted.labelled()
        labels = extracted.columns if len(extracted.columns) > 1 else ("",)
        facts = {"count": extracted.num_bad, "total": len(extracted)}
        note = Caution("without_embedding", {"file": path.name, **facts})
        columns = [
            Uncertainty(label, stored.sigma_sq[:, place]) for place, label in enumerate(labels)
        ]
        return Labelled(stored, columns, (note,) if extracted.num_bad else ())


def open_stored(
    path: str | Path,
    *,
    non_mated: NonMated = 1_000_000,
    cap: int | None = CAP,
    seed: int = 0,
) -> StoredSet:
    """Open stored arrays or scores to evaluate; they are read when they are first needed.

    Args:
        path: `.npz` with mu, sigma_sq and issame (pairs) or identity (labelled images; if it has
            both, the pairs are used), a folder that extraction/extract.py wrote (labelled images
            too, in memory at once), or a score file (.npz, .csv, .parquet).
        non_mated: for labelled images, as in `labelled_comparisons`.
        cap: the same.
        seed: the same.
    """
    return StoredSet(Path(path), non_mated, cap, seed)


def comparisons_of(
    features: Features, name: str = "features", sigma_sizes: Sequence[int] | None = None
) -> list[tuple[str, Comparisons]]:
    """Turn stored arrays into comparisons, one for each uncertainty.

    Rows with equal embeddings are one image: the rows of a `.bin` set repeat images. Who is who
    follows from the mated pairs (`with_people`).

    Returns:
        (label, comparisons) of each uncertainty; the label is "" when there is only one, else the
        columns it comes from.

    Raises:
        ValueError: sizes that do not add up to the columns.
    """
    with naming(name):
        uncertainties = image_uncertainties(features.sigma_sq, sigma_sizes)
    scores = cosine_of_pairs(features.mu)
    pairs = np.arange(len(features.mu), dtype=np.int32).reshape(-1, 2)
    image = equal_rows(features.mu)
    first = with_people(
        Comparisons(name, scores, features.issame, pairs, uncertainties[0].values, image=image)
    )
    return [(each.label, first.with_uncertainty(each.values)) for each in uncertainties]


def _kind(path: Path) -> str:
    if path.is_dir():
        return "labelled"
    if not path.is_file():
        raise ValueError(f"no features or score file {path}")
    if path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".npz":
        return "scores"
    if path.suffix.lower() not in SUFFIXES and not check_archive(path):
        raise ValueError(
            f"{path}: neither stored arrays (.npz) nor a score file ({', '.join(SUFFIXES)}) nor a "
            "folder that extraction/extract.py wrote; photos need a --model and a --target"
        )
    names = npz_names(path)
    if "mu" not in names:
        return "scores"
    if "sigma_sq" not in names:
        raise ValueError(f"{path}: no array sigma_sq (it has: {', '.join(names)})")
    for label, kind in (("issame", "pairs"), ("identity", "labelled")):
        if label in names:
            return kind
    raise ValueError(
        f"{path}: mu and sigma_sq need issame (two rows are a pair) or identity (one per row) with "
        f"them; it has: {', '.join(names)}"
    )

"""The kinds of evaluation sets: `.bin` pairs, faces with identities, and lists of pairs of files.

Public through evaluation.sets.open_set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.faces import Faces
from data.images import SIZE
from data.verification import VerificationSet
from estimators.base import harmonic_mean
from evaluation.metrics.comparisons import Comparisons, with_people
from evaluation.metrics.scores import cosine_of_pairs
from evaluation.sets.features import Features
from evaluation.sets.labelled import NonMated, labelled_comparisons, scores_of


class VerificationPairs:
    """A `.bin` set: rows 2i and 2i + 1 are pair i, and image names are the row numbers.

    Args:
        pairs: the set.

    Attributes:
        name: of the set.
        images: this.
        pairs: the set.
    """

    def __init__(self, pairs: VerificationSet) -> None:
        self.pairs, self.name = pairs, pairs.name

    @property
    def images(self) -> VerificationPairs:
        """All 2N images."""
        return self

    def __len__(self) -> int:
        return len(self.pairs.images)

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (n, 112, 112, 3) RGB."""
        return self.pairs.decode(start, stop)

    def image_name(self, row: int) -> str:
        """Return the row number."""
        return str(row)

    def comparisons(self, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> Comparisons:
        """Score the N pairs; rows with one encoded image are one image. See `EvaluationSet`."""
        try:
            checked = Features(mu, sigma_sq, self.pairs.mated)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        numbers: dict[bytes, int] = {}
        contents = (
            image if isinstance(image, bytes) else image.tobytes() for image in self.pairs.images
        )
        found = Comparisons(
            self.name,
            cosine_of_pairs(checked.mu),
            checked.issame,
            np.arange(len(self), dtype=np.int32).reshape(-1, 2),
            _one_column(checked.sigma_sq),
            image=np.array([numbers.setdefault(one, len(numbers)) for one in contents], np.int64),
        )
        return with_people(found)


class FaceImages:
    """The images of any `Faces`, under short names.

    Args:
        faces: the images.
        root: folder that is left out of their names.
    """

    def __init__(self, faces: Faces, root: Path | None = None) -> None:
        self.faces = faces
        self._prefix = "" if root is None else f"{root}/"

    def __len__(self) -> int:
        return len(self.faces)

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (n, 112, 112, 3) RGB; ValueError names one that is damaged."""
        rows = range(start, min(stop, len(self)))
        batch = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
        for place, row in enumerate(rows):
            batch[place] = self.faces.read(row)
        return batch

    def image_name(self, row: int) -> str:
        """Return the path below the root, or the key in a pack."""
        name = self.faces.name(row)
        _, is_packed, key = name.rpartition(": key ")
        return key if is_packed else name.removeprefix(self._prefix)


@dataclass(frozen=True)
class LabelledSet:
    """Faces with identities; the arguments are those of `labelled_comparisons`."""

    name: str
    images: FaceImages
    labels: NDArray[np.int64]
    non_mated: NonMated
    cap: int | None
    seed: int

    def comparisons(self, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> Comparisons:
        """Score mated against non-mated pairs; see `EvaluationSet`."""
        return labelled_comparisons(
            mu,
            self.labels,
            _one_column(sigma_sq),
            non_mated=self.non_mated,
            cap=self.cap,
            seed=self.seed,
            name=self.name,
        )


@dataclass(frozen=True)
class PairsSet:
    """A list of pairs of image files, each of which is decoded once.

    Attributes:
        name: of the list.
        images: the distinct files, in the order in which the list names them.
        pairs: (N, 2) their rows.
        mated: (N,) whether both show one person.
        identity: (M,) folder numbers where the list is LFW's; else None.
    """

    name: str
    images: FaceImages
    pairs: NDArray[np.int32]
    mated: NDArray[np.bool_]
    identity: NDArray[np.int64] | None

    def comparisons(self, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> Comparisons:
        """Score the pairs of the list; see `EvaluationSet`."""
        uncertainty = _one_column(sigma_sq)
        if not len(mu) == len(uncertainty) == len(self.images):
            raise ValueError(
                f"{self.name}: {len(mu)} embeddings and {len(uncertainty)} uncertainties for "
                f"{len(self.images)} images"
            )
        try:
            scores = scores_of(mu, self.pairs)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        image = np.arange(len(self.images), dtype=np.int64)
        found = Comparisons(
            self.name, scores, self.mated, self.pairs, uncertainty, self.identity, image
        )
        return with_people(found)


def _one_column(sigma_sq: NDArray[np.float32]) -> NDArray[np.float32]:
    sigma_sq = np.asarray(sigma_sq, np.float32)
    if sigma_sq.ndim == 1:
        return sigma_sq
    return sigma_sq[:, 0] if sigma_sq.shape[1] == 1 else harmonic_mean(sigma_sq)

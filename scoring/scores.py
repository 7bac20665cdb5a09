"""What a scorer answers with: rows of faces, the best shot, a fused template, a comparison.

NumPy alone; made by `Scorer`, read by whoever scores photos from Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from evaluation.face_score import FaceScore
from scoring.columns import flat_row

Answer = Literal["match", "no match", "cannot tell"]


@dataclass(frozen=True)
class Source:
    """Where an image came from.

    Attributes:
        file: path as given; "" for pixels that came without one.
        index: row of a pack or frame of a video; None for a photo.
    """

    file: str = ""
    index: int | None = None


@dataclass(frozen=True, eq=False)
class Scores(Sequence[FaceScore]):
    """The faces of some images, image by image, the largest face first.

    Every image has at least one row; see `FaceScore.status`. A sequence: `len`, indices, slices
    (tuples) and loops give `FaceScore`.

    Attributes:
        rows: the faces.
        sources: where each image came from, by `FaceScore.image`.
    """

    rows: tuple[FaceScore, ...]
    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> FaceScore: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[FaceScore, ...]: ...
    def __getitem__(self, place: int | slice) -> FaceScore | tuple[FaceScore, ...]:
        return self.rows[place]

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """(n,) raw, larger = less reliable; NaN where there is no face."""
        return np.array([row.uncertainty for row in self.rows], np.float32)

    @property
    def quality(self) -> NDArray[np.uint8]:
        """(n,) 0 to 100, 100 = best; 255 where it could not be computed."""
        return np.array([row.quality for row in self.rows], np.uint8)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        """(n, D), not normalised; NaN where there is no face, D = 0 without an embedding."""
        size = max(
            (len(row.embedding) for row in self.rows if row.embedding is not None), default=0
        )
        found = np.full((len(self.rows), size), np.nan, np.float32)
        for place, row in enumerate(self.rows):
            if row.embedding is not None:
                found[place] = row.embedding
        return found

    @property
    def largest(self) -> tuple[FaceScore, ...]:
        """The largest face of each image, or the row that says why it has none."""
        return tuple(row for row in self.rows if row.face <= 0)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return flat rows of plain values, as score_images writes them (docs/score_photos.md)."""
        at = self.sources
        return [flat_row(at[row.image].file, at[row.image].index, row) for row in self.rows]


@dataclass(frozen=True, eq=False)
class BestShot:
    """The most reliable of several pictures.

    Attributes:
        index: number of the picture, from 0.
        score: its largest face.
        scores: all faces of all pictures.
    """

    index: int
    score: FaceScore
    scores: Scores = field(repr=False)


@dataclass(frozen=True, eq=False)
class Template:
    """Several images of one person as one.

    Attributes:
        embedding: (D,) float32 of length 1.
        uncertainty: larger = less reliable; the posterior variance where the model gives variances,
            else the weighted mean of the images' uncertainties.
        count: images in it.
        weights: the rule they were weighed by; see `evaluation.sets.templates.fuse_templates`.
    """

    embedding: NDArray[np.float32] = field(repr=False)
    uncertainty: float
    count: int
    weights: str


@dataclass(frozen=True)
class ComparisonResult:
    """Whether two faces show one person, and how far that can be trusted.

    Attributes:
        score: cosine of the embeddings, larger = more alike.
        uncertainty: the larger one of the two faces.
        decision: None without calibration.
        p_false_non_match: probability that two faces of one person, of this uncertainty, score
            below the threshold; NaN without calibration.
    """

    score: float
    uncertainty: float
    decision: Answer | None
    p_false_non_match: float

"""IJB-B and IJB-C in insightface's layout: templates of photos and video frames, compared 1:1.

`open_ijb` reads the protocol; images are decoded and aligned when they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from data.ijb_files import find_paths, read_members, read_pairs
from estimators.base import harmonic_mean
from evaluation.metrics.comparisons import Comparisons, mls_scores, with_people
from evaluation.metrics.thresholds import FARS, TarAtFar, tar_at_far
from evaluation.sets.labelled import scores_of
from evaluation.sets.templates import (
    FUSIONS,
    Fusion,
    Score,
    Templates,
    Weights,
    fuse_templates,
)
from photos.align import LooseCrops


@dataclass(frozen=True)
class IjbSet:
    """A 1:1 protocol over templates; open it with `open_ijb`.

    Attributes:
        name: for tables and messages.
        images: the M images.
        template: (M,) template number of each image.
        media: (M,) number of the photo or video that an image is from.
        detector_score: (M,) how sure the face detector was.
        template_ids: (T,) template numbers, ascending; row r of `pairs` is template_ids[r].
        pairs: (N, 2) int32 rows of templates.
        mated: (N,) whether both templates show one person.
        weights: how `comparisons` fuses templates; one of `FUSIONS`.
        correlated: frames of one medium are correlated; see `fuse_templates`.
        score: "cosine", or "mls" for the mutual likelihood of the fused templates.
    """

    name: str
    images: LooseCrops
    template: NDArray[np.int64]
    media: NDArray[np.int64]
    detector_score: NDArray[np.float64]
    template_ids: NDArray[np.int64]
    pairs: NDArray[np.int32]
    mated: NDArray[np.bool_]
    weights: Fusion = "mean"
    correlated: bool = True
    score: Score = "cosine"

    def fuse(
        self,
        mu: NDArray[np.float32],
        sigma_sq: NDArray[np.float32],
        weights: Fusion | None = None,
    ) -> Templates:
        """Fuse the images of each template; see `fuse_templates`.

        Args:
            mu: (M, D) embeddings of `images`.
            sigma_sq: (M, c) uncertainties.
            weights: one of `FUSIONS`, by default those of the set. "detector" weighs by the
                detector's score, "norm_detector" by that times the length of the embedding, as
                insightface does by default.
        """
        if len(mu) != len(self.images):
            raise ValueError(f"{self.name}: {len(mu)} embeddings for {len(self.images)} images")
        weights = weights or self.weights
        named: Weights | NDArray[np.floating]
        if weights == "detector" or weights == "norm_detector":
            named = np.maximum(self.detector_score, 0)
            if weights == "norm_detector":
                named = named * np.linalg.norm(mu, axis=1)
        else:
            named = weights
        try:
            return fuse_templates(
                mu, sigma_sq, self.template, self.media, named, correlated=self.correlated
            )
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error

    def comparisons(
        self,
        mu: NDArray[np.float32],
        sigma_sq: NDArray[np.float32],
        weights: Fusion | None = None,
    ) -> Comparisons:
        """Score all pairs of the protocol; the rows ("images") of the result are templates.

        Its identities are those that mated pairs tell (`linked_people`), or None where a non-mated
        pair says otherwise.

        Args:
            mu: (M, D) embeddings of `images`.
            sigma_sq: (M, c) uncertainties, larger = less reliable.
            weights: one of `FUSIONS`, by default those of the set.

        Raises:
            ValueError: uncertainties that do not suit the weights or the score.
        """
        fused = self.fuse(mu, sigma_sq, weights)
        if self.score == "mls":
            scores = mls_scores(fused.mu, fused.sigma_sq, self.pairs)
        else:
            scores = scores_of(fused.mu, self.pairs)
        has_one = fused.sigma_sq.shape[1] == 1
        comparisons = Comparisons(
            self.name,
            scores,
            self.mated,
            self.pairs,
            fused.sigma_sq[:, 0] if has_one else harmonic_mean(fused.sigma_sq),
            image=np.arange(len(fused.ids)),
            name_of=lambda row: str(fused.ids[row]),
        )
        return with_people(comparisons)


def open_ijb(
    folder: str | Path,
    *,
    weights: Fusion = "mean",
    correlated: bool = True,
    score: Score = "cosine",
) -> IjbSet:
    """Open IJB-B, IJB-C or a set of one's own in insightface's layout.

    The folder holds `loose_crop/` with the images and `meta/` with three text files whose names
    begin with `ijbb`, `ijbc` or another prefix: `_face_tid_mid.txt` (image, template, medium),
    `_name_5pts_score.txt` (image, x and y of five landmarks, detector score; in the same order) and
    `_template_pair_label.txt` (template, template, 1 or 0). IJB-C's 15.7 million comparisons take
    some seconds.

    Args:
        folder: such as `IJB_release/IJBC`.
        weights: how to fuse the images of a template; one of `FUSIONS`.
        correlated: frames of one medium are correlated; see `fuse_templates`.
        score: "cosine" or "mls".

    Raises:
        ValueError: missing or contradictory files, a line that cannot be read, an option that does
            not exist.
    """
    if weights not in FUSIONS:
        raise ValueError(f"unknown weights {weights!r} (known: {', '.join(FUSIONS)})")
    if score not in get_args(Score):
        raise ValueError(f"unknown score {score!r} (known: {', '.join(get_args(Score))})")
    paths = find_paths(Path(folder))
    members = read_members(paths)
    ids = np.unique(members.template)
    pairs = read_pairs(paths.pairs, ids)
    return IjbSet(
        paths.prefix,
        LooseCrops(paths.images, members.names, members.landmarks),
        members.template,
        members.media,
        members.detector_score,
        ids,
        pairs.rows,
        pairs.mated,
        weights,
        correlated,
        score,
    )


def compare_fusions(
    protocol: IjbSet,
    mu: NDArray[np.float32],
    sigma_sq: NDArray[np.float32],
    fusions: Sequence[Fusion] | None = None,
    targets: Sequence[float] = FARS,
) -> dict[str, list[TarAtFar]]:
    """TAR at each FAR under several fusions of the same images.

    Args:
        protocol: the set.
        mu: (M, D) embeddings of its images.
        sigma_sq: (M, c) uncertainties.
        fusions: of `FUSIONS`; by default all that these uncertainties allow.
        targets: FMRs.

    Raises:
        ValueError: a fusion that was asked for is not possible.
    """
    chosen = possible_fusions(mu, sigma_sq) if fusions is None else fusions
    return {
        fusion: tar_at_far(
            protocol.comparisons(mu, sigma_sq, fusion).scores, protocol.mated, targets
        )
        for fusion in chosen
    }


def possible_fusions(mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> list[Fusion]:
    """Return the fusions that these values allow, the unweighted one first."""
    lengths = np.linalg.norm(mu, axis=1)
    has_norms = bool(np.ptp(lengths) > 1e-3 * lengths.mean())
    possible = {
        "mean": True,
        "inverse_variance": bool((sigma_sq > 0).all()) and sigma_sq.shape[1] in (1, mu.shape[1]),
        "quality": sigma_sq.shape[1] == 1 and bool(((sigma_sq >= 0) & (sigma_sq <= 1)).all()),
        "norm": has_norms,
        "detector": True,
        "norm_detector": has_norms,
    }
    return [fusion for fusion in FUSIONS if possible[fusion]]

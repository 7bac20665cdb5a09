"""Sets to evaluate on: which images they have, and which of them are compared.

`open_set` takes the name of a `.bin` file, rendered faces, faces with identities, a list of pairs,
or a folder in IJB's layout; see docs/evaluate.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.faces import FaceImages, Images, open_faces
from data.features import Features
from data.labelled_pairs import CAP, require_pairs
from data.pairs import open_pairs
from data.verification import VerificationSet, open_verification
from estimators.base import harmonic_mean
from evaluation.metrics.comparisons import Comparisons, cosine_of_pairs, notes_of, with_people
from evaluation.metrics.thresholds import Caution
from evaluation.sets.labelled import NonMated, labelled_comparisons, scores_of
from utils.config import require
from utils.files import naming

KINDS = ("synthetic:", "faces:", "pairs:", "ijb:")


class EvaluationSet(Protocol):
    """Images, and how they are compared once they are embedded."""

    @property
    def name(self) -> str:
        """Shown in messages and reports."""

    @property
    def images(self) -> Images:
        """Each image once, as far as the set tells; a `.bin` set repeats them."""

    def comparisons(self, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> Comparisons:
        """Compare.

        Args:
            mu: (M, D) embeddings of `images`, of any length but zero.
            sigma_sq: (M, c) uncertainties; several columns are joined by their harmonic mean.

        Raises:
            ValueError: another number of rows, NaN, or embeddings of length zero.
        """


@dataclass(frozen=True)
class VerificationPairs:
    """A `.bin` set: rows 2i and 2i + 1 are pair i, and image names are the row numbers."""

    images: VerificationSet

    @property
    def name(self) -> str:
        """Shown in messages and reports."""
        return self.images.name

    def comparisons(self, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> Comparisons:
        """Score the N pairs; rows with one encoded image are one image. See `EvaluationSet`."""
        with naming(self.name):
            checked = Features(mu, sigma_sq, self.images.mated)
        comparisons = Comparisons(
            self.name,
            cosine_of_pairs(checked.mu),
            checked.issame,
            np.arange(len(self.images), dtype=np.int32).reshape(-1, 2),
            _one_column(checked.sigma_sq),
            image=np.unique(self.images.first_rows(), return_inverse=True)[1],
        )
        return with_people(comparisons)


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
        comparisons = labelled_comparisons(
            mu,
            self.labels,
            _one_column(sigma_sq),
            non_mated=self.non_mated,
            cap=self.cap,
            seed=self.seed,
            name=self.name,
        )
        return replace(comparisons, name_of=self.images.image_name)


@dataclass(frozen=True)
class PairsSet:
    """A list of pairs of image files, each of which is decoded once.

    Attributes:
        name: of the list.
        images: the distinct files, in the order in which the list names them.
        pairs: (N, 2) their rows.
        mated: (N,) whether both show one person.
        identity: (M,) folder numbers where the list is LFW's; else None.
        notes: what the list has beside these pairs.
    """

    name: str
    images: FaceImages
    pairs: NDArray[np.int32]
    mated: NDArray[np.bool_]
    identity: NDArray[np.int64] | None
    notes: tuple[Caution, ...] = ()

    def comparisons(self, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]) -> Comparisons:
        """Score the pairs of the list; see `EvaluationSet`."""
        uncertainty = _one_column(sigma_sq)
        if not len(mu) == len(uncertainty) == len(self.images):
            raise ValueError(
                f"{self.name}: {len(mu)} embeddings and {len(uncertainty)} uncertainties for "
                f"{len(self.images)} images"
            )
        with naming(self.name):
            scores = scores_of(mu, self.pairs)
        image = np.arange(len(self.images), dtype=np.int64)
        comparisons = Comparisons(
            *(self.name, scores, self.mated, self.pairs, uncertainty, self.identity, image),
            notes=self.notes,
            name_of=self.images.image_name,
        )
        return with_people(comparisons)


def _one_column(sigma_sq: NDArray[np.float32]) -> NDArray[np.float32]:
    sigma_sq = np.asarray(sigma_sq, np.float32)
    if sigma_sq.ndim == 1:
        return sigma_sq
    return sigma_sq[:, 0] if sigma_sq.shape[1] == 1 else harmonic_mean(sigma_sq)


def open_set(
    target: str,
    dataset_path: str | Path | None = None,
    *,
    non_mated: NonMated = 1_000_000,
    cap: int | None = CAP,
    seed: int = 0,
) -> EvaluationSet:
    """Open the set that a command line names.

    Args:
        target: `lfw` (`<dataset_path>/lfw.bin`), `synthetic:pairs=600,seed=1`, `faces:PATH` (one
            folder per identity, a list file, a `.rec` pack, or `faces:synthetic:identities=...`),
            `pairs:FILE` (CSV `path_a,path_b,same`, or LFW's pairs.txt), `ijb:FOLDER`.
        dataset_path: folder of `.bin` files, and of the images of a pairs list (without it they are
            looked for beside the list).
        non_mated: for faces: how many non-mated pairs to draw, or "all".
        cap: for faces: mated pairs per identity at most; None or 0 for all.
        seed: for faces: of both draws.

    Raises:
        ValueError: no such set, an unknown kind, or one without pairs of both kinds.
    """
    require(isinstance(target, str), "target", target, "a text, such as 'lfw' or 'faces:PATH'")
    kind, colon, rest = target.partition(":")
    if not colon or kind == "synthetic":
        return VerificationPairs(open_verification(target, dataset_path))
    if kind == "faces":
        return _labelled(rest, non_mated, cap, seed)
    if kind == "pairs":
        return _pairs(Path(rest), dataset_path)
    if kind == "ijb":
        from evaluation.sets.ijb import open_ijb

        return open_ijb(rest)
    raise ValueError(
        f"unknown kind of set {target!r}: name a .bin file without its ending, or begin with one "
        f"of {', '.join(KINDS)}"
    )


def _labelled(source: str, non_mated: NonMated, cap: int | None, seed: int) -> LabelledSet:
    rendered = source.startswith("synthetic:")
    path = Path(source)
    if not rendered and not (source and path.exists()):
        raise ValueError(
            f"no faces at {source or '(nothing)'}: faces:PATH takes a folder with one folder per "
            "identity, a list file or a .rec pack"
        )
    if non_mated != "all" and non_mated < 1:
        raise ValueError(f"non_mated = {non_mated}: must be 1 or more, or all")
    faces = open_faces(source)
    name = source if rendered else (path.name if path.is_dir() else path.stem)
    with naming(source):
        require_pairs(faces.labels, cap)
    root = path if path.is_dir() else path.parent
    images = FaceImages(faces, None if rendered else root)
    return LabelledSet(name, images, faces.labels, non_mated, cap, seed)


def _pairs(path: Path, dataset_path: str | Path | None) -> PairsSet:
    root = path.parent if dataset_path is None else Path(dataset_path)
    listed = open_pairs(path, root)
    mated = listed.mated
    if mated.all() or not mated.any():
        kind = "non-mated" if mated.any() else "mated"
        raise ValueError(f"{path}: no {kind} pair among {len(mated)}; error rates need both kinds")
    images = FaceImages(listed.faces, root)
    notes = notes_of(path.name, listed.left_out)
    return PairsSet(path.stem, images, listed.rows, mated, listed.people, notes)

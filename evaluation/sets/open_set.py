"""Sets to evaluate on: which images they have, and which of them are compared.

`open_set` takes the name of a `.bin` file, rendered faces, faces with identities, a list of pairs,
or a folder in IJB's layout; see docs/evaluate.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data.faces import FileFaces, open_faces
from data.pairs import Pair, read_pairs
from data.verification import open_verification
from evaluation.metrics.comparisons import Comparisons
from evaluation.sets.kinds import FaceImages, LabelledSet, PairsSet, VerificationPairs
from evaluation.sets.labelled import NonMated, require_pairs

__all__ = [
    "EvaluationSet",
    "Images",
    "LabelledSet",
    "PairsSet",
    "VerificationPairs",
    "open_set",
]

KINDS = ("synthetic:", "faces:", "pairs:", "ijb:")


class Images(Protocol):
    """M images in a fixed order, decoded a few at a time."""

    def __len__(self) -> int:
        """Return M."""

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (n, 112, 112, 3) RGB; ValueError names one that is damaged."""

    def image_name(self, row: int) -> str:
        """What messages and score files call an image."""


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


def open_set(
    target: str,
    dataset_path: str | Path | None = None,
    *,
    non_mated: NonMated = 1_000_000,
    cap: int | None = None,
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
        cap: for faces: mated pairs per identity at most.
        seed: for faces: of both draws.

    Raises:
        ValueError: no such set, an unknown kind, or one without pairs of both kinds.
    """
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
    try:
        require_pairs(faces.labels, cap)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    root = path if path.is_dir() else path.parent
    images = FaceImages(faces, None if rendered else root)
    return LabelledSet(name, images, faces.labels, non_mated, cap, seed)


def _pairs(path: Path, dataset_path: str | Path | None) -> PairsSet:
    root = path.parent if dataset_path is None else Path(dataset_path)
    pairs = read_pairs(path, root)
    row_of: dict[Path, int] = {}
    rows = [
        [row_of.setdefault(one, len(row_of)) for one in (pair.first, pair.second)] for pair in pairs
    ]
    mated = np.array([pair.mated for pair in pairs], np.bool_)
    if mated.all() or not mated.any():
        kind = "non-mated" if mated.any() else "mated"
        raise ValueError(f"{path}: no {kind} pair among {len(mated)}; error rates need both kinds")
    _require_files(pairs, root)
    identity = _folder_numbers(row_of) if _is_lfw(path) else None
    faces = FileFaces(root, ((_below(one, root), 0) for one in row_of))
    return PairsSet(path.stem, FaceImages(faces, root), np.array(rows, np.int32), mated, identity)


def _require_files(pairs: list[Pair], root: Path) -> None:
    for pair in pairs:
        for one in (pair.first, pair.second):
            if not one.is_file():
                raise ValueError(
                    f"{pair.where}: no image {one}; paths start at {root}, another folder can be "
                    "named as dataset_path"
                )


def _is_lfw(path: Path) -> bool:
    """LFW's list begins with a line of numbers, and its folders are people."""
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    return all(part.isdigit() for part in first.split())


def _folder_numbers(files: dict[Path, int]) -> NDArray[np.int64]:
    numbers: dict[Path, int] = {}
    return np.array([numbers.setdefault(one.parent, len(numbers)) for one in files], np.int64)


def _below(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)

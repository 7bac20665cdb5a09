"""Comparisons from one stored file, whichever of the three kinds it is.

Features (mu, sigma_sq, issame), embeddings of labelled images (mu, sigma_sq, identity), or a score
file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluation.comparisons import Comparisons
from evaluation.features import Embeddings, Features, array_names
from evaluation.labelled import NonMated, labelled_comparisons
from evaluation.pipeline import comparisons_of
from evaluation.score_files import read_scores
from evaluation.scores import image_uncertainties

__all__ = ["load_comparisons"]


def load_comparisons(
    path: str | Path,
    *,
    sigma_sizes: Sequence[int] | None = None,
    non_mated: NonMated = 1_000_000,
    cap: int | None = None,
    seed: int = 0,
) -> list[tuple[str, Comparisons]]:
    """Read stored arrays or scores, one entry for each uncertainty in them.

    Args:
        path: `.npz` with mu, sigma_sq and issame (pairs) or identity (labelled images; where both
            are there, the pairs count), or a score file (.npz, .csv, .parquet).
        sigma_sizes: columns of each uncertainty in sigma_sq.
        non_mated: for labelled images, as in `labelled_comparisons`.
        cap: the same.
        seed: the same.

    Returns:
        (label, comparisons); the label is "" when there is only one.

    Raises:
        ValueError: none of these kinds, or unsound content; the message names the file.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "scores":
        if sigma_sizes is not None:
            raise ValueError(f"{path}: a score file has no sigma_sq for sigma_sizes to divide")
        return [("", read_scores(path))]
    if kind == "pairs":
        return comparisons_of(Features.load(path), path.stem, sigma_sizes)
    stored = Embeddings.load(path)
    try:
        uncertainties = image_uncertainties(stored.sigma_sq, sigma_sizes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    first = labelled_comparisons(
        stored.mu,
        stored.identity,
        uncertainties[0].values,
        non_mated=non_mated,
        cap=cap,
        seed=seed,
        name=path.stem,
    )
    return [(one.label, first.with_uncertainty(one.values)) for one in uncertainties]


def _kind(path: Path) -> str:
    if path.suffix.lower() in (".csv", ".parquet"):
        return "scores"
    if not path.is_file():
        raise ValueError(f"no features or score file {path}")
    try:
        names = array_names(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if "mu" in names and "sigma_sq" in names:
        for label, kind in (("issame", "pairs"), ("identity", "labelled")):
            if label in names:
                return kind
        raise ValueError(
            f"{path}: beside mu and sigma_sq there is neither issame (two rows are a pair) nor "
            f"identity (one per row); arrays there: {', '.join(names)}"
        )
    if "mu" in names:
        raise ValueError(f"{path}: no array sigma_sq (it has: {', '.join(names)})")
    return "scores"

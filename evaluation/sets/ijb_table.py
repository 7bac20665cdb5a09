"""TAR at FAR of an IJB set under several fusions side by side: does weighting help?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.tar_at_far import FARS, TarAtFar, tar_at_far
from evaluation.sets.ijb import FUSIONS, Fusion, IjbSet


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


def ijb_table(name: str, results: Mapping[str, Sequence[TarAtFar]]) -> str:
    """Lay the results of `compare_fusions` side by side, one block of lines for each FMR.

    Args:
        name: of the set.
        results: rows of each fusion, all for the same targets.
    """
    width = max(len("fusion"), *map(len, results))
    lines = [
        f"{name}: 1:1 verification of templates",
        f"{'FMR':<7} {'fusion':<{width}} {'TAR':>7} {'matches':>17} {'realised FMR':>28} "
        f"{'threshold':>10}",
    ]
    for rows in zip(*results.values(), strict=True):
        for fusion, row in zip(results, rows, strict=True):
            point = row.point
            matches = f"{row.matches} / {point.mated}"
            realised = f"{point.fmr:.3e} ({point.false_matches} / {point.non_mated})"
            lines.append(
                f"{row.target:<7g} {fusion:<{width}} {row.tar:>7.4f} {matches:>17} {realised:>28} "
                f"{point.threshold:>10.4f}"
            )
    warnings = dict.fromkeys(row.warning for rows in results.values() for row in rows)
    lines += [f"warning: {warning}" for warning in warnings if warning]
    return "\n".join(lines) + "\n"

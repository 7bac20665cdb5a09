"""The mutual likelihood score (MLS): a comparison score that weighs distance by variance.

An alternative to the cosine for methods that give variances. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.comparisons import Comparisons

NUMBERS_AT_ONCE = 1 << 22  # of one gathered array (16 MB); results do not depend on it


def mls_scores(
    mu: NDArray[np.float32], sigma_sq: NDArray[np.float32], pairs: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Log likelihood that both sides of a pair show one person, larger = more alike.

    With a variance per dimension (Shi and Jain, PFE, arXiv 1904.09658, Eq. 3), s = s_a + s_b:
    -1/2 sum_l [ (a_l - b_l)^2 / s_l + log s_l ] - D/2 log(2 pi).

    With one variance per image (Chen et al., ProbFace, arXiv 2102.04075, Eq. 5):
    -D/2 [ 2 (1 - cos) / s + log s ] - D/2 log(2 pi). Such a variance stands for all D dimensions
    together: s / D in each dimension gives the same score plus the constant D/2 log D.

    Args:
        mu: (M, D) embeddings of any length but zero; they are normalised first.
        sigma_sq: (M, D) or (M, 1) variances, above 0.
        pairs: (N, 2) row numbers.

    Returns:
        (N,) float32.

    Raises:
        ValueError: another number of variances, or values that cannot be variances.
    """
    check_variances(mu, sigma_sq, "the mutual likelihood score")
    columns, per_image = mu.shape[1], sigma_sq.shape[1] == 1
    unit = mu / np.linalg.norm(mu, axis=1, keepdims=True)
    constant = columns / 2 * math.log(2 * math.pi)
    scores = np.empty(len(pairs), np.float32)
    step = max(1, NUMBERS_AT_ONCE // columns)
    for start in range(0, len(pairs), step):
        first, second = pairs[start : start + step].T
        gap = unit[first] - unit[second]
        total = sigma_sq[first] + sigma_sq[second]
        np.square(gap, out=gap)
        if per_image:
            distance = gap.sum(axis=1, dtype=np.float64) / total[:, 0]
            cost = columns * (distance + np.log(total[:, 0].astype(np.float64)))
        else:
            gap /= total
            gap += np.log(total, out=total)
            cost = gap.sum(axis=1, dtype=np.float64)
        scores[start : start + step] = -cost / 2 - constant
    return scores


def rescored(
    comparisons: Comparisons, mu: NDArray[np.float32], sigma_sq: NDArray[np.float32]
) -> Comparisons:
    """Score the same comparisons by their mutual likelihood instead of the cosine.

    Args:
        comparisons: of the M images; all of them listed.
        mu: (M, D) embeddings of the images.
        sigma_sq: (M, D) or (M, 1) variances, above 0.

    Raises:
        ValueError: only the highest cosines are listed, another number of images, or uncertainties
            that are not variances.
    """
    if comparisons.unlisted:
        raise ValueError(
            f"{comparisons.name}: {comparisons.unlisted} non-mated comparisons are not listed "
            "because their cosine is low, but their mutual likelihood may be high: sample "
            "non-mated comparisons (--non_mated COUNT) instead of taking all"
        )
    if len(mu) != len(comparisons.uncertainty):
        raise ValueError(
            f"{comparisons.name}: {len(mu)} embeddings for {len(comparisons.uncertainty)} images"
        )
    try:
        scores = mls_scores(mu, sigma_sq, comparisons.pairs)
    except ValueError as error:
        raise ValueError(f"{comparisons.name}: {error}") from error
    return dataclasses.replace(comparisons, scores=scores)


def check_variances(mu: NDArray[np.float32], sigma_sq: NDArray[np.float32], purpose: str) -> None:
    """Refuse uncertainties that are not variances.

    Args:
        mu: (M, D) embeddings.
        sigma_sq: what should be (M, 1) or (M, D) variances above 0.
        purpose: what needs them, for the message.

    Raises:
        ValueError: a wrong shape, or a value that is not above 0.
    """
    rows, columns = mu.shape
    if sigma_sq.shape not in ((rows, 1), (rows, columns)):
        raise ValueError(
            f"{purpose} needs one variance per image or one for each of the {columns} embedding "
            f"dimensions, got sigma_sq of shape {sigma_sq.shape} for {rows} images"
        )
    sound = (sigma_sq > 0).all(axis=1)
    if not sound.all():
        row = int(np.argmin(sound))
        raise ValueError(
            f"{purpose} needs variances above 0, but {int((~sound).sum())} of {rows} images have "
            f"others (row {row}: {sigma_sq[row].min():.6g}): this method's uncertainty is not a "
            "variance"
        )

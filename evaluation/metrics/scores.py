"""Comparison scores of pairs and the uncertainty that belongs to each pair.

Rows 2i and 2i+1 of every image array are the two images of pair i. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimators.base import harmonic_mean

VALUES_AT_ONCE = 1 << 18  # 1 MB, which stays in the cache; results do not depend on it


class Uncertainty(NamedTuple):
    """One number per image, and where in `sigma_sq` it comes from.

    Attributes:
        label: "" when there is only one, else the columns, such as "columns 0-7".
        values: (2N,) float32, larger = less reliable.
    """

    label: str
    values: NDArray[np.float32]


def cosine_of_pairs(mu: NDArray[np.floating]) -> NDArray[np.float32]:
    """Cosine of the two embeddings of each pair, in float32 from re-normalised embeddings.

    The order of operations is the original's (normalise, multiply, sum along the row), so the last
    digit agrees; a dot product would differ in it.

    Args:
        mu: (2N, D), any real type, any length per row but zero.

    Returns:
        (N,) float32.
    """
    scores = np.empty(len(mu) // 2, np.float32)
    step = max(2, VALUES_AT_ONCE // mu.shape[1] // 2 * 2)
    for start in range(0, len(mu), step):
        rows = np.asarray(mu[start : start + step], dtype=np.float32)
        unit = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
        scores[start // 2 : (start + len(rows)) // 2] = (unit[0::2] * unit[1::2]).sum(axis=1)
    return scores


def image_uncertainties(
    sigma_sq: NDArray[np.float32], sizes: Sequence[int] | None = None
) -> list[Uncertainty]:
    """Split the columns of (2N, c) into uncertainties that are evaluated one by one.

    Exactly two columns are two uncertainties; otherwise `sizes` cuts blocks of columns, and without
    it all columns are one block. A block of several columns becomes its harmonic mean.

    Raises:
        ValueError: sizes below 1, or that do not add up to the number of columns.
    """
    columns = sigma_sq.shape[1]
    if sizes is not None and (min(sizes, default=0) < 1 or sum(sizes) != columns):
        raise ValueError(
            f"sigma_sizes {','.join(map(str, sizes))} must be 1 or more each and add up to the "
            f"{columns} columns of sigma_sq"
        )
    cuts = [1, 1] if columns == 2 else list(sizes or [columns])
    uncertainties, start = [], 0
    for size in cuts:
        block = sigma_sq[:, start : start + size]
        values = block[:, 0] if size == 1 else harmonic_mean(block)
        uncertainties.append(Uncertainty(_label(start, size) if len(cuts) > 1 else "", values))
        start += size
    return uncertainties


def _label(start: int, size: int) -> str:
    return f"column {start}" if size == 1 else f"columns {start}-{start + size - 1}"

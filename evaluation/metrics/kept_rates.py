"""Error rates of the kept pairs alone, at each of several discard fractions. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.metrics.error_rates import EqualErrorRate, ErrorRates, rates_of_sorted
from evaluation.metrics.kept import KeptSets, cells_for


def rates_of_kept(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    kept: KeptSets,
    indices: Sequence[int],
) -> list[ErrorRates]:
    """Error rates of the kept pairs alone at some of the discard fractions."""
    order = np.argsort(scores)
    scores, mated, level = scores[order], mated[order], kept.level[order]
    by_level: dict[int, ErrorRates] = {}
    for top in {int(kept.level_of[index]) for index in indices}:
        rows = np.flatnonzero(level <= top)
        by_level[top] = rates_of_sorted(scores[rows], mated[rows])
    return [by_level[int(kept.level_of[index])] for index in indices]


def equal_error_rates_of_kept(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    kept: KeptSets,
    indices: Sequence[int],
) -> list[EqualErrorRate]:
    """EER of the kept pairs at some of the discard fractions, without sorting all scores.

    A histogram tells between which scores FMR and FNMR meet; only those are sorted.
    """
    tops = np.unique(kept.level_of[list(indices)])
    group = np.searchsorted(tops, np.arange(int(kept.level.max()) + 1))[kept.level]
    cells = cells_for(len(scores))
    low, high = float(scores.min()), float(scores.max())
    scale = cells / (high - low) if high > low else 0.0
    cell = ((scores - np.float64(low)) * scale).astype(np.intp)
    kind = (group * 2 + mated) * (cells + 1) + cell
    counts = np.bincount(kind, minlength=2 * (len(tops) + 1) * (cells + 1))
    counts = np.cumsum(counts.reshape(-1, 2, cells + 1), axis=0)
    found = {}
    for place, top in enumerate(tops):
        others, own = counts[place]
        found[int(top)] = _eer_near(scores, mated, kept.level <= top, cell, others, own)
    return [found[int(kept.level_of[index])] for index in indices]


def _eer_near(
    scores: NDArray[np.floating],
    mated: NDArray[np.bool_],
    is_kept: NDArray[np.bool_],
    cell: NDArray[np.intp],
    others: NDArray[np.int64],
    own: NDArray[np.int64],
) -> EqualErrorRate:
    """EER of the kept pairs, given how many of both kinds are in each cell of scores."""
    total, total_others = int(own.sum()), int(others.sum())
    filled = np.flatnonzero(own + others)
    fnmr = (np.cumsum(own) - own)[filled] / max(total, 1)
    fmr = (total_others - (np.cumsum(others) - others))[filled] / max(total_others, 1)
    crossed = np.flatnonzero(fmr <= fnmr)
    place = int(crossed[0]) if crossed.size else len(filled) - 1
    first, last = filled[max(place - 1, 0)], filled[place]
    rows = np.flatnonzero(is_kept & (cell >= first) & (cell <= last))
    rows = rows[np.argsort(scores[rows])]
    below, above = int(own[:first].sum()), int(others[last + 1 :].sum())
    window = rates_of_sorted(scores[rows], mated[rows], below, above, (total, total_others))
    found = window.equal_error_rate()
    if window.crossing() is None:  # the lowest threshold of all, not of the window
        return found._replace(threshold=float(scores[is_kept].min()))
    return found

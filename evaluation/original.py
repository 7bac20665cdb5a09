"""The numbers of the original's printed table, to the last digit.

`evaluation.run` makes it under the protocols that print it; `report.text` writes it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.features import Features
from evaluation.metrics.comparisons import (
    Comparisons,
    Uncertainty,
    cosine_of_pairs,
    image_uncertainties,
)
from evaluation.metrics.curve import CurveEngine, Edc, Kept, edc_of, percentiles
from evaluation.metrics.protocols import Protocol, find_protocol
from evaluation.metrics.thresholds import (
    Caution,
    EqualErrorRate,
    Ranked,
    caution_few_matches,
    rates_of_window,
)

SHOWN = (0, 5, 10, 15, 20, 25, 30)  # indices of the printed rows: discard 0, .05, ..., .30
FMR_TARGETS = (1e-2, 1e-3)
FEWEST_PAIRS = 10
FOLDS = 10  # of the accuracy
PERCENTILES = (0, 10, 30, 50, 70, 90, 100)


@dataclass(frozen=True)
class OriginalAreas:
    """Areas under a curve on the original's grid, under its names; lower is better.

    Attributes:
        auerc: trapezoids over 0..0.99.
        auerc30: the same over the first 30 points, 0..0.29.
        auc: auerc - e^2 / 2 with e = FNMR without discard.
        auc30: auerc30 - e * min(e, 0.3) / 2.
        mean: plain mean of the FNMR values.
    """

    auerc: float
    auerc30: float
    auc: float
    auc30: float
    mean: float


class Accuracy(NamedTuple):
    """Ten-fold verification accuracy of the kept pairs, as means over the folds.

    The LFW protocol as the original's third script runs it; the threshold of a fold comes from the
    others.

    Attributes:
        value: share of right decisions; NaN when fewer than ten pairs, or folds without mated
            training pairs, leave it undefined.
        threshold: mean of the folds' thresholds; NaN in the same cases.
    """

    value: float
    threshold: float


@dataclass(frozen=True)
class OriginalBlock:
    """One uncertainty of the set.

    Attributes:
        label: "" when there is only one, else the columns it comes from.
        uncertainty: (2N,) one number per image.
        kept: kept pairs at each of the 100 discard fractions.
        curves: one curve per entry of `FMR_TARGETS`.
        eer: (7,) equal error rates of the kept pairs at the `SHOWN` fractions.
        areas: of the curve at FMR 1e-3.
        scores: (N,) of all pairs.
        mated: (N,) their labels.
    """

    label: str
    uncertainty: NDArray[np.float32]
    kept: Kept
    curves: tuple[Edc, ...]
    eer: tuple[EqualErrorRate, ...]
    areas: OriginalAreas
    scores: NDArray[np.float32]
    mated: NDArray[np.bool_]

    @cached_property
    def accuracy(self) -> tuple[Accuracy, ...]:
        """(7,) ten-fold accuracies of the kept pairs at `SHOWN`; computed when asked for."""
        rows = [self.kept.rows(index) for index in SHOWN]
        return tuple(ten_fold_accuracy(self.scores[kept], self.mated[kept]) for kept in rows)


@dataclass(frozen=True)
class OriginalTable:
    """One set under one of the protocols that print the original's table.

    Attributes:
        name: of the set.
        protocol: its switches.
        pairs: number of pairs.
        mated: number of mated pairs.
        sigma_percentiles: (7,) `PERCENTILES` of the raw uncertainties of all columns.
        blocks: one per uncertainty.
        cautions: what makes these numbers uncertain or incomplete.
    """

    name: str
    protocol: Protocol
    pairs: int
    mated: int
    sigma_percentiles: NDArray[np.float64]
    blocks: tuple[OriginalBlock, ...]
    cautions: tuple[Caution, ...]


def original_table(
    features: Features,
    protocol: str | Protocol = "original",
    sigma_sizes: Sequence[int] | None = None,
    name: str = "features",
) -> OriginalTable:
    """Compute the table of one set of pairs.

    Args:
        features: embeddings, uncertainties and labels.
        protocol: a preset's name or the switches themselves.
        sigma_sizes: columns of each uncertainty; without it all columns are one uncertainty
            (except that exactly two columns are two).
        name: of the set, for messages and reports.

    Raises:
        ValueError: fewer than ten pairs, no mated or no non-mated pair, an unknown protocol or one
            that does not make the original's table, or sizes that do not add up to the columns.
    """
    chosen = find_protocol(protocol) if isinstance(protocol, str) else protocol
    mated = features.issame
    if not chosen.prints_original:
        raise ValueError(
            f"{name}: protocol {chosen.name} does not make the original's table; its numbers are "
            "those of `evaluation.run.evaluate`"
        )
    require_pairs(name, mated)
    scores = cosine_of_pairs(features.mu)
    try:
        uncertainties = image_uncertainties(features.sigma_sq, sigma_sizes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    pairs = np.arange(2 * len(mated), dtype=np.int32).reshape(-1, 2)
    blocks = tuple(
        _block(Comparisons(name, scores, mated, pairs, uncertainty.values), uncertainty, chosen)
        for uncertainty in uncertainties
    )
    return OriginalTable(
        name,
        chosen,
        len(mated),
        int(mated.sum()),
        percentiles(Ranked.of(features.sigma_sq.ravel()), np.array(PERCENTILES) / 100),
        blocks,
        _cautions(blocks, chosen),
    )


def require_pairs(name: str, mated: NDArray[np.bool_], *, both: bool = True) -> None:
    """Refuse fewer than ten comparisons, or none of a kind; ValueError names the set.

    Args:
        name: of the set.
        mated: (N,) kinds.
        both: whether non-mated comparisons are needed too.
    """
    count = int(mated.sum())
    if len(mated) < FEWEST_PAIRS:
        raise ValueError(f"{name}: {len(mated)} pairs; at least {FEWEST_PAIRS} are needed")
    if count == 0 or (both and count == len(mated)):
        kind = "mated" if count == 0 else "non-mated"
        raise ValueError(f"{name}: no {kind} pair among {len(mated)}; error rates need both kinds")


def original_areas(edc: Edc) -> OriginalAreas:
    """Areas of a curve on the original's grid."""
    x, y = edc.fractions, edc.fnmr
    start = float(y[0])
    auerc, auerc30 = float(np.trapezoid(y, x)), float(np.trapezoid(y[:30], x[:30]))
    best, best30 = start * start / 2, start * min(start, 0.3) / 2
    return OriginalAreas(auerc, auerc30, auerc - best, auerc30 - best30, float(np.mean(y)))


def _block(comparisons: Comparisons, uncertainty: Uncertainty, protocol: Protocol) -> OriginalBlock:
    engine = CurveEngine(comparisons, protocol)
    cuts, kept = engine.cuts(), engine.kept()
    edcs = tuple(edc_of(engine, cuts, target) for target in FMR_TARGETS)
    return OriginalBlock(
        uncertainty.label,
        uncertainty.values,
        kept,
        edcs,
        tuple(equal_error_rates(comparisons.scores, comparisons.mated, kept, SHOWN)),
        original_areas(edcs[-1]),
        comparisons.scores,
        comparisons.mated,
    )


def _cautions(blocks: tuple[OriginalBlock, ...], protocol: Protocol) -> tuple[Caution, ...]:
    few = (caution_few_matches(edc.fmr_target, int(edc.non_mated[0])) for edc in blocks[0].curves)
    cautions = [caution for caution in few if caution]
    for block in blocks:
        curve, label = block.curves[-1], f" ({block.label})" if block.label else ""
        for kind, counts in (("mated", curve.mated), ("non_mated", curve.non_mated)):
            without = np.flatnonzero(counts == 0)
            if without.size:
                first = int(without[0])
                facts: dict[str, float | str] = {
                    "fraction": float(curve.fractions[first]),
                    "fnmr": float(curve.fnmr[first]),
                    "threshold": protocol.threshold,
                    "label": label,
                }
                cautions.append(Caution(f"table_without_{kind}", facts))
    return tuple(cautions)


def equal_error_rates(
    scores: NDArray[np.floating], mated: NDArray[np.bool_], kept: Kept, indices: Sequence[int]
) -> list[EqualErrorRate]:
    """EER of the kept comparisons at some of the discard fractions, without sorting all scores.

    A histogram tells between which scores FMR and FNMR meet; only those are sorted.

    Args:
        scores: (N,) of all listed comparisons.
        mated: (N,) their kind.
        kept: which of them are kept.
        indices: of its discard fractions, ascending.
    """
    cells = min(max(len(scores) // 16, 64), 65_536)
    low, high = float(scores.min()), float(scores.max())
    scale = cells / (high - low) if high > low else 0.0
    cell = ((scores - np.float64(low)) * scale).astype(np.intp)
    times = kept.times_kept(indices)
    kind = (times.astype(np.intp) * 2 + mated) * (cells + 1) + cell
    counts = np.bincount(kind, minlength=2 * (len(indices) + 1) * (cells + 1))
    counts = np.cumsum(counts.reshape(-1, 2, cells + 1)[:0:-1], axis=0)[::-1]
    return [
        _near_crossing(scores, mated, times > place, cell, *counts[place])
        for place in range(len(indices))
    ]


def _near_crossing(
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
    below, above = int(own[:first].sum()), int(others[last + 1 :].sum())
    window = rates_of_window(scores[rows], mated[rows], below, above, total, total_others)
    eer = window.equal_error_rate()
    if window.crossing() is None:  # the lowest threshold of all, not of the window
        return eer._replace(threshold=float(scores[is_kept].min()))
    return eer


def ten_fold_accuracy(scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> Accuracy:
    """Accuracy over ten contiguous folds, in the order of the pairs.

    A fold's threshold is the mean of all mated training scores that reach the best training
    accuracy. Folds and means are in float32, as the original's.

    Args:
        scores: (N,) float32.
        mated: (N,).
    """
    if len(scores) < FOLDS:
        return Accuracy(float("nan"), float("nan"))
    accuracies, thresholds = np.zeros(FOLDS, np.float32), np.zeros(FOLDS, np.float32)
    for fold, test in enumerate(np.array_split(np.arange(len(scores)), FOLDS)):
        train = np.ones(len(scores), np.bool_)
        train[test] = False
        thresholds[fold] = best_threshold(scores[train], mated[train])
        accuracies[fold] = np.mean((scores[test] >= thresholds[fold]) == mated[test])
    if np.isnan(thresholds).any():
        return Accuracy(float("nan"), float("nan"))
    return Accuracy(float(np.mean(accuracies)), float(np.mean(thresholds)))


def best_threshold(scores: NDArray[np.float32], mated: NDArray[np.bool_]) -> np.float32:
    """Mean of the mated scores at which most decisions are right; NaN without mated scores."""
    candidates, others = np.sort(scores[mated]), np.sort(scores[~mated])
    if not len(candidates):
        return np.float32("nan")
    accepted = len(candidates) - np.searchsorted(candidates, candidates, side="left")
    refused = np.searchsorted(others, candidates, side="left")
    right = accepted + refused
    return np.float32(np.mean(candidates[right == right.max()]))

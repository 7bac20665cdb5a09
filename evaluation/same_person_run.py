"""How good P(same person) is on people that it was not fitted on, and what the uncertainties add.

results = check_same_person(comparisons, {"idq": uncertainty}, prior=0.01)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence.bootstrap import Resampling
from evaluation.confidence.intervals import Interval
from evaluation.confidence.risk_control import select, split
from evaluation.confidence.same_person import SamePerson, posterior
from evaluation.metrics.comparisons import Comparisons, Unit

Floats = NDArray[np.float64]

ALONE = "score alone"
BINS = 10  # of about equal weight
FMR = 1e-3  # of the bootstrap's tail, which is not used here


@dataclass(frozen=True)
class SamePersonCheck:
    """One way to say P(same person), on held-out people.

    Attributes:
        method: whose uncertainties; `ALONE` for none.
        log_loss: mean of -log2 P(what is true) at the prior, in bits.
        cllr: the same at prior 1/2 (Brümmer and du Preez 2006): 0 is perfect, 1 says nothing.
        min_cllr: Cllr of the best map that never falls with this LR, by isotonic regression.
        calibration_error: sum over bins of |P - share that is true|, weighted by the prior.
        chance: mean of that if every P were right, over draws of people.
        p_value: how often chance alone gives such an error or a larger one.
        difference: of the log loss from that of the score alone; below 0 this is better.
        interval: of the difference, over draws of people.
    """

    method: str
    log_loss: float
    cllr: float
    min_cllr: float
    calibration_error: float
    chance: float
    p_value: float
    difference: float
    interval: Interval


@dataclass(frozen=True)
class SamePersonResult:
    """What is known of P(same person) on one set.

    Attributes:
        prior: of log loss and calibration error.
        mated: held-out comparisons of one person.
        non_mated: of two persons.
        unit: what was drawn.
        replicates: draws.
        confidence: of the intervals.
        checks: the score alone first.
    """

    prior: float
    mated: int
    non_mated: int
    unit: Unit
    replicates: int
    confidence: float
    checks: tuple[SamePersonCheck, ...]


def check_same_person(
    comparisons: Comparisons,
    columns: Mapping[str, NDArray[np.float32]],
    *,
    prior: float = 0.5,
    unit: Unit | None = None,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> SamePersonResult:
    """Cut a set into halves that share no person, predict each by the map of the other, and look.

    Args:
        comparisons: the set.
        columns: name -> (M,) uncertainties of a method.
        prior: of log loss and calibration error.
        unit: what is drawn; None for the best one that the set knows.
        replicates: draws with replacement.
        confidence: of the intervals.
        seed: of halves and draws.

    Raises:
        ValueError: a half has too few comparisons of a kind, or what `SamePerson.fit` refuses.
    """
    part = split(comparisons, (0.5, 0.5), seed=seed).part
    halves = [select(comparisons, np.flatnonzero(part == number)) for number in (0, 1)]
    held = select(
        comparisons, np.concatenate([np.flatnonzero(part == number) for number in (1, 0)])
    )
    ratios = {}
    for method, column in {ALONE: np.zeros_like(comparisons.uncertainty), **columns}.items():
        own = [half.with_uncertainty(column) for half in halves]
        ratios[method] = np.concatenate(
            [log_ratios(SamePerson.fit(own[k], prior), own[1 - k]) for k in (0, 1)]
        )
    return weigh_evidence(held, ratios, prior, unit or held.best_unit, replicates, confidence, seed)


def log_ratios(fitted: SamePerson, comparisons: Comparisons) -> Floats:
    """(N,) ln LR of every comparison of a set."""
    first, second = comparisons.uncertainty[comparisons.pairs].T
    return fitted.log_ratio(comparisons.scores, first, second)


def weigh_evidence(
    comparisons: Comparisons,
    ratios: Mapping[str, Floats],
    prior: float,
    unit: Unit,
    replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> SamePersonResult:
    """Measure given (N,) ln LR by the name of their method, that of `ALONE` among them.

    The chance distribution of the calibration error is that of |residual of a draw - residual| of
    each bin, summed: people who have many comparisons make it wider, as they should. See
    `check_same_person`.
    """
    mated = comparisons.mated
    losses = {name: _log_loss(ratio, mated, prior) for name, ratio in ratios.items()}
    binned = {name: _bins(posterior(ratio, prior), mated, prior) for name, ratio in ratios.items()}
    draws = Resampling(comparisons, unit, FMR, seed)
    lost, gaps = np.empty((len(ratios), replicates)), np.empty((len(ratios), replicates, BINS))
    for draw in range(replicates):
        weights = _prior_weights(mated, prior, draws.row_weights(draw))
        for row, name in enumerate(ratios):
            lost[row, draw] = weights @ losses[name]
            gaps[row, draw] = _gaps(*binned[name], weights)
    plain, tail = _prior_weights(mated, prior), (1 - confidence) / 2
    alone, checks = list(ratios).index(ALONE), []
    for row, (name, ratio) in enumerate(ratios.items()):
        gap = _gaps(*binned[name], plain)
        error, null = float(np.abs(gap).sum()), np.abs(gaps[row] - gap).sum(axis=1)
        low, high = np.quantile(lost[row] - lost[alone], (tail, 1 - tail))
        checks.append(
            SamePersonCheck(
                method=name,
                log_loss=float(plain @ losses[name]),
                cllr=float(_prior_weights(mated, 0.5) @ _log_loss(ratio, mated, 0.5)),
                min_cllr=least_cllr(ratio, mated),
                calibration_error=error,
                chance=float(null.mean()),
                p_value=(1 + int(np.count_nonzero(null >= error))) / (1 + replicates),
                difference=float(plain @ (losses[name] - losses[ALONE])),
                interval=Interval(float(low), float(high)),
            )
        )
    kinds = int(np.count_nonzero(mated)), int(np.count_nonzero(~mated))
    return SamePersonResult(prior, *kinds, unit, replicates, confidence, tuple(checks))


def least_cllr(ratio: Floats, mated: NDArray[np.bool_]) -> float:
    """Cllr after the isotonic regression ("pool adjacent violators") of the labels on ln LR."""
    from scipy.optimize import isotonic_regression

    values, group = np.unique(ratio, return_inverse=True)
    weight = _prior_weights(mated, 0.5)
    size, own = (np.bincount(group, part, len(values)) for part in (weight, weight * mated))
    p = isotonic_regression(own / size, weights=size).x.clip(0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = own * np.log2(p), (size - own) * np.log2(1 - p)
    return float(-sum(np.nansum(part) for part in bits))


def _prior_weights(
    mated: NDArray[np.bool_], prior: float, counts: NDArray[np.int64] | None = None
) -> Floats:
    """(N,) weights that give all mated comparisons together the prior; 0 in all: NaN."""
    counts = np.ones(len(mated), np.int64) if counts is None else counts
    own = counts[mated].sum()
    return counts * np.where(mated, prior / own, (1 - prior) / (counts.sum() - own))


def _log_loss(ratio: Floats, mated: NDArray[np.bool_], prior: float) -> Floats:
    """(N,) -log2 P(what is true)."""
    log_odds = ratio + np.log(prior) - np.log1p(-prior)
    return np.logaddexp(0, np.where(mated, -log_odds, log_odds)) / np.log(2)


def _bins(p: Floats, mated: NDArray[np.bool_], prior: float) -> tuple[NDArray[np.intp], Floats]:
    """(N,) number of each comparison's bin, of about equal weight, and what is true minus P."""
    order = np.argsort(p)
    reached = np.cumsum(_prior_weights(mated, prior)[order])
    edges = p[order][np.searchsorted(reached, np.arange(1, BINS) / BINS)]
    return np.searchsorted(edges, p), mated - p


def _gaps(place: NDArray[np.intp], residual: Floats, weights: Floats) -> Floats:
    return np.bincount(place, weights * residual, BINS).astype(np.float64)

"""Every method's curve in one bootstrap replicate, by weights or by repeated rows. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluation.confidence._resample import Counts, Resampling, Sample
from evaluation.confidence._resample_curve import (
    CurveValues,
    Replicate,
    WeightedCurve,
    has_weighted_path,
    repeated_curve,
)
from evaluation.confidence._resample_threshold import ThresholdSearch
from evaluation.metrics.comparisons import Comparisons, fuse_sides
from evaluation.metrics.protocols import Protocol


class Measure:
    """Draws replicates and measures all methods on each.

    Args:
        resampling: the draws.
        methods: the same comparisons under each method's uncertainties.
        protocol: with one limit.
        fmr_target: of the threshold.
        repeat_rows: take the slow path, which serves every protocol, even where the fast one
            would do.

    Raises:
        ValueError: the protocol discards images.
    """

    def __init__(
        self,
        resampling: Resampling,
        methods: Mapping[str, Comparisons],
        protocol: Protocol,
        fmr_target: float,
        *,
        repeat_rows: bool = False,
    ) -> None:
        if protocol.discard_over == "images":
            raise ValueError(
                f"protocol {protocol.name} discards images, and no interval is known for that: "
                "discard over 'all', 'mated' or 'each_kind'"
            )
        self._resampling, self._protocol, self._target = resampling, protocol, fmr_target
        self._methods = list(methods.values())
        self._search: ThresholdSearch | None = None
        if has_weighted_path(protocol) and not repeat_rows:
            starting = protocol.rule == "starting_error"
            target = protocol.start_fnmr if starting else fmr_target
            self._search = ThresholdSearch(resampling, protocol.rule, target)
            self._prepare()

    @property
    def beyond_list(self) -> int:
        """Replicates whose threshold lay below the listed scores."""
        return self._search.beyond_list if self._search else 0

    def draw(self, replicate: int) -> list[CurveValues] | None:
        """Each method's values; None where a kind of comparison was not drawn at all."""
        if self._search is None:
            return self._repeated(replicate)
        if self._everything:
            weights = self._resampling.row_weights(replicate)
            sample = Sample(
                weights[self._resampling.mated_rows],
                weights[self._resampling.tail_rows],
                float(weights[self._resampling.non_mated_rows].sum()),
            )
        else:
            sample = self._resampling.sample(replicate)
            weights = sample.mated
        if not (sample.mated.any() and sample.total):
            return None
        threshold = self._search.find(sample, replicate)
        shared = Replicate(weights, *self._parts(weights, threshold), threshold)
        return [curve.values(shared) for curve in self._curves]

    def _prepare(self) -> None:
        comparisons = self._resampling.comparisons
        self._everything = self._protocol.discard_over == "all"
        rows = self._resampling.mated_rows
        if self._everything:
            rows = np.arange(len(comparisons.scores))
        self._scores = comparisons.scores[rows]
        self._mated = comparisons.mated[rows]
        first, second = comparisons.pairs[rows].T
        self._curves = [
            WeightedCurve(
                fuse_sides(one.uncertainty[first], one.uncertainty[second], self._protocol.fuse),
                self._scores,
                self._protocol,
            )
            for one in self._methods
        ]

    def _parts(self, weights: Counts, threshold: float) -> tuple[Counts, Counts]:
        """Weights of the mated comparisons and of the errors, 0 elsewhere."""
        level = np.float64(threshold)
        above = self._protocol.read_at == "above_threshold"
        wrong = self._scores <= level if above else self._scores < level
        mated = weights * self._mated if self._everything else weights
        return mated, mated * wrong

    def _repeated(self, replicate: int) -> list[CurveValues] | None:
        comparisons = self._resampling.comparisons
        weights = self._resampling.row_weights(replicate)
        drawn = weights > 0
        if not ((drawn & comparisons.mated).any() and (drawn & ~comparisons.mated).any()):
            return None
        return [repeated_curve(one, weights, self._protocol, self._target) for one in self._methods]

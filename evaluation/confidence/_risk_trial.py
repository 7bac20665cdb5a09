"""What counts for a risk: which comparisons, and which of them are errors.

Helper of `evaluation.confidence.risk_control`. NumPy and SciPy only.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evaluation.confidence import _split
from evaluation.confidence._fixed_sequence import Count
from evaluation.metrics.comparisons import Comparisons, Fuse, Unit

Risk = Literal["fnmr", "fmr", "total"]
KINDS: dict[str, str] = {"fnmr": "mated ", "fmr": "non-mated ", "total": ""}


class Trial:
    """The comparisons that count for a risk, and which of them are errors.

    Args:
        comparisons: the set.
        risk: "fnmr" counts mated comparisons, "fmr" non-mated ones, "total" both.
        score_threshold: scores below it are non-matches.
        unit: what drawn comparisons must not share.
        fuse: how the uncertainties of two images become the comparison's.
        seed: of the draws.
    """

    def __init__(
        self,
        comparisons: Comparisons,
        risk: Risk,
        score_threshold: float,
        unit: Unit,
        fuse: Fuse,
        seed: int,
    ) -> None:
        self.comparisons, self.risk, self.seed = comparisons, risk, seed
        self.uncertainty = comparisons.pair_uncertainty(fuse)
        self.error = (comparisons.scores < np.float64(score_threshold)) == comparisons.mated
        self.people = _split.people_of(comparisons, unit)

    def of_kind(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the rows whose kind counts; ValueError if there is none."""
        mated = self.comparisons.mated[rows]
        kept = rows if self.risk == "total" else rows[mated == (self.risk == "fnmr")]
        if not kept.size:
            raise ValueError(
                f"{self.comparisons.name}: a part has no {KINDS[self.risk]}comparison: the set is "
                "too small to be cut"
            )
        return kept

    def drawn(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of the rows that count, share no person and were drawn."""
        rows = self.of_kind(rows)
        return self._drawn_of_both(rows) if self.risk == "total" else self._disjoint(rows)

    def _disjoint(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        return rows[_split.draw_disjoint(self.people[rows], self.seed)]

    def _drawn_of_both(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Rows of both kinds, in the set's shares: mated ones first, then others of other people.

        A mated row takes one person, another one two (each row its own with unit "pair").
        """
        rng = np.random.default_rng(self.seed)
        is_mated = self.comparisons.mated
        share = float(np.mean(is_mated))
        mated, others = rows[is_mated[rows]], rows[~is_mated[rows]]
        sides = 1 + float(np.mean(np.diff(self.people[others], axis=1) != 0)) if others.size else 1
        persons = len(np.unique(self.people[rows]))
        wanted = persons * share / (share + (1 - share) * sides)
        first = rng.permutation(self._disjoint(mated))[: round(wanted)]
        free = ~np.isin(self.people[others], self.people[first]).any(axis=1)
        second = rng.permutation(self._disjoint(others[free]))
        kinds = ((first, share), (second, 1 - share))
        size = min(len(one) / part for one, part in kinds if part)
        return np.concatenate([one[: round(size * part)] for one, part in kinds])

    def count(self, rows: NDArray[np.intp], limit: float = np.inf) -> Count:
        """Errors among the rows with an uncertainty up to the limit."""
        rows = rows[self.uncertainty[rows] <= limit]
        return Count(int(np.count_nonzero(self.error[rows])), len(rows))

    def false_matches(self, rows: NDArray[np.intp]) -> Count | None:
        """False matches among the non-mated rows; None where not all are listed."""
        if self.comparisons.unlisted:
            return None
        rows = rows[~self.comparisons.mated[rows]]
        return Count(int(np.count_nonzero(self.error[rows])), len(rows))

    def share_of_images(self, rows: NDArray[np.intp], limit: float) -> float:
        """Share of the images of these rows whose own uncertainty is within the limit."""
        images = np.unique(self.comparisons.pairs[rows])
        return float(np.mean(self.comparisons.uncertainty[images] <= limit))

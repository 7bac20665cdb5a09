"""Counts of everything a contact sheet was given, and the first images that gave no face.

For report.sheet; memory does not grow with the number of rows.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from evaluation.face_score import NOT_COMPUTED, FaceScore

BINS = 20  # of quality, five numbers each; 100 is in the last
VERDICTS = ("refuse", "ask again", "accept")  # worst first, as the sheet
FAILED = ("no face", "unreadable")


class Tally:
    """Counts rows.

    Args:
        failures: images without a face, and unreadable ones, to remember of each kind.

    Attributes:
        statuses: rows by status.
        verdicts: faces by verdict; "" for none.
        seen: faces by (reason, verdict).
        plain: faces without a reason, by verdict.
        quality: (BINS,) counts for each verdict.
        without_quality: faces without one.
        failures: for each status of `FAILED` the first names and what happened.
    """

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.seen: Counter[tuple[str, str]] = Counter()
        self.plain: Counter[str] = Counter()
        self.quality = {one: [0] * BINS for one in (*VERDICTS, "")}
        self.without_quality = 0
        self.failures: dict[str, list[tuple[str, str]]] = {one: [] for one in FAILED}

    def add(self, score: FaceScore, name: str) -> None:
        """Count one row."""
        self.statuses[score.status] += 1
        if score.status != "scored":
            if len(self.failures[score.status]) < self._limit:
                self.failures[score.status].append((name, score.note))
            return
        self.verdicts[score.verdict] += 1
        self.seen.update((one, score.verdict) for one in score.reasons)
        if not score.reasons:
            self.plain[score.verdict] += 1
        if score.quality == NOT_COMPUTED:
            self.without_quality += 1
        else:
            self.quality[score.verdict][min(score.quality * BINS // 100, BINS - 1)] += 1

    @property
    def faces(self) -> int:
        """Faces scored."""
        return self.statuses["scored"]

    @property
    def given(self) -> list[str]:
        """Verdicts that occur, the worst first."""
        return [one for one in VERDICTS if self.verdicts[one]]

    def reasons(self) -> list[str]:
        """Reasons that occur, the most frequent first."""
        total: Counter[str] = Counter()
        for (reason, _), count in self.seen.items():
            total[reason] += count
        return sorted(total, key=lambda one: (-total[one], one))

    def histogram(self) -> dict[str, NDArray[np.int64]]:
        """The counts of quality for each verdict that has any."""
        found = {one: np.array(counts, np.int64) for one, counts in self.quality.items()}
        return {one: counts for one, counts in found.items() if counts.any()}

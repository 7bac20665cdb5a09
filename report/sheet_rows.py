"""What a contact sheet remembers of any number of rows: counts, and the faces it shows.

Memory does not grow with the rows.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.images import encode_jpeg
from report.face_score import NOT_COMPUTED, FaceScore

# Returns the aligned face, uint8 (112, 112, 3) RGB, of a row without pixels; None where it cannot.
Pixels = Callable[[FaceScore, str], NDArray[np.uint8] | None]
JPEG_QUALITY = 88
BINS = 20  # of quality, five numbers each; 100 is in the last
VERDICTS = ("refuse", "ask again", "accept")  # worst first, as the sheet
FAILED = ("no face", "unreadable")
_SAMPLED = 16  # faces sampled for each one shown between the worst and the best


class Tally:
    """Counts rows by status, and faces by verdict ("" for none), reason and quality.

    Args:
        failures: names with what happened to remember for each status of `FAILED`.
    """

    def __init__(self, failures: int) -> None:
        self._limit = failures
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str] = Counter()
        self.reasons: dict[str, Counter[str]] = {}  # verdicts of the faces with each
        self.without_reason: Counter[str] = Counter()
        self.quality = {verdict: np.zeros(BINS, np.int64) for verdict in (*VERDICTS, "")}
        self.without_quality = 0
        self.failures: dict[str, list[tuple[str, str]]] = {status: [] for status in FAILED}

    def add(self, score: FaceScore, name: str) -> None:
        """Count one row."""
        self.statuses[score.status] += 1
        if score.status != "scored":
            if len(self.failures[score.status]) < self._limit:
                self.failures[score.status].append((name, score.note))
            return
        self.verdicts[score.verdict] += 1
        for reason in score.reasons:
            self.reasons.setdefault(reason, Counter())[score.verdict] += 1
        if not score.reasons:
            self.without_reason[score.verdict] += 1
        if score.quality == NOT_COMPUTED:
            self.without_quality += 1
        else:
            self.quality[score.verdict][min(score.quality * BINS // 100, BINS - 1)] += 1

    @property
    def faces(self) -> int:
        """Faces scored."""
        return self.statuses["scored"]

    @property
    def used_verdicts(self) -> list[str]:
        """Verdicts that occur, the worst first."""
        return [verdict for verdict in VERDICTS if self.verdicts[verdict]]

    def by_reason(self) -> list[tuple[str, Counter[str]]]:
        """Faces of each verdict with each reason, the most frequent first."""
        return sorted(self.reasons.items(), key=lambda row: (-row[1].total(), row[0]))

    def quality_counts(self) -> dict[str, NDArray[np.int64]]:
        """The counts of quality for each verdict that has any."""
        return {verdict: bins for verdict, bins in self.quality.items() if bins.any()}


@dataclass(frozen=True, eq=False)
class Shown:
    """One face of the sheet."""

    score: FaceScore  # without pixels and embedding
    name: str  # of the photo
    jpeg: bytes  # empty where it came without pixels


class Groups(NamedTuple):
    """Faces from worst to best; all of them in `worst` where there are few."""

    worst: list[Shown]
    between: list[Shown]
    best: list[Shown]


_Ranked = tuple[float, int, Shown]  # badness; minus the place in order of arrival; no two are equal


class Picks:
    """Keeps the extremes and a random sample of what is added; equal input, equal picks.

    The numbers of faces to show are those of `report.sheet.SheetBuilder`.
    """

    def __init__(self, worst: int, between: int, best: int) -> None:
        self.between = between
        self.shown = worst + between + best
        self.count = 0
        self._random = random.Random(0)
        self._worst = _Largest(worst)
        self._best = _Largest(best)
        self._sample = _Largest(max(self.shown, _SAMPLED * between))

    def add(self, score: FaceScore, name: str) -> None:
        """Look at a scored face; its pixels are encoded where it is kept for now."""
        badness = math.inf if math.isnan(score.uncertainty) else score.uncertainty
        place, self.count = self.count, self.count + 1
        keys = (
            (self._worst, (badness, -place)),
            (self._best, (-badness, place)),
            (self._sample, (self._random.random(), place)),
        )
        takers = [(group, key) for group, key in keys if group.takes(key)]
        if takers:
            face = (badness, -place, _shown(score, name))
            for group, key in takers:
                group.put(key, face)

    def groups(self, pixels: Pixels | None = None) -> Groups:
        """What is shown of the faces so far; `pixels` is asked for those without a picture."""
        sample = self._sample.in_order()
        if self.count <= self.shown:
            return Groups(_with_pictures(sample, pixels), [], [])
        worst, best = self._worst.in_order(), self._best.in_order()
        outer = {place for _, place, _ in (*worst, *best)}
        inner = [face for face in sample if face[1] not in outer]
        steps = np.linspace(0, len(inner) - 1, min(self.between, len(inner))).round().astype(int)
        middle = [inner[step] for step in steps.tolist()]
        return Groups(*(_with_pictures(group, pixels) for group in (worst, middle, best)))

    def sampled(self) -> NDArray[np.float64]:
        """Finite uncertainties of a random sample: of all faces where there are few."""
        faces = self._sample.in_order()
        values = np.array([face.score.uncertainty for *_, face in faces], np.float64)
        return values[np.isfinite(values)]


class _Largest:
    """The `size` faces with the largest keys."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[tuple[float, int], _Ranked]] = []

    def takes(self, key: tuple[float, int]) -> bool:
        return len(self._heap) < self.size or (self.size > 0 and key > self._heap[0][0])

    def put(self, key: tuple[float, int], face: _Ranked) -> None:
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (key, face))
        else:
            heapq.heapreplace(self._heap, (key, face))

    def in_order(self) -> list[_Ranked]:
        return sorted((face for _, face in self._heap), key=lambda face: face[:2], reverse=True)


def _with_pictures(group: list[_Ranked], pixels: Pixels | None) -> list[Shown]:
    faces = [face for *_, face in group]
    if pixels is None:
        return faces
    return [
        face if face.jpeg else _shown(face.score, face.name, pixels(face.score, face.name))
        for face in faces
    ]


def _shown(score: FaceScore, name: str, pixels: NDArray[np.uint8] | None = None) -> Shown:
    pixels = score.aligned if pixels is None else pixels
    jpeg = b"" if pixels is None else encode_jpeg(pixels, JPEG_QUALITY)
    return Shown(replace(score, aligned=None, embedding=None), name, jpeg)

"""Which faces of any number a contact sheet shows: the worst, the best, even steps between.

For report.sheet, which adds faces one at a time; memory does not grow with them.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.images import encode_jpeg
from evaluation.face_score import FaceScore

# Gives the aligned face, uint8 (112, 112, 3) RGB, of a row that came without; None where it cannot.
Pixels = Callable[[FaceScore, str], NDArray[np.uint8] | None]
JPEG_QUALITY = 88
_SAMPLED = 16  # faces kept for each one shown between the worst and the best


@dataclass(frozen=True, eq=False)
class Shown:
    """One face of the sheet.

    Attributes:
        score: without pixels and embedding.
        name: of the photo.
        jpeg: its picture; empty where it came without pixels.
    """

    score: FaceScore
    name: str
    jpeg: bytes


class Groups(NamedTuple):
    """Faces from worst to best; all of them in `worst` where there are few."""

    worst: list[Shown]
    between: list[Shown]
    best: list[Shown]


_Ranked = tuple[float, int, Shown]  # badness; minus the place in order of arrival; no two are equal


class Picks:
    """Keeps the extremes and a random sample of what is added; equal input, equal picks.

    Args:
        worst: most uncertain faces to show.
        between: faces to show at even steps between them and the best.
        best: least uncertain faces to show.

    Attributes:
        count: faces added.

    Raises:
        ValueError: a negative number.
    """

    def __init__(self, worst: int, between: int, best: int) -> None:
        for name, value in (("worst", worst), ("between", between), ("best", best)):
            if value < 0:
                raise ValueError(f"{name} = {value}: a sheet cannot show fewer than 0 faces")
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
        takers = [(kept, key) for kept, key in keys if kept.takes(key)]
        if takers:
            face = (badness, -place, _shown(score, name))
            for kept, key in takers:
                kept.put(key, face)

    def groups(self, pixels: Pixels | None = None) -> Groups:
        """What is shown of the faces so far; `pixels` is asked for those without a picture."""
        sample = _in_order(self._sample.faces)
        if self.count <= self.shown:
            return _with_pictures([sample, [], []], pixels)
        worst, best = _in_order(self._worst.faces), _in_order(self._best.faces)
        outer = {place for _, place, _ in (*worst, *best)}
        inner = [one for one in sample if one[1] not in outer]
        steps = np.linspace(0, len(inner) - 1, min(self.between, len(inner))).round().astype(int)
        middle = [inner[step] for step in steps.tolist()]
        return _with_pictures([worst, middle, best], pixels)

    def sampled(self) -> NDArray[np.float64]:
        """Finite uncertainties of a random sample: of all faces where there are few."""
        found = np.array([face.score.uncertainty for *_, face in self._sample.faces], np.float64)
        return found[np.isfinite(found)]


class _Largest:
    """The `size` faces with the largest keys."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[tuple[float, int], _Ranked]] = []

    @property
    def faces(self) -> list[_Ranked]:
        return [face for _, face in self._heap]

    def takes(self, key: tuple[float, int]) -> bool:
        return len(self._heap) < self.size or (self.size > 0 and key > self._heap[0][0])

    def put(self, key: tuple[float, int], face: _Ranked) -> None:
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, (key, face))
        else:
            heapq.heapreplace(self._heap, (key, face))


def _with_pictures(groups: list[list[_Ranked]], pixels: Pixels | None) -> Groups:
    return Groups(*([_pictured(face, pixels) for *_, face in group] for group in groups))


def _pictured(face: Shown, pixels: Pixels | None) -> Shown:
    if face.jpeg or pixels is None:
        return face
    return _shown(replace(face.score, aligned=pixels(face.score, face.name)), face.name)


def _in_order(faces: list[_Ranked]) -> list[_Ranked]:
    return sorted(faces, key=lambda one: one[:2], reverse=True)


def _shown(score: FaceScore, name: str) -> Shown:
    jpeg = b"" if score.aligned is None else encode_jpeg(score.aligned, JPEG_QUALITY)
    return Shown(replace(score, aligned=None, embedding=None), name, jpeg)

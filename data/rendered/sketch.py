"""Shapes in three dimensions, collected first, projected at once and painted in order.

Painting is OpenCV's, antialiased, on a canvas twice as large as the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.rendered.identity import Color

SUPERSAMPLING = 2
_FRACTION_BITS = 4
_FIXED = SUPERSAMPLING * (1 << _FRACTION_BITS)

Point = tuple[float, float, float]


class _Shape(NamedTuple):
    start: int
    stop: int
    color: Color
    smooth: bool
    width: float


class Sketch:
    """A list of filled shapes and strokes over shared control points."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._shapes: list[_Shape] = []

    def fill(self, points: Sequence[Point], color: Color, smooth: bool = True) -> None:
        """Add a filled outline; smooth runs a closed Catmull-Rom curve through the points."""
        self._add(points, color, smooth, 0.0)

    def stroke(
        self, points: Sequence[Point], color: Color, width: float, smooth: bool = True
    ) -> None:
        """Add an open line of `width` pixels of the crop."""
        self._add(points, color, smooth, width)

    def _add(self, points: Sequence[Point], color: Color, smooth: bool, width: float) -> None:
        start = len(self._points)
        self._points.extend(points)
        self._shapes.append(_Shape(start, len(self._points), color, smooth, width))

    def paint(
        self, canvas: NDArray[np.uint8], matrix: NDArray[np.float64], offset: NDArray[np.float64]
    ) -> None:
        """Paint everything; `matrix` (2, 3) and `offset` (2,) take points to pixels of the crop."""
        flat = (np.array(self._points) @ matrix.T + offset) * _FIXED
        for start, stop, color, smooth, width in self._shapes:
            points = flat[start:stop]
            if smooth:
                points = _curve(stop - start, width == 0) @ points
            fixed = points.round().astype(np.int32)
            if width:
                thickness = max(1, round(width * SUPERSAMPLING))
                cv2.polylines(canvas, [fixed], False, color, thickness, cv2.LINE_AA, _FRACTION_BITS)
            else:
                cv2.fillPoly(canvas, [fixed], color, cv2.LINE_AA, _FRACTION_BITS)


@lru_cache(maxsize=64)
def _curve(points: int, closed: bool, steps: int = 5) -> NDArray[np.float64]:
    """Return the matrix that takes control points to a Catmull-Rom curve through them."""
    t = np.arange(steps)[:, None] / steps
    cubic = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    weights = np.hstack([t**0, t, t**2, t**3]) @ cubic
    segments = points if closed else points - 1
    matrix = np.zeros((segments * steps + (not closed), points))
    for segment in range(segments):
        for tap in range(4):
            index = segment + tap - 1
            index = index % points if closed else min(max(index, 0), points - 1)
            matrix[segment * steps : (segment + 1) * steps, index] += weights[:, tap]
    if not closed:
        matrix[-1, -1] = 1
    return matrix

"""Strong degradations of training images: kinds, ranges, and one vectorised draw for a batch.

data/augment/batch.py carries them out, in the order of `KINDS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Uniforms = NDArray[np.float64]

# As a camera meets them: light, what covers the face, movement, lens, sensor, electronics.
KINDS = ("gamma", "occlusion", "motion", "blur", "resolution", "noise")
RADII = tuple(np.arange(0.5, 3.51, 0.25).tolist())  # pixels
SMALLEST_RESOLUTION, _LARGEST_RESOLUTION = 14, 80  # pixels, both drawn
LONGEST_MOTION, _SHORTEST_MOTION = 13, 3  # pixels, both drawn
AREA = (0.05, 0.35)  # share of the image under an occlusion
ASPECT = 0.4  # lowest height over width of an occlusion; the highest is its inverse
STRONG_COLUMNS = 15  # uniform numbers that an image uses up

_COUNT_SHARES = (0.5, 0.85)  # up to these, one kind and two kinds; else three
_DEVIATION = (3.0, 35.0)  # levels
_EXPONENT = (-1.1, 1.1)  # natural logarithm of the power


@dataclass(frozen=True)
class StrongParameters:
    """How B images are strongly degraded, if at all; arrays on the host.

    The box of an occlusion is with the mild ones, in `AugmentParameters.box`.

    Attributes:
        kinds: (B, 6) bool, which of `KINDS` befall an image; none for one that is not degraded.
        exponent: (B,) float64, gamma: levels become 255 (x / 255)^exp(exponent).
        motion: (B, 2) int64, pixels of a box blur along columns and along rows, 1 for none.
        blur: (B,) int64, index into `RADII` of a Gaussian blur.
        size: (B,) int64, pixels on a side of the resolution.
        deviation: (B,) float64, standard deviation of the noise in levels.
        noise_key: (B,) int64 below 2^32, from which the noise follows.
    """

    kinds: NDArray[np.bool_]
    exponent: NDArray[np.float64]
    motion: NDArray[np.int64]
    blur: NDArray[np.int64]
    size: NDArray[np.int64]
    deviation: NDArray[np.float64]
    noise_key: NDArray[np.int64]

    def has(self, kind: str) -> NDArray[np.bool_]:
        """Return (B,), whether one of `KINDS` befalls an image."""
        return self.kinds[:, KINDS.index(kind)]


def draw_strong(probability: float, uniforms: Uniforms) -> StrongParameters:
    """Turn uniform numbers (B, STRONG_COLUMNS) in [0, 1) into parameters, row by row.

    Args:
        probability: that an image is degraded: by 1, 2 or 3 distinct kinds with probability 0.5,
            0.35 and 0.15, every kind equally often.
        uniforms: see above.
    """
    degraded, count, exponent, length, axis, radius, size, deviation, key = uniforms[:, :9].T
    kinds = 1 + np.searchsorted(_COUNT_SHARES, count, side="right")
    rank = uniforms[:, 9:].argsort(axis=1).argsort(axis=1)
    lengths = _between(length, _SHORTEST_MOTION, LONGEST_MOTION)
    along = np.stack([axis < 0.5, axis >= 0.5], axis=1)
    return StrongParameters(
        kinds=(rank < kinds[:, None]) & (degraded < probability)[:, None],
        exponent=_EXPONENT[0] + (_EXPONENT[1] - _EXPONENT[0]) * exponent,
        motion=np.where(along, lengths[:, None], 1),
        blur=_between(radius, 0, len(RADII) - 1),
        size=_between(size, SMALLEST_RESOLUTION, _LARGEST_RESOLUTION),
        deviation=_DEVIATION[0] + (_DEVIATION[1] - _DEVIATION[0]) * deviation,
        noise_key=_between(key, 0, 2**32 - 1),
    )


def _between(uniforms: Uniforms, low: int, high: int) -> NDArray[np.int64]:
    """Return integers from low to high, both among them."""
    return low + (uniforms * (high - low + 1)).astype(np.int64)

"""What happens to each training image: one vectorised draw for a whole batch, on the host.

The original's set and rates, and which images are strongly degraded instead; data/augment/batch.py
carries the parameters out. Random numbers depend on nothing but (seed, step, row).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.images import SIZE
from utils.config import Augment

Uniforms = NDArray[np.float64]

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: successive states lie far apart

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

_MILD_COLUMNS = 25
COLUMNS = _MILD_COLUMNS + STRONG_COLUMNS  # uniform numbers that an image uses up
RARE = ("resize", "slight_blur", "rotate", "crop", "swap_channels", "grey")
SMALLEST = 28  # pixels: lower end of the down-and-up resize; its upper end is one below SIZE
CROP = 106  # pixels kept of SIZE: 0.95 of the side
ANGLE = 9.0  # degrees, to either side

_RARE_SHARES = np.cumsum([0.8, 0.8, 0.1, 0.1, 0.1, 0.1]) / 2.0
_AREA = (0.02, 0.4)  # share of the image under an occlusion: Random Erasing, arXiv 1708.04896
_ASPECT = 0.3  # lowest height over width of an occlusion; the highest is its inverse


@dataclass(frozen=True)
class StrongParameters:
    """How B images are strongly degraded, if at all; arrays on the host.

    The box of an occlusion is with the mild ones, in `AugmentParameters.box`.

    Attributes:
        kinds: (B, 6) bool, which of `KINDS` happen to an image; none to one that is not degraded.
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
        """Return (B,), whether one of `KINDS` happens to an image."""
        return self.kinds[:, KINDS.index(kind)]


def draw_strong(probability: float, uniforms: Uniforms) -> StrongParameters:
    """Turn uniform numbers (B, STRONG_COLUMNS) in [0, 1) into parameters, row by row.

    An image is degraded with this probability: by 1, 2 or 3 distinct kinds with probability 0.5,
    0.35 and 0.15, every kind equally often.
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


@dataclass(frozen=True)
class AugmentParameters:
    """What happens to each of B images; arrays on the host.

    Attributes:
        flip: (B,) bool.
        blur: (B,) int64, index into the config's `blur_radii`, -1 for none.
        box: (B, 4) int64, top, left, height and width of the occlusion in pixels; height 0: none.
        noisy: (B,) bool, whether the occlusion is noise; otherwise it is one colour.
        colour: (B, 3) int64, levels of that colour.
        noise_key: (B,) int64 below 2^32, from which the noise follows.
        rare: (B, 2) int64, index into `RARE` for the two rare draws, -1 for none.
        size: (B, 2) int64, pixels of a down-and-up resize.
        angle: (B, 2) float64, degrees counter-clockwise of a rotation.
        corner: (B, 2, 2) int64, top and left of a crop.
        strong: a strong degradation, instead of a blur and of rare draws.
    """

    flip: NDArray[np.bool_]
    blur: NDArray[np.int64]
    box: NDArray[np.int64]
    noisy: NDArray[np.bool_]
    colour: NDArray[np.int64]
    noise_key: NDArray[np.int64]
    rare: NDArray[np.int64]
    size: NDArray[np.int64]
    angle: NDArray[np.float64]
    corner: NDArray[np.int64]
    strong: StrongParameters

    def __len__(self) -> int:
        return len(self.flip)

    @property
    def unchanged(self) -> NDArray[np.bool_]:
        """(B,) True where nothing but a flip happens."""
        covered = self.box[:, 2] > 0
        rare = (self.rare >= 0).any(axis=1)
        return ~(covered | rare | (self.blur >= 0) | self.strong.kinds.any(axis=1))

    @classmethod
    def concatenate(cls, parts: Sequence[AugmentParameters]) -> AugmentParameters:
        """Join the parameters of several batches, in their order."""
        return cls(
            strong=StrongParameters(**_joined([part.strong for part in parts])), **_joined(parts)
        )


def _joined(
    parts: Sequence[AugmentParameters] | Sequence[StrongParameters],
) -> dict[str, NDArray[Any]]:
    names = [field.name for field in fields(parts[0]) if field.name != "strong"]
    return {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}


def draw_parameters(config: Augment, uniforms: Uniforms) -> AugmentParameters:
    """Turn uniform numbers (B, COLUMNS) in [0, 1) into parameters, each image from its own row."""
    flip, blur, radius, occluded, noisy, key = uniforms[:, :6].T
    shape, colour, rare = uniforms[:, 6:10], uniforms[:, 10:13], uniforms[:, 13:17]
    strong = draw_strong(config.degrade, uniforms[:, _MILD_COLUMNS:])
    degraded = np.asarray(strong.kinds.any(axis=1))
    covered = np.where(degraded, strong.has("occlusion"), occluded < config.occlusion)
    blurred = (blur < config.blur) & ~degraded
    return AugmentParameters(
        flip=flip < config.flip,
        blur=np.where(blurred, _between(radius, 0, len(config.blur_radii) - 1), -1),
        box=_boxes(covered, degraded, shape),
        noisy=noisy < 0.5,
        colour=_between(colour, 0, 255),
        noise_key=_between(key, 0, 2**32 - 1),
        rare=np.where(degraded[:, None], -1, _rare(config.rare, rare)),
        size=_between(uniforms[:, 17:19], SMALLEST, SIZE - 1),
        angle=np.where(uniforms[:, 19:21] < 0.5, -ANGLE, ANGLE),
        corner=_between(uniforms[:, 21:25], 0, SIZE - CROP).reshape(-1, 2, 2),
        strong=strong,
    )


def _boxes(
    covered: NDArray[np.bool_], degraded: NDArray[np.bool_], uniforms: Uniforms
) -> NDArray[np.int64]:
    """Return (B, 4) top, left, height, width; the aspect is uniform in its logarithm."""
    area, aspect, top, left = uniforms.T
    lowest, highest = np.where(degraded, np.array([AREA]).T, np.array([_AREA]).T)
    pixels = (lowest + (highest - lowest) * area) * SIZE * SIZE
    ratio = np.where(degraded, ASPECT, _ASPECT) ** (1 - 2 * aspect)
    height = np.minimum(np.rint(np.sqrt(pixels * ratio)), SIZE)
    width = np.minimum(np.rint(np.sqrt(pixels / ratio)), SIZE)
    top = np.floor(top * (SIZE - height + 1))
    left = np.floor(left * (SIZE - width + 1))
    boxes = np.stack([top, left, height, width], axis=1).astype(np.int64)
    return np.where(covered[:, None], boxes, 0)


def _rare(probability: float, uniforms: Uniforms) -> NDArray[np.int64]:
    """Return (B, 2) indices into `RARE`; a hit of the first draw halves the odds of the second."""
    hit = np.empty((len(uniforms), 2), dtype=bool)
    hit[:, 0] = uniforms[:, 0] < probability
    hit[:, 1] = uniforms[:, 1] < np.where(hit[:, 0], probability / 2, probability)
    kind = np.searchsorted(_RARE_SHARES, uniforms[:, 2:], side="right")
    return np.where(hit, np.minimum(kind, len(RARE) - 1), -1)


def keyed_uniforms(
    seed: int, step: int, rows: NDArray[np.int64], columns: int
) -> NDArray[np.float64]:
    """Return (B, columns) uniform numbers in [0, 1) for the images `rows` (B,) of a step.

    A row that occurs again in `rows` (an identity with few images) gets other numbers each time.
    Steele et al., "Fast Splittable Pseudorandom Number Generators" (SplitMix64), OOPSLA 2014.
    """
    keys = np.random.SeedSequence((seed, step)).generate_state(2, np.uint64)
    state = _mixed(rows.astype(np.uint64) ^ keys[0])
    state = _mixed((state + _occurrence(rows) * _STEP) ^ keys[1])
    counters = np.arange(1, columns + 1, dtype=np.uint64) * _STEP
    bits = _mixed(state[:, None] + counters)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _occurrence(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return how many earlier positions hold the same row."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(rows)])
    count = np.empty(len(rows), dtype=np.uint64)
    count[order] = np.arange(len(rows)) - np.repeat(starts, lengths)
    return count


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

"""What happens to each training image: rates, ranges, and one vectorised draw for a whole batch.

The original's set and rates, and which images are strongly degraded instead; data/augment/batch.py
carries the parameters out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.augment.strong import AREA, ASPECT, STRONG_COLUMNS, StrongParameters, draw_strong
from data.augment.warp import SIZE
from utils.config import Augment

Uniforms = NDArray[np.float64]

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


def _joined(parts: Sequence[Any]) -> dict[str, NDArray[Any]]:
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
        blur=np.where(blurred, _below(radius, len(config.blur_radii)), -1),
        box=_boxes(covered, degraded, shape),
        noisy=noisy < 0.5,
        colour=_below(colour, 256),
        noise_key=_below(key, 2**32),
        rare=np.where(degraded[:, None], -1, _rare(config.rare, rare)),
        size=SMALLEST + _below(uniforms[:, 17:19], SIZE - SMALLEST),
        angle=np.where(uniforms[:, 19:21] < 0.5, -ANGLE, ANGLE),
        corner=_below(uniforms[:, 21:25], SIZE - CROP + 1).reshape(-1, 2, 2),
        strong=strong,
    )


def _below(uniforms: Uniforms, count: int) -> NDArray[np.int64]:
    """Return integers 0 to count - 1."""
    return (uniforms * count).astype(np.int64)


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

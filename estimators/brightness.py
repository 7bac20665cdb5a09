"""How far the exposure is from a good one: too dark and too bright both count.

The luminance mean of ISO/IEC 29794-5, here over the whole crop and not the face alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from estimators.base import PixelMeasure, luminance
from models.frozen import FrozenBackbone

__all__ = ["Brightness"]


class Brightness(PixelMeasure):
    """Uncertainty = 1 - q(m) in 0..1, for the mean luminance m in 0 (black) to 1 (white).

    `q(m) = S((m - dark) / width) (1 - S((m - bright) / width))` with the logistic function S: the
    standard's mapping, best half-way between `dark` and `bright`, about one half at each of them.
    Its quality component is `100 q`, rounded.

    Args:
        dark: mean luminance below which a face is underexposed.
        bright: mean luminance above which it is overexposed.
        width: of the two steps.
    """

    name = "brightness"

    def __init__(
        self, *, frozen: FrozenBackbone, dark: float = 0.2, bright: float = 0.8, width: float = 0.05
    ) -> None:
        super().__init__(frozen=frozen)
        if not 0 <= dark < bright <= 1:
            raise ValueError(f"dark = {dark}, bright = {bright}: must be 0 <= dark < bright <= 1")
        if not width > 0:
            raise ValueError(f"width = {width}: must be above 0")
        self.dark, self.bright, self.width = dark, bright, width

    def uncertainty(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (B,) values in 0..1."""
        mean = luminance(images).mean(axis=(1, 2), dtype=np.float64)
        lit = expit((mean - self.dark) / self.width)
        return 1 - lit * expit((self.bright - mean) / self.width)

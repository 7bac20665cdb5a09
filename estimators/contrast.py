"""How much light and shade there is: the spread of the luminance.

Fog, flat light and strong under- or overexposure lower it; a bright background raises it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from estimators.base import PixelMeasure, luminance

__all__ = ["Contrast"]


class Contrast(PixelMeasure):
    """Uncertainty = -standard deviation of the luminance (0 black, 1 white) over the crop.

    The square is the luminance variance of ISO/IEC 29794-5, which takes it over the face alone.
    """

    name = "contrast"

    def uncertainty(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (B,) values from -0.5 (half black, half white) to 0 (one even colour)."""
        return -luminance(images).std(axis=(1, 2), dtype=np.float64)

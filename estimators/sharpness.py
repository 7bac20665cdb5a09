"""How sharp the pixels are: the variance of the Laplacian, the usual measure of focus.

Cheap, and blind to everything but fine detail: noise and hair count as sharpness too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from estimators.base import PixelMeasure, grey

__all__ = ["Sharpness"]

_LAPLACIAN = np.array([[[0, 1, 0], [1, -4, 1], [0, 1, 0]]], np.float32)


class Sharpness(PixelMeasure):
    """Uncertainty = -variance of the image's Laplacian, in squared grey levels (0 to 255).

    Four neighbours minus four times the middle; the border is mirrored without repeating its
    pixels, as OpenCV does by default (Pech-Pacheco et al., ICPR 2000).
    """

    name = "sharpness"

    def uncertainty(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (B,) values of at most 0."""
        laplacian = correlate(grey(images), _LAPLACIAN, mode="mirror")
        return -laplacian.var(axis=(1, 2), dtype=np.float64).astype(np.float32)

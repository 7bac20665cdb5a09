"""How fine the detail is that the pixels carry, whatever the size of the file.

An image that was enlarged has no high frequencies, and that shows in its spectrum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from estimators.base import PixelMeasure, grey

__all__ = ["Resolution"]


class Resolution(PixelMeasure):
    """Uncertainty = -root mean square spatial frequency, in cycles per pixel.

    The mean is over the power spectrum of the grey levels, without their mean and under a Hann
    window (which hides the jump from one border to the opposite one):

        sqrt( sum |F(f)|^2 |f|^2 / sum |F(f)|^2 )

    A plain grating of frequency f has f; an image enlarged k times has nothing much above 0.7 / k.
    Unlike the variance of the Laplacian it does not depend on contrast. An even image has 0.
    """

    name = "resolution"

    def uncertainty(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return (B,) values from -0.71 to 0."""
        return -rms_frequency(grey(images).astype(np.float64))


def rms_frequency(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the root mean square frequency (B,) of (B, H, W) grey levels, in cycles per pixel."""
    _, height, width = levels.shape
    window = np.outer(_hann(height), _hann(width))
    mean = (levels * window).sum(axis=(1, 2), keepdims=True) / window.sum()
    power = np.abs(fft.rfft2((levels - mean) * window)) ** 2
    # The half that rfft2 leaves out mirrors the one it gives, but for the first and last column.
    twice = np.full(power.shape[2], 2.0)
    twice[0] = 1
    if width % 2 == 0:
        twice[-1] = 1
    power *= twice
    squared = fft.fftfreq(height)[:, None] ** 2 + fft.rfftfreq(width) ** 2
    total = power.sum(axis=(1, 2))
    # What rounding leaves of an even image has no frequency.
    even = total <= 1e-12 * np.square(levels).sum(axis=(1, 2)) * window.size
    moment = (power * squared).sum(axis=(1, 2))
    return np.sqrt(np.where(even, 0.0, moment / np.where(even, 1.0, total)))


def _hann(size: int) -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(size) + 0.5) / size)

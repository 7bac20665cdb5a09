"""Separable image operations as matrices: an image X becomes L X R^T, rows by L, columns by R.

Built once in float64 on the host; data/augment/batch.py looks them up and multiplies on the device.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

SIZE = 112  # pixels on a side of every image
_PASSES = 3  # box filters that together approximate one Gaussian


def blur_matrix(radius: float) -> Matrix:
    """Return the (112, 112) matrix of Pillow's `GaussianBlur(radius)`; edges repeat.

    Three extended box filters of the Gaussian's variance: Gwosdek et al., "Theoretical Foundations
    of Gaussian Convolution by Extended Box Filtering", SSVM 2011.

    Args:
        radius: standard deviation of the Gaussian in pixels, above 0.
    """
    variance = radius * radius / _PASSES
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    # Weight of the two outermost pixels that gives the box exactly this variance.
    edge = (2 * whole + 1) * (3 * variance - whole * (whole + 1))
    edge /= 6 * ((whole + 1) ** 2 - variance)
    taps = np.ones(2 * whole + 3)
    taps[[0, -1]] = edge
    return np.linalg.matrix_power(_filter_matrix(taps, -whole - 1), _PASSES)


def motion_matrix(length: int) -> Matrix:
    """Return the (112, 112) matrix of the mean over `length` pixels; edges repeat.

    An even length reaches one pixel further to the front, as OpenCV's `blur` does.
    """
    return _filter_matrix(np.ones(length), -(length // 2))


def _filter_matrix(taps: Matrix, first: int) -> Matrix:
    """Return the (112, 112) matrix of a filter, its taps scaled to sum 1; edges repeat."""
    matrix = np.zeros((SIZE, SIZE))
    targets = np.arange(SIZE)
    for offset, weight in enumerate(taps / taps.sum(), start=first):
        np.add.at(matrix, (targets, np.clip(targets + offset, 0, SIZE - 1)), weight)
    return matrix


def resize_matrix(source: int, target: int) -> Matrix:
    """Return the (target, source) matrix of Pillow's bilinear resize.

    A triangle that is as wide as the step between target pixels, so downscaling does not alias.
    """
    step = source / target
    width = max(step, 1.0)
    centres = (np.arange(target) + 0.5) * step
    distance = np.abs(np.arange(source) + 0.5 - centres[:, None]) / width
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def down_up_matrix(size: int) -> Matrix:
    """Return the (112, 112) matrix of a resize to `size` pixels and back."""
    return resize_matrix(size, SIZE) @ resize_matrix(SIZE, size)


def crop_matrix(offset: int, extent: int) -> Matrix:
    """Return the (112, 112) matrix that enlarges `extent` pixels from `offset` to the full side."""
    matrix = np.zeros((SIZE, SIZE))
    matrix[:, offset : offset + extent] = resize_matrix(extent, SIZE)
    return matrix

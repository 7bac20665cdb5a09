"""The changes of data/augment/batch.py as tensor operations, and the matrices they multiply by.

Operations run on the device for a whole batch: each changes in place those images of pixels
(B, 112, 112, 3) float32 that an index (n,) names; nothing here makes the host wait for the device.
Separable changes are matrices: an image X becomes L X R^T, rows by L, columns by R. They are built
once in float64 on the host.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from data.images import SIZE

Matrix = NDArray[np.float64]

_PASSES = 3  # box filters that together approximate one Gaussian
BYTES_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)
_BYTES_MEAN = 510  # of the sum of four uniform bytes, whose standard deviation is above


def blur_matrix(radius: float) -> Matrix:
    """Return the (112, 112) matrix of Pillow's `GaussianBlur(radius)`, radius > 0; edges repeat.

    Three extended box filters of the Gaussian's variance: Gwosdek et al., "Theoretical Foundations
    of Gaussian Convolution by Extended Box Filtering", SSVM 2011.
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


def flipped(images: Tensor, index: Tensor) -> Tensor:
    """Return a copy of images (B, 112, 112, 3) of any type with some of them mirrored."""
    return images.index_copy(0, index, images.index_select(0, index).flip(2))


def multiply(pixels: Tensor, index: Tensor, left: Tensor, right: Tensor) -> None:
    """Replace X by L X R^T; left and right are (n, 112, 112)."""
    chosen = pixels.index_select(0, index)
    # (n, H, W * 3), then (n, W, H * 3): two batched products, without a copy of the matrices.
    chosen = torch.bmm(left, chosen.flatten(2)).view_as(chosen).transpose(1, 2)
    chosen = torch.bmm(right, chosen.flatten(2)).view_as(chosen).transpose(1, 2)
    pixels.index_copy_(0, index, chosen.clamp_(0, 255))


def cover(
    pixels: Tensor,
    index: Tensor,
    box: Tensor,
    colour: Tensor,
    noisy: Tensor | None = None,
    keys: Tensor | None = None,
) -> None:
    """Cover boxes (n, 4) of top, left, height, width with colours (n, 3), or with noise; all int64.

    Those of the n boxes that `noisy` (m,) names get the noise of `keys` (m,).
    """
    top, left, height, width = box.T[:, :, None]
    at = torch.arange(SIZE, device=pixels.device)
    in_rows = (at >= top) & (at < top + height)
    in_columns = (at >= left) & (at < left + width)
    inside = in_rows[:, :, None, None] & in_columns[:, None, :, None]
    filled = torch.where(inside, colour[:, None, None, :].float(), pixels.index_select(0, index))
    if noisy is not None and keys is not None:
        levels = (_hashed(keys) >> 24).float()
        noise = torch.where(inside.index_select(0, noisy), levels, filled.index_select(0, noisy))
        filled.index_copy_(0, noisy, noise)
    pixels.index_copy_(0, index, filled)


def brighten(pixels: Tensor, index: Tensor, power: Tensor) -> None:
    """Raise levels, as shares of 255, to a power (n,)."""
    chosen = pixels.index_select(0, index) / 255
    pixels.index_copy_(0, index, 255 * chosen ** power[:, None, None, None])


def add_noise(pixels: Tensor, index: Tensor, keys: Tensor, scale: Tensor) -> None:
    """Add noise that is close to Gaussian: the sum of the four bytes of a hash of keys (n,).

    Its standard deviation is scale (n,) float32 times `BYTES_DEVIATION`.
    """
    state = _hashed(keys)
    pairs = (state & 0x00FF00FF) + (state.bitwise_right_shift_(8).bitwise_and_(0x00FF00FF))
    noise = ((pairs & 0xFFFF) + pairs.bitwise_right_shift_(16)).float() - _BYTES_MEAN
    noise.mul_(scale[:, None, None, None]).add_(pixels.index_select(0, index))
    pixels.index_copy_(0, index, noise.clamp_(0, 255))


def rotate(pixels: Tensor, index: Tensor, theta: Tensor) -> None:
    """Look each target pixel up at its source, by affine maps theta (n, 2, 3)."""
    source = pixels.index_select(0, index).permute(0, 3, 1, 2)
    grid = F.affine_grid(theta, list(source.shape), align_corners=False)
    turned = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    pixels.index_copy_(0, index, turned.permute(0, 2, 3, 1).clamp(0, 255))


def swap_channels(pixels: Tensor, index: Tensor) -> None:
    """Swap red and blue."""
    pixels.index_copy_(0, index, pixels.index_select(0, index).flip(3))


def make_grey(pixels: Tensor, index: Tensor, luma: Tensor) -> None:
    """Set all channels to their sum weighted with luma (3,)."""
    grey = pixels.index_select(0, index) @ luma
    pixels.index_copy_(0, index, grey[..., None].expand(-1, -1, -1, 3))


def _hashed(keys: Tensor) -> Tensor:
    """Return 32-bit numbers, (n, 112, 112, 3) int64, that follow from keys (n,) on any device.

    A 32-bit integer hash (two xor-shift-multiply rounds) of pixel number and key; int64 holds it,
    products wrap and are cut to 32 bits.
    """
    pixel = torch.arange(SIZE * SIZE * 3, device=keys.device)
    state = (pixel * 0x9E3779B9 + keys[:, None]).bitwise_and_(0xFFFFFFFF)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        state.bitwise_xor_(state >> shift).mul_(factor).bitwise_and_(0xFFFFFFFF)
    return state.view(-1, SIZE, SIZE, 3)

"""Changes to training images, drawn per image on the host and run for a whole batch on the device.

What happens to an image depends on the seed, the step and its row alone, so a resumed run, another
split of the batch or another device sees the same images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from data._augment_parameters import (
    COLUMNS,
    CROP,
    RARE,
    AugmentParameters,
    draw_parameters,
)
from data._draws import keyed_uniforms
from data._strong import LONGEST_MOTION, RADII, SMALLEST_RESOLUTION, StrongParameters
from data._warp import SIZE, blur_matrix, crop_matrix, down_up_matrix, motion_matrix
from utils.config import Augment

__all__ = ["RARE", "AugmentParameters", "BatchAugment"]

_SLIGHT_RADIUS = 0.5  # pixels
_BYTES_MEAN = 510  # of the sum of four uniform bytes
_BYTES_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)
_LUMA = (0.299, 0.587, 0.114)  # of R, G and B: ITU-R BT.601


class BatchAugment:
    """The original's changes, in its order: flip, blur, occlusion, then two rare draws.

    With `config.degrade`, an image is strongly degraded instead, after the flip, by 1 to 3 of
    gamma, occlusion, motion, blur, resolution and noise, in this order. JPEG artefacts are not
    among them: a codec does not run for a batch on the device.

    Blur, resizes and crops are products with matrices (data/_warp.py), on those images alone that
    need one. Pixels outside a rotated image repeat its edge. Levels stay within 0..255 and are not
    rounded in between.

    Args:
        config: the rates; all 0 leaves every image exactly as it is.
        seed: of the run, at least 0.
    """

    def __init__(self, config: Augment, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"augment: seed = {seed!r}: must be at least 0")
        self.config = config
        self.seed = seed
        groups = {
            "blur": [blur_matrix(radius) for radius in config.blur_radii],
            "slight_blur": [blur_matrix(_SLIGHT_RADIUS)],
            "resize": [down_up_matrix(size) for size in range(SMALLEST_RESOLUTION, SIZE)],
            "crop": [crop_matrix(offset, CROP) for offset in range(SIZE - CROP + 1)],
            "strong_blur": [blur_matrix(radius) for radius in RADII],
            "motion": [motion_matrix(length) for length in range(1, LONGEST_MOTION + 1)],
        }
        starts = np.cumsum([0, *map(len, groups.values())])[:-1]
        self._start = dict(zip(groups, starts.tolist(), strict=True))
        matrices = np.concatenate(list(groups.values()))
        self._host_bank = torch.from_numpy(matrices.astype(np.float32))
        self._banks: dict[torch.device, Tensor] = {}

    def parameters(self, step: int, rows: NDArray[np.int64]) -> AugmentParameters:
        """Draw what happens to a batch.

        Args:
            step: global optimizer step, at least 0.
            rows: (B,), which image each position holds; copies of one row are told apart by
                their order.
        """
        uniforms = keyed_uniforms(self.seed, step, np.asarray(rows), COLUMNS)
        return draw_parameters(self.config, uniforms)

    def __call__(self, images: Tensor, parameters: AugmentParameters) -> Tensor:
        """Return the changed images, (B, 3, 112, 112) float32 with levels 0..255, channels last.

        Args:
            images: (B, 112, 112, 3) uint8; left as it is.
            parameters: of these images, from `parameters`.

        Raises:
            ValueError: images of another shape or type, or another number of parameters.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(
                f"augment takes uint8 images (B, {SIZE}, {SIZE}, 3), got {images.dtype} "
                f"{tuple(images.shape)}"
            )
        if len(images) != len(parameters):
            raise ValueError(f"augment: {len(images)} images but {len(parameters)} parameters")
        pixels = _flipped(images, parameters).float()
        _brighten(pixels, parameters.strong)
        self._multiply(pixels, parameters.blur, parameters.blur)
        _occlude(pixels, parameters)
        self._soften(pixels, parameters.strong)
        _add_noise(pixels, parameters.strong)
        for draw in range(2):
            self._rare(pixels, parameters, draw)
        return pixels.permute(0, 3, 1, 2)

    def _soften(self, pixels: Tensor, strong: StrongParameters) -> None:
        motion = np.where(strong.has("motion"), self._start["motion"] + strong.motion.T - 1, -1)
        self._multiply(pixels, motion[0], motion[1])
        blur = np.where(strong.has("blur"), self._start["strong_blur"] + strong.blur, -1)
        self._multiply(pixels, blur, blur)
        size = self._start["resize"] + strong.size - SMALLEST_RESOLUTION
        size = np.where(strong.has("resolution"), size, -1)
        self._multiply(pixels, size, size)

    def _rare(self, pixels: Tensor, parameters: AugmentParameters, draw: int) -> None:
        kind = parameters.rare[:, draw]
        is_kind = {name: kind == index for index, name in enumerate(RARE)}
        slight = np.int64(self._start["slight_blur"])
        size = self._start["resize"] + parameters.size[:, draw] - SMALLEST_RESOLUTION
        corner = self._start["crop"] + parameters.corner[:, draw]
        chosen = [is_kind["slight_blur"], is_kind["resize"], is_kind["crop"]]
        vertical = np.select(chosen, [slight, size, corner[:, 0]], -1)
        horizontal = np.select(chosen, [slight, size, corner[:, 1]], -1)
        self._multiply(pixels, vertical, horizontal)
        _rotate(pixels, is_kind["rotate"], parameters.angle[:, draw])
        _swap_channels(pixels, is_kind["swap_channels"])
        _grey(pixels, is_kind["grey"])

    def _multiply(
        self, pixels: Tensor, vertical: NDArray[np.int64], horizontal: NDArray[np.int64]
    ) -> None:
        """Replace X by L X R^T where an image has matrices; -1 stands for none."""
        rows = np.flatnonzero(vertical >= 0)
        if not len(rows):
            return
        bank = self._bank(pixels.device)
        index = _to(rows, pixels)
        left, right = bank[_to(vertical[rows], pixels)], bank[_to(horizontal[rows], pixels)]
        chosen = pixels.index_select(0, index)
        # (n, H, W * 3), then (n, W, H * 3): two batched products, without a copy of the matrices.
        chosen = torch.bmm(left, chosen.flatten(2)).view_as(chosen).transpose(1, 2)
        chosen = torch.bmm(right, chosen.flatten(2)).view_as(chosen).transpose(1, 2)
        pixels.index_copy_(0, index, chosen.clamp_(0, 255))

    def _bank(self, device: torch.device) -> Tensor:
        if device not in self._banks:
            self._banks[device] = self._host_bank.to(device)
        return self._banks[device]


def _to(array: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device, non_blocking=True)


def _flipped(images: Tensor, parameters: AugmentParameters) -> Tensor:
    rows = np.flatnonzero(parameters.flip)
    if not len(rows):
        return images
    index = _to(rows, images)
    return images.index_copy(0, index, images.index_select(0, index).flip(2))


def _occlude(pixels: Tensor, parameters: AugmentParameters) -> None:
    rows = np.flatnonzero(parameters.box[:, 2])
    if not len(rows):
        return
    index = _to(rows, pixels)
    top, left, height, width = _to(parameters.box[rows], pixels).T[:, :, None]
    at = torch.arange(SIZE, device=pixels.device)
    in_rows = (at >= top) & (at < top + height)
    in_columns = (at >= left) & (at < left + width)
    inside = in_rows[:, :, None, None] & in_columns[:, None, :, None]
    colour = _to(parameters.colour[rows], pixels)[:, None, None, :].float()
    filled = torch.where(inside, colour, pixels.index_select(0, index))
    noisy = np.flatnonzero(parameters.noisy[rows])
    if len(noisy):
        at_noisy = _to(noisy, pixels)
        levels = _hashed(_to(parameters.noise_key[rows[noisy]], pixels)) >> 24
        filled[at_noisy] = torch.where(inside[at_noisy], levels.float(), filled[at_noisy])
    pixels.index_copy_(0, index, filled)


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


def _brighten(pixels: Tensor, strong: StrongParameters) -> None:
    rows = np.flatnonzero(strong.has("gamma"))
    if not len(rows):
        return
    index = _to(rows, pixels)
    power = _to(np.exp(strong.exponent[rows]).astype(np.float32), pixels)[:, None, None, None]
    pixels.index_copy_(0, index, 255 * (pixels.index_select(0, index) / 255) ** power)


def _add_noise(pixels: Tensor, strong: StrongParameters) -> None:
    """Add noise that is close to Gaussian: the sum of the four bytes of a hash."""
    rows = np.flatnonzero(strong.has("noise"))
    if not len(rows):
        return
    index = _to(rows, pixels)
    state = _hashed(_to(strong.noise_key[rows], pixels))
    pairs = (state & 0x00FF00FF) + (state.bitwise_right_shift_(8).bitwise_and_(0x00FF00FF))
    noise = ((pairs & 0xFFFF) + pairs.bitwise_right_shift_(16)).float() - _BYTES_MEAN
    scale = _to((strong.deviation[rows] / _BYTES_DEVIATION).astype(np.float32), pixels)
    noise.mul_(scale[:, None, None, None]).add_(pixels.index_select(0, index))
    pixels.index_copy_(0, index, noise.clamp_(0, 255))


def _rotate(pixels: Tensor, chosen: NDArray[np.bool_], degrees: NDArray[np.float64]) -> None:
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    index = _to(rows, pixels)
    angle = np.deg2rad(degrees[rows])
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros(len(rows))
    # From target to source, about the centre, y downwards.
    inverse = np.stack([cosine, -sine, zero, sine, cosine, zero], axis=1).reshape(-1, 2, 3)
    source = pixels.index_select(0, index).permute(0, 3, 1, 2)
    theta = _to(inverse.astype(np.float32), pixels)
    grid = F.affine_grid(theta, list(source.shape), align_corners=False)
    turned = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
    pixels.index_copy_(0, index, turned.permute(0, 2, 3, 1).clamp(0, 255))


def _swap_channels(pixels: Tensor, chosen: NDArray[np.bool_]) -> None:
    rows = np.flatnonzero(chosen)
    if len(rows):
        index = _to(rows, pixels)
        pixels.index_copy_(0, index, pixels.index_select(0, index).flip(3))


def _grey(pixels: Tensor, chosen: NDArray[np.bool_]) -> None:
    rows = np.flatnonzero(chosen)
    if len(rows):
        index = _to(rows, pixels)
        grey = pixels.index_select(0, index) @ pixels.new_tensor(_LUMA)
        pixels.index_copy_(0, index, grey[..., None].expand(-1, -1, -1, 3))

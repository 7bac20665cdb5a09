"""Changes to training images, drawn per image on the host and run for a whole batch on the device.

What happens to an image depends on the seed, the step and its row alone, so a resumed run, another
split of the batch or another device sees the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.augment import operations
from data.augment.operations import blur_matrix, crop_matrix, down_up_matrix, motion_matrix
from data.augment.parameters import (
    COLUMNS,
    CROP,
    LONGEST_MOTION,
    RADII,
    RARE,
    SMALLEST_RESOLUTION,
    AugmentParameters,
    StrongParameters,
    draw_parameters,
    keyed_uniforms,
)
from data.images import SIZE
from utils.config import Augment
from utils.device import all_to_device, to_device

__all__ = ["RARE", "AugmentParameters", "BatchAugment"]

_SLIGHT_RADIUS = 0.5  # pixels
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # of R, G and B: ITU-R BT.601

Rows = NDArray[np.int64]
# What to do to pixels, and with which arrays: rows of the batch, then what each of them needs.
Change = tuple[Callable[..., None], tuple[NDArray[np.generic], ...]]


class BatchAugment:
    """The original's changes, in its order: flip, blur, occlusion, then two rare draws.

    With `config.degrade`, an image is strongly degraded instead, after the flip, by 1 to 3 of
    gamma, occlusion, motion, blur, resolution and noise, in this order. JPEG artefacts are not
    among them: a codec does not run for a batch on the device.

    Blur, resizes and crops are products with matrices (data/augment/operations.py), on those images
    alone that need one. Pixels outside a rotated image repeat its edge. Levels stay within 0..255
    and are not rounded in between.

    All that a batch needs goes to the device in one transfer, and the host never waits for it.

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
        self._host_bank = matrices.astype(np.float32)
        self._banks: dict[torch.device, Tensor] = {}

    def parameters(self, step: int, rows: NDArray[np.int64]) -> AugmentParameters:
        """Draw what happens to the images `rows` (B,) of a step; copies differ by their order."""
        uniforms = keyed_uniforms(self.seed, step, np.asarray(rows), COLUMNS)
        return draw_parameters(self.config, uniforms)

    def __call__(self, images: Tensor, parameters: AugmentParameters) -> Tensor:
        """Change images (B, 112, 112, 3) uint8, which stay as they are, as `parameters` drew.

        Returns:
            (B, 3, 112, 112) float32 with levels 0..255, channels last.

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
        changes = [change for change in self._changes(parameters) if len(change[1][0])]
        arrays = [array for _, needs in changes for array in needs]
        flip = np.flatnonzero(parameters.flip)
        if len(flip):
            *sent, index = all_to_device([*arrays, flip], images.device)
            pixels = operations.flipped(images, index).float()
        else:
            sent, pixels = all_to_device(arrays, images.device), images.float()
        left = iter(sent)
        for change, needs in changes:
            change(pixels, *(next(left) for _ in needs))
        return pixels.permute(0, 3, 1, 2)

    def _changes(self, parameters: AugmentParameters) -> Iterator[Change]:
        """Yield everything after the flip, in its order; some changes apply to no image."""
        strong = parameters.strong
        yield _brighten(strong)
        yield self._multiply(parameters.blur, parameters.blur)
        yield _cover(parameters)
        yield from self._soften(strong)
        yield _add_noise(strong)
        for draw in range(2):
            yield from self._rare(parameters, draw)

    def _soften(self, strong: StrongParameters) -> Iterator[Change]:
        motion = np.where(strong.has("motion"), self._start["motion"] + strong.motion.T - 1, -1)
        yield self._multiply(motion[0], motion[1])
        blur = np.where(strong.has("blur"), self._start["strong_blur"] + strong.blur, -1)
        yield self._multiply(blur, blur)
        size = self._start["resize"] + strong.size - SMALLEST_RESOLUTION
        size = np.where(strong.has("resolution"), size, -1)
        yield self._multiply(size, size)

    def _rare(self, parameters: AugmentParameters, draw: int) -> Iterator[Change]:
        kind = parameters.rare[:, draw]
        is_kind = {name: kind == index for index, name in enumerate(RARE)}
        slight = np.int64(self._start["slight_blur"])
        size = self._start["resize"] + parameters.size[:, draw] - SMALLEST_RESOLUTION
        corner = self._start["crop"] + parameters.corner[:, draw]
        chosen = [is_kind["slight_blur"], is_kind["resize"], is_kind["crop"]]
        vertical = np.select(chosen, [slight, size, corner[:, 0]], -1)
        horizontal = np.select(chosen, [slight, size, corner[:, 1]], -1)
        yield self._multiply(vertical, horizontal)
        yield _rotate(is_kind["rotate"], parameters.angle[:, draw])
        yield operations.swap_channels, (np.flatnonzero(is_kind["swap_channels"]),)
        yield operations.make_grey, (np.flatnonzero(is_kind["grey"]), _LUMA)

    def _multiply(self, vertical: Rows, horizontal: Rows) -> Change:
        """Replace X by L X R^T where an image has matrices; -1 stands for none."""

        def run(pixels: Tensor, index: Tensor, left: Tensor, right: Tensor) -> None:
            bank = self._bank(pixels.device)
            operations.multiply(pixels, index, bank[left], bank[right])

        rows = np.flatnonzero(vertical >= 0)
        return run, (rows, vertical[rows], horizontal[rows])

    def _bank(self, device: torch.device) -> Tensor:
        if device not in self._banks:
            self._banks[device] = to_device(self._host_bank, device)
        return self._banks[device]


def _cover(parameters: AugmentParameters) -> Change:
    rows = np.flatnonzero(parameters.box[:, 2])
    needs = (rows, parameters.box[rows], parameters.colour[rows])
    noisy = np.flatnonzero(parameters.noisy[rows])
    if len(noisy):
        return operations.cover, (*needs, noisy, parameters.noise_key[rows[noisy]])
    return operations.cover, needs


def _brighten(strong: StrongParameters) -> Change:
    rows = np.flatnonzero(strong.has("gamma"))
    return operations.brighten, (rows, np.exp(strong.exponent[rows]).astype(np.float32))


def _add_noise(strong: StrongParameters) -> Change:
    rows = np.flatnonzero(strong.has("noise"))
    scale = (strong.deviation[rows] / operations.BYTES_DEVIATION).astype(np.float32)
    return operations.add_noise, (rows, strong.noise_key[rows], scale)


def _rotate(chosen: NDArray[np.bool_], degrees: NDArray[np.float64]) -> Change:
    rows = np.flatnonzero(chosen)
    angle = np.deg2rad(degrees[rows])
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros(len(rows))
    # From target to source, about the centre, y downwards.
    inverse = np.stack([cosine, -sine, zero, sine, cosine, zero], axis=1).reshape(-1, 2, 3)
    return operations.rotate, (rows, inverse.astype(np.float32))

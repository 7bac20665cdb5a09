"""Changes to training images, drawn per image on the host and run for a whole batch on the device.

What happens to an image depends on the seed, the step and its row alone, so a resumed run, another
split of the batch or another device sees the same images. First comes what is drawn: the original's
set and rates, and which images are strongly degraded instead. Then the operations: each changes in
place those images of pixels (B, 112, 112, 3) float32 that an index (n,) names, and never makes the
host wait for the device. Separable changes are matrices, built once in float64 on the host: an
image X becomes L X R^T, rows by L, columns by R. `BatchAugment` joins both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from data.images import SIZE
from utils.config import Augment
from utils.device import all_to_device, to_device

Uniforms = NDArray[np.float64]
Matrix = NDArray[np.float64]
Rows = NDArray[np.int64]
# What to do to pixels, and with which arrays: rows of the batch, then what each of them needs.
Change = tuple[Callable[..., None], tuple[NDArray[np.generic], ...]]

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

_SLIGHT_RADIUS = 0.5  # pixels
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # of R, G and B: ITU-R BT.601
_PASSES = 3  # box filters that together approximate one Gaussian
BYTES_DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)
_BYTES_MEAN = 510  # of the sum of four uniform bytes, whose standard deviation is above


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


class BatchAugment:
    """The original's changes, in its order: flip, blur, occlusion, then two rare draws.

    With `config.degrade`, an image is strongly degraded instead, after the flip, by 1 to 3 of
    gamma, occlusion, motion, blur, resolution and noise, in this order. JPEG artefacts are not
    among them: a codec does not run for a batch on the device.

    Blur, resizes and crops are products with matrices (data/augment.py), on those images
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
            pixels = flipped(images, index).float()
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
        yield swap_channels, (np.flatnonzero(is_kind["swap_channels"]),)
        yield make_grey, (np.flatnonzero(is_kind["grey"]), _LUMA)

    def _multiply(self, vertical: Rows, horizontal: Rows) -> Change:
        """Replace X by L X R^T where an image has matrices; -1 stands for none."""

        def run(pixels: Tensor, index: Tensor, left: Tensor, right: Tensor) -> None:
            bank = self._bank(pixels.device)
            multiply(pixels, index, bank[left], bank[right])

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
        return cover, (*needs, noisy, parameters.noise_key[rows[noisy]])
    return cover, needs


def _brighten(strong: StrongParameters) -> Change:
    rows = np.flatnonzero(strong.has("gamma"))
    return brighten, (rows, np.exp(strong.exponent[rows]).astype(np.float32))


def _add_noise(strong: StrongParameters) -> Change:
    rows = np.flatnonzero(strong.has("noise"))
    scale = (strong.deviation[rows] / BYTES_DEVIATION).astype(np.float32)
    return add_noise, (rows, strong.noise_key[rows], scale)


def _rotate(chosen: NDArray[np.bool_], degrees: NDArray[np.float64]) -> Change:
    rows = np.flatnonzero(chosen)
    angle = np.deg2rad(degrees[rows])
    cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros(len(rows))
    # From target to source, about the centre, y downwards.
    inverse = np.stack([cosine, -sine, zero, sine, cosine, zero], axis=1).reshape(-1, 2, 3)
    return rotate, (rows, inverse.astype(np.float32))

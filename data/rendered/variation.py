"""What one image of a rendered face is like: pose, light, expression, and four degradations.

The degradations act on finished pixels and their strengths run from 0 (none) to 1 (hardly a face).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Degradation = Literal["blur", "resolution", "noise", "occlusion"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)

BLUR_SIGMA = 6.0  # pixels at strength 1
SMALLEST = 9  # pixels a side at resolution strength 1
NOISE_SIGMA = 90.0  # grey levels at strength 1
COVERED = 0.62  # share of the crop's width or height hidden at occlusion strength 1
CLEAN_SHARE = 0.4  # of images without any degradation


@dataclass(frozen=True)
class Variation:
    """One image's conditions; the default is a clean passport picture."""

    yaw: float = 0.0  # degrees, positive turns the nose to the right of the image
    pitch: float = 0.0  # degrees, positive looks down
    roll: float = 0.0  # degrees that the alignment leaves over
    zoom: float = 1.0  # scale that the alignment leaves over
    shift: tuple[float, float] = (0.0, 0.0)  # pixels (x, y) that the alignment leaves over
    light_angle: float = -2.0  # radians, where the light comes from (0 right, pi / 2 below)
    light_strength: float = 0.0  # 0 (even) to 1 (far side in the dark)
    warmth: float = 0.0  # -1 (blue light) to 1 (orange light)
    exposure: float = 1.0  # brightness as a factor
    smile: float = 0.4  # -0.5 (sad) to 1
    mouth_open: float = 0.0  # 0 to 1
    brow_raise: float = 0.0  # -1 to 1
    eye_open: float = 1.0  # 0.1 (blinking) to 1.2
    gaze: float = 0.0  # -1 (left) to 1
    background: float = 0.55  # 0 to 1, a hue
    blur: float = 0.0  # strength of a Gaussian blur
    resolution: float = 0.0  # strength of shrinking and enlarging again
    noise: float = 0.0  # strength of sensor noise
    occlusion: float = 0.0  # strength of something in front of the face
    seed: int = 0  # fixes the noise, the occluder's kind and place, and clothes

    def __post_init__(self) -> None:
        for kind in DEGRADATIONS:
            strength = getattr(self, kind)
            if not 0 <= strength <= 1:
                raise ValueError(f"{kind} = {strength}: a degradation's strength is in [0, 1]")

    @property
    def degradation(self) -> float:
        """All four strengths in one number: 1 - (1 - blur)(1 - resolution)(1 - noise)(...)."""
        intact = 1.0
        for kind in DEGRADATIONS:
            intact *= 1.0 - getattr(self, kind)
        return 1.0 - intact

    @classmethod
    def draw(cls, seed: int, identity: int, image: int, severity: float = 1.0) -> Variation:
        """Return the conditions of one image; `severity` (0..1) scales its degradations."""
        rng = np.random.default_rng((seed, identity, image, 1))
        bell = rng.standard_normal(10)
        strengths = _draw_strengths(rng, severity)
        smile, mouth_open, blink, *rest = rng.uniform(size=6)
        return cls(
            yaw=float(np.clip(12 * bell[0], -28, 28)),
            pitch=float(np.clip(6 * bell[1], -15, 15)),
            roll=float(np.clip(2.5 * bell[2], -8, 8)),
            zoom=float(1 + 0.02 * np.clip(bell[3], -3, 3)),
            shift=(float(bell[4]), float(bell[5])),
            light_angle=float(rest[0] * 2 * np.pi),
            light_strength=float(min(1.0, abs(0.35 * bell[6]))),
            warmth=float(np.clip(0.4 * bell[7], -1, 1)),
            exposure=float(np.exp(np.clip(0.12 * bell[8], -0.35, 0.3))),
            smile=float(1.4 * smile - 0.4),
            mouth_open=float(max(0.0, 3 * mouth_open - 2)),
            brow_raise=float(np.clip(0.5 * bell[9], -1, 1)),
            eye_open=0.12 if blink < 0.04 else float(0.75 + 0.4 * blink),
            gaze=float(2 * rest[1] - 1),
            background=float(rest[2]),
            seed=int(rng.integers(1 << 31)),
            **strengths,
        )


def _draw_strengths(rng: np.random.Generator, severity: float) -> dict[str, float]:
    """Draw one or two degradations for the images that get any."""
    order = rng.permutation(len(DEGRADATIONS))
    share, second = rng.uniform(size=2)
    strengths = severity * rng.beta(1.3, 1.7, size=2)
    if share < CLEAN_SHARE:
        return {}
    chosen = order[: 2 if second < 0.3 else 1]
    return {DEGRADATIONS[kind]: float(s) for kind, s in zip(chosen, strengths, strict=False)}


_AXIS = np.linspace(-1, 1, 112, dtype=np.float32)


def light(image: NDArray[np.uint8], variation: Variation) -> NDArray[np.uint8]:
    """Shade an even image (112, 112, 3) by the light's direction, strength, warmth and exposure."""
    slope = 0.42 * variation.light_strength
    across = slope * math.cos(variation.light_angle) * _AXIS
    down = slope * math.sin(variation.light_angle) * _AXIS
    ramp = variation.exposure * (1 - 0.3 * slope + down[:, None] + across)
    tint = (1 + 0.12 * variation.warmth, 1.0, 1 - 0.16 * variation.warmth)
    factors = cv2.merge([ramp * factor for factor in tint])
    return np.asarray(cv2.multiply(image, factors, dtype=cv2.CV_8U), dtype=np.uint8)


def degrade(image: NDArray[np.uint8], variation: Variation) -> NDArray[np.uint8]:
    """Apply blur, loss of resolution and noise, in this order, to (112, 112, 3) pixels."""
    pixels: cv2.typing.MatLike = image
    if variation.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.15, BLUR_SIGMA * variation.blur))
    if variation.resolution:
        size = round(112 * (SMALLEST / 112) ** variation.resolution)
        small = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
        pixels = cv2.resize(small, (112, 112), interpolation=cv2.INTER_LINEAR)
    if variation.noise:
        rng = np.random.default_rng((variation.seed, 2))
        grain = rng.standard_normal((112, 112, 3), dtype=np.float32)
        grain *= np.float32(NOISE_SIGMA * variation.noise)
        pixels = cv2.add(pixels, grain, dtype=cv2.CV_8U)
    return np.asarray(pixels, dtype=np.uint8)


def occlude(canvas: NDArray[np.uint8], variation: Variation) -> None:
    """Paint something in front of the face: from below, above or a side, or a slanted bar."""
    if not variation.occlusion:
        return
    rng = np.random.default_rng((variation.seed, 3))
    side = len(canvas)
    color = tuple(int(value) for value in rng.integers(30, 225, 3))
    kind = int(rng.integers(5))
    half, reach = 0.75 * side, COVERED * variation.occlusion * side
    angle = (0.0, np.pi / 2, np.pi, 3 * np.pi / 2, np.pi / 4)[kind] + rng.normal(0, 0.15)
    if kind == 4:
        angle *= rng.choice((-1, 1))
        near, far = -reach / 2, reach / 2
    else:
        near, far = side * 0.5 - reach, side * 1.2
    box = np.array([[near, -half], [far, -half], [far, half], [near, half]])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    _paint_box(canvas, box @ turn + side / 2, color)
    stripe = box.copy()
    stripe[:, 0] = [near, near + reach * 0.12, near + reach * 0.12, near]
    lighter = tuple(min(255, value + 25) for value in color)
    _paint_box(canvas, stripe @ turn + side / 2, lighter)


def _paint_box(canvas: NDArray[np.uint8], box: NDArray[np.float64], color: tuple[int, ...]) -> None:
    cv2.fillPoly(canvas, [(box * 16).round().astype(np.int32)], color, cv2.LINE_AA, 4)

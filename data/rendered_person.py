"""Who a rendered face shows, and under what conditions: pose, light, expression, degradations.

Lengths are pixels of the 112 x 112 crop, x to the right of the face's axis and y downwards. The
degradations act on finished pixels and their strengths run from 0 (none) to 1 (hardly a face).
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
Degradation = Literal["blur", "resolution", "noise", "occlusion"]
DEGRADATIONS: tuple[Degradation, ...] = get_args(Degradation)

SKINS = ((253, 226, 206), (243, 200, 168), (219, 164, 122), (171, 117, 82), (112, 74, 54))
HAIRS = (
    (34, 29, 33),
    (62, 42, 34),
    (104, 68, 44),
    (140, 70, 42),
    (196, 104, 52),
    (214, 174, 104),
    (236, 218, 180),
)
DYES = ((72, 150, 160), (196, 98, 140), (120, 98, 176), (92, 140, 92))
IRISES = ((58, 38, 30), (112, 76, 44), (120, 128, 62), (84, 140, 116), (88, 136, 180))
FRAMES = ((40, 40, 46), (120, 62, 44), (150, 44, 56), (52, 86, 130), (176, 146, 84))

BLUR_SIGMA = 6.0  # pixels at strength 1
SMALLEST = 9  # pixels a side at resolution strength 1
NOISE_SIGMA = 90.0  # grey levels at strength 1
COVERED = 0.62  # share of the crop's width or height hidden at occlusion strength 1
CLEAN_SHARE = 0.4  # of images without any degradation
_AXIS = np.linspace(-1, 1, 112, dtype=np.float32)


class HairStyle(NamedTuple):
    """How hair frames the face."""

    top: float  # height above the skull
    side: float  # width beyond the temples
    side_end: float  # y at which the hair beside the face ends
    back_end: float  # y down to which hair hangs behind the face; 0 for none
    # y of the hairline from left to right, relative to the identity's own:
    hairline: tuple[float, float, float, float, float]
    bumps: int = 0  # curls along the outer edge


HAIR_STYLES = (
    HairStyle(4, 2.5, 52, 0, (6, 1, 0, 1, 6)),  # short
    HairStyle(6, 3, 54, 0, (9, 8, 3, -3, 3)),  # swept from a parting
    HairStyle(5, 3.5, 60, 0, (12, 11, 10.5, 11, 12)),  # fringe
    HairStyle(5, 5, 64, 118, (11, 3, -4, 3, 11)),  # long
    HairStyle(6, 6.5, 78, 92, (10, 10, 9, 9, 10)),  # bob
    HairStyle(7, 5.5, 60, 84, (8, 4, 2, 4, 8), 11),  # curls
    HairStyle(12, 12, 60, 78, (6, 1, -1, 1, 6), 15),  # round and full
    HairStyle(1.5, 1, 50, 0, (4, -6, 1, -6, 4)),  # cropped, receding
    HairStyle(11, 2, 50, 0, (5, -2, -4, 0, 6)),  # quiff
    HairStyle(6, 5, 62, 118, (13, 10, 4, -4, 5)),  # long, parted at the side
    HairStyle(0, 0, 0, 0, (0, 0, 0, 0, 0)),  # none
)
BALD = len(HAIR_STYLES) - 1


def _span(low: float, high: float) -> float:
    span: float = dataclasses.field(metadata={"low": low, "high": high})
    return span


def _share(*weights: float) -> int:
    steps = [total / sum(weights) for total in itertools.accumulate(weights)]
    share: int = dataclasses.field(metadata={"steps": steps[:-1]})
    return share


@dataclass(frozen=True)
class Identity:
    """One rendered person; every field is drawn from the range or the shares beside its name."""

    face_width: float = _span(36.5, 43.5)  # half, at the cheekbones
    forehead: float = _span(0.84, 0.98)  # of face_width
    jaw: float = _span(0.66, 0.93)  # of face_width
    chin_width: float = _span(8.0, 20.0)
    chin: float = _span(104.5, 112.0)
    skull: float = _span(5.0, 12.0)
    eye_gap: float = _span(15.5, 19.8)  # from the axis
    eye_y: float = _span(50.0, 54.0)
    eye_width: float = _span(6.0, 9.2)
    eye_height: float = _span(2.6, 5.4)
    eye_tilt: float = _span(-0.22, 0.22)  # of the width, outer corner up
    iris_size: float = _span(2.7, 4.2)
    lashes: float = _span(0.7, 2.0)
    lid: float = _span(0.0, 3.2)
    brow_gap: float = _span(6.5, 11.5)
    brow_length: float = _span(7.5, 11.5)
    brow_thickness: float = _span(1.0, 3.8)
    brow_arch: float = _span(-0.5, 3.2)
    brow_tilt: float = _span(-2.2, 1.4)
    nose_y: float = _span(68.0, 75.5)
    nose_width: float = _span(4.6, 9.6)
    nose_bridge: float = _span(1.6, 4.4)
    nose_depth: float = _span(5.0, 12.0)
    mouth_y: float = _span(87.0, 93.5)
    mouth_width: float = _span(10.0, 17.0)
    upper_lip: float = _span(1.2, 4.2)
    lower_lip: float = _span(1.8, 5.4)
    mouth_curve: float = _span(-1.2, 2.4)
    ear_size: float = _span(5.5, 10.0)
    ear_y: float = _span(54.0, 62.0)
    ear_out: float = _span(-0.5, 4.5)
    cheeks: float = _span(0.0, 1.0)
    lines: float = _span(-0.8, 1.0)  # folds beside the mouth, visible above 0
    asymmetry: float = _span(-1.0, 1.0)
    hairline: float = _span(22.0, 31.0)
    hair_volume: float = _span(0.7, 1.45)
    hair_length: float = _span(-7.0, 9.0)
    hair_strand: float = _span(0.0, 1.0)
    skin_tone: float = _span(0.0, 4.0)
    skin_warmth: float = _span(-1.0, 1.0)
    hair_tone: float = _span(0.0, 6.0)
    hair_grey: float = _span(-1.6, 0.9)
    iris_tone: float = _span(0.0, 4.0)
    lip_red: float = _span(0.15, 0.8)
    mole_x: float = _span(-26.0, 26.0)
    mole_y: float = _span(62.0, 98.0)
    mark_size: float = _span(0.8, 1.6)
    frame_size: float = _span(9.5, 13.0)
    frame_height: float = _span(0.66, 0.98)
    frame_round: float = _span(2.0, 4.5)  # exponent of the rim: 2 is an ellipse
    frame_tone: float = _span(0.0, 4.0)
    hair_style: int = _share(4, 4, 3, 4, 3, 3, 2, 2, 2, 3, 1.2)
    hair_flip: int = _share(1, 1)
    dyed: int = _share(14, 1)
    dye: int = _share(1, 1, 1, 1)
    beard: int = _share(7, 1, 1, 1, 1)  # none, stubble, full, goatee, moustache
    glasses: int = _share(3, 1)
    marks: int = _share(5, 2, 1)  # none, a mole, freckles

    @classmethod
    def draw(cls, seed: int, index: int) -> Identity:
        """Return person `index` of the population that `seed` names; always the same one."""
        items = dataclasses.fields(cls)
        draws = np.random.default_rng((seed, index, 0)).uniform(size=len(items)).tolist()
        values: dict[str, Any] = {}
        for item, share in zip(items, draws, strict=True):
            if "steps" in item.metadata:
                values[item.name] = bisect.bisect(item.metadata["steps"], share)
            else:
                low, high = item.metadata["low"], item.metadata["high"]
                values[item.name] = low + (high - low) * share
        return cls(**values)

    @property
    def style(self) -> HairStyle:
        """The hair style; `hair_flip` mirrors its hairline."""
        style = HAIR_STYLES[self.hair_style]
        return style._replace(hairline=style.hairline[::-1]) if self.hair_flip else style

    @cached_property
    def skin(self) -> Color:
        """Colour of the skin in plain light."""
        red, green, blue = between(SKINS, self.skin_tone)
        return (red + 5 * self.skin_warmth, green, blue - 9 * self.skin_warmth)

    @cached_property
    def hair(self) -> Color:
        """Colour of hair, brows and beard."""
        plain = (
            DYES[self.dye]
            if self.dyed
            else between(HAIRS, self.hair_tone * (1 - 0.17 * self.skin_tone))
        )
        return mix(plain, (172, 170, 172), max(0.0, self.hair_grey))

    @cached_property
    def iris(self) -> Color:
        """Colour of the eyes."""
        return between(IRISES, self.iris_tone * (1 - 0.15 * self.skin_tone))

    @cached_property
    def lips(self) -> Color:
        """Colour of the lips."""
        return mix(shade(self.skin, 0.86), (188, 62, 74), self.lip_red)

    @cached_property
    def frame(self) -> Color:
        """Colour of the glasses."""
        return between(FRAMES, self.frame_tone)


def mix(first: Color, second: Color, share: float) -> Color:
    """Return `first` with a share (0..1) of `second`."""
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return (red, green, blue)


def shade(color: Color, factor: float) -> Color:
    """Return the colour darkened (factor below 1) or lightened."""
    red, green, blue = color
    return (red * factor, green * factor, blue * factor)


def between(palette: tuple[Color, ...], position: float) -> Color:
    """Return the colour at a fractional index of a palette."""
    index = min(int(position), len(palette) - 2)
    return mix(palette[index], palette[index + 1], position - index)


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

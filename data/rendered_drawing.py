"""Draw a rendered face: its parts in three dimensions, posed, aligned, lit and degraded.

A `Sketch` collects shapes; all are projected at once and painted in order by OpenCV, antialiased,
on a canvas twice as large as the crop. A face costs about a millisecond of one core; the same
arguments give the same pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import SIZE
from data.rendered_person import (
    BALD,
    Color,
    Identity,
    Variation,
    degrade,
    light,
    mix,
    occlude,
    shade,
)

SUPERSAMPLING = 2
_FRACTION_BITS = 4
_FIXED = SUPERSAMPLING * (1 << _FRACTION_BITS)
WHITE: Color = (247, 245, 242)
DARK: Color = (38, 30, 32)
_SPARK = ((0.2, -0.6), (1.3, -0.6), (1.3, 0.5), (0.2, 0.5))
_CENTRE_Y = 62.0
_HALF_HEIGHT = 54.0
_BULGE = 24.0  # pixels by which the middle of the face stands out
# Where alignment puts the eyes, the nose and the corners of the mouth of a frontal crop.
_TEMPLATE = np.array([[38.6, 52], [73.4, 52], [56, 71.6], [42.3, 90.6], [69.7, 90.6]])

Point = tuple[float, float, float]


class _Shape(NamedTuple):
    start: int
    stop: int
    color: Color
    smooth: bool
    width: float


class Sketch:
    """A list of filled shapes and strokes over shared control points."""

    def __init__(self) -> None:
        self._points: list[Point] = []
        self._shapes: list[_Shape] = []

    def fill(self, points: Sequence[Point], color: Color, smooth: bool = True) -> None:
        """Add a filled outline; smooth runs a closed Catmull-Rom curve through the points."""
        self._add(points, color, smooth, 0.0)

    def stroke(
        self, points: Sequence[Point], color: Color, width: float, smooth: bool = True
    ) -> None:
        """Add an open line of `width` pixels of the crop."""
        self._add(points, color, smooth, width)

    def _add(self, points: Sequence[Point], color: Color, smooth: bool, width: float) -> None:
        start = len(self._points)
        self._points.extend(points)
        self._shapes.append(_Shape(start, len(self._points), color, smooth, width))

    def paint(
        self, canvas: NDArray[np.uint8], matrix: NDArray[np.float64], offset: NDArray[np.float64]
    ) -> None:
        """Paint everything; `matrix` (2, 3) and `offset` (2,) take points to pixels of the crop."""
        flat = (np.array(self._points) @ matrix.T + offset) * _FIXED
        for start, stop, color, smooth, width in self._shapes:
            points = flat[start:stop]
            if smooth:
                points = _curve(stop - start, width == 0) @ points
            fixed = points.round().astype(np.int32)
            if width:
                thickness = max(1, round(width * SUPERSAMPLING))
                cv2.polylines(canvas, [fixed], False, color, thickness, cv2.LINE_AA, _FRACTION_BITS)
            else:
                cv2.fillPoly(canvas, [fixed], color, cv2.LINE_AA, _FRACTION_BITS)


@lru_cache(maxsize=64)
def _curve(points: int, closed: bool, steps: int = 5) -> NDArray[np.float64]:
    """Return the matrix that takes control points to a Catmull-Rom curve through them."""
    t = np.arange(steps)[:, None] / steps
    cubic = np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    weights = np.hstack([t**0, t, t**2, t**3]) @ cubic
    segments = points if closed else points - 1
    matrix = np.zeros((segments * steps + (not closed), points))
    for segment in range(segments):
        for tap in range(4):
            index = segment + tap - 1
            index = index % points if closed else min(max(index, 0), points - 1)
            matrix[segment * steps : (segment + 1) * steps, index] += weights[:, tap]
    if not closed:
        matrix[-1, -1] = 1
    return matrix


def on_face(p: Identity, x: float, y: float, above: float = 0.0) -> Point:
    """Lift a point onto the ellipsoid of the face, and `above` pixels more."""
    across = x / (p.face_width + 2)
    down = (y - _CENTRE_Y) / _HALF_HEIGHT
    return (x, y, _BULGE * math.sqrt(max(0.0, 1 - across * across - 0.8 * down * down)) + above)


def landmarks(p: Identity) -> list[Point]:
    """Return the five landmarks of the unturned face."""
    eyes = [on_face(p, sign * p.eye_gap, p.eye_y) for sign in (-1, 1)]
    mouth = [on_face(p, sign * p.mouth_width, p.mouth_y) for sign in (-1, 1)]
    return [*eyes, on_face(p, 0, p.nose_y, p.nose_depth), *mouth]


def oval(p: Identity, x: float, y: float, width: float, height: float) -> list[Point]:
    """Return eight points of an ellipse that lies on the face."""
    turns = (index * math.pi / 4 for index in range(8))
    return [on_face(p, x + width * math.cos(t), y + height * math.sin(t)) for t in turns]


def outline(p: Identity, inset: float = 0.0, shift: float = 0.0) -> list[Point]:
    """Return the face's edge, from the top clockwise, drawn in by `inset` and moved by `shift`."""
    width, top, chin = p.face_width - inset, p.skull + inset, p.chin - inset
    half = [
        (0.52 * width * p.forehead, top + 2.5),
        (0.9 * width * p.forehead, top + 15),
        (width * (0.45 + 0.55 * p.forehead), 40),
        (width, 60),
        (width * (0.55 + 0.45 * p.jaw), 78),
        (width * p.jaw, 90),
        ((width * p.jaw + p.chin_width) / 2, (90 + chin) / 2 + 3),
        (0.75 * p.chin_width, chin - 0.8),
    ]
    right = [(x + shift, y, 0.0) for x, y in half]
    left = [(-x + shift, y, 0.0) for x, y in reversed(half)]
    return [(shift, top, 0.0), *right, (shift, chin, 0.0), *left]


def draw_behind(sketch: Sketch, p: Identity, clothes: Color) -> None:
    """Hair behind the head, neck, shoulders and ears."""
    shadow = shade(p.skin, 0.8)
    style = p.style
    if style.back_end:
        wide = p.face_width + style.side * p.hair_volume
        end = style.back_end + p.hair_length
        rows = ((0.8, p.skull + 4), (1.0, 40), (1.04, 70), (1.0, end - 6), (0.72, end))
        right = [(wide * share, y, -12.0) for share, y in rows]
        left = [(-x, y, z) for x, y, z in reversed(right)]
        sketch.fill([*right, *left], shade(p.hair, 0.78))
    neck = 0.62 * p.face_width * p.jaw + 6
    sketch.fill([(-neck, 84, -8), (neck, 84, -8), (neck, 124, -8), (-neck, 124, -8)], shadow, False)
    collar = [(-70, 132, -8), (-46, 114, -8), (-neck - 2, 108, -8), (0, 116, -2)]
    sketch.fill([*collar, (neck + 2, 108, -8), (46, 114, -8), (70, 132, -8)], clothes, False)
    for sign in (-1, 1):
        x = sign * (p.face_width - 1 + p.ear_out)
        ear = [
            (x - sign * 4, p.ear_y - p.ear_size, -4),
            (x + sign * 2, p.ear_y - p.ear_size, -6),
            (x + sign * 4, p.ear_y - 0.4 * p.ear_size, -7),
            (x + sign * 2, p.ear_y + 0.5 * p.ear_size, -5),
            (x - sign * 3, p.ear_y + p.ear_size, -3),
        ]
        sketch.fill(ear, shade(p.skin, 0.93))
        inner = [(x + 0.5 * (ex - x), p.ear_y + 0.55 * (ey - p.ear_y), z) for ex, ey, z in ear]
        sketch.fill(inner, shade(p.skin, 0.78))


def draw_head(sketch: Sketch, p: Identity) -> None:
    """The face itself, its rim of shadow, cheeks, folds and marks."""
    sketch.fill(outline(p), shade(p.skin, 0.87))
    sketch.fill(outline(p, inset=1.6, shift=-0.8), p.skin)
    blush = mix(p.skin, (226, 96, 92), 0.08 + 0.16 * p.cheeks)
    for sign in (-1, 1):
        sketch.fill(oval(p, sign * 0.62 * p.face_width, 76, 7.5, 5), blush)
        if p.lines > 0:
            fold = [(p.nose_width + 3, p.nose_y + 1), (p.mouth_width + 1.5, p.mouth_y - 6)]
            end = (p.mouth_width + 3, p.mouth_y - 1)
            points = [on_face(p, sign * x, y) for x, y in (*fold, end)]
            sketch.stroke(points, shade(p.skin, 0.92 - 0.16 * p.lines), 0.9)
    spot = mix(shade(p.skin, 0.62), (120, 60, 40), 0.4)
    if p.marks == 1:
        sketch.fill(oval(p, p.mole_x, p.mole_y, p.mark_size, p.mark_size), spot)
    if p.marks == 2:
        for index in range(12):
            x = (6 + 3.1 * (index // 2) + p.mole_x * 0.1) * (1 if index % 2 else -1)
            y = 70 + 7 * math.sin(2.4 * index + p.mole_y)
            sketch.fill(oval(p, x, y, 0.7, 0.7), mix(p.skin, spot, 0.7))


def draw_eye(sketch: Sketch, p: Identity, variation: Variation, sign: int) -> None:
    """White, iris and lids of one eye (sign -1: left in the image)."""
    x0, y0 = sign * p.eye_gap, p.eye_y + 0.5 * p.asymmetry * sign
    width, opening = p.eye_width, p.eye_height * variation.eye_open

    def place(x: float, y: float) -> Point:
        return on_face(p, x0 + x, y0 + y - sign * x * p.eye_tilt, 0.5)

    def lid(x: float, height: float) -> float:
        return height * (1 - min(1.0, (x / width) ** 2))

    steps = [width * step for step in (-1, -0.75, -0.4, 0, 0.4, 0.75, 1)]
    upper = [place(x, -lid(x, opening)) for x in steps]
    lower = [place(x, lid(x, 0.62 * opening)) for x in reversed(steps[1:-1])]
    socket = [place(1.25 * x, -lid(x, opening + 3) + 0.5) for x in steps]
    sketch.fill([*socket, *lower], shade(p.skin, 0.92))
    sketch.fill([*upper, *lower], WHITE)
    look = 0.3 * width * variation.gaze
    for size, color in ((1.0, p.iris), (0.5, DARK)):
        points = []
        for index in range(12):
            x = look + size * p.iris_size * math.cos(index * math.pi / 6)
            y = size * p.iris_size * math.sin(index * math.pi / 6) - 0.25 * opening
            points.append(place(x, min(max(y, -lid(x, opening)), lid(x, 0.62 * opening))))
        sketch.fill(points, color)
    if variation.eye_open > 0.5:
        sketch.fill([place(look + x, y - 1.6) for x, y in _SPARK], WHITE)
    sketch.stroke(upper, DARK, p.lashes)
    if p.lid > 0.8:
        crease = [place(x, -lid(x, opening + p.lid) - 0.3) for x in steps]
        sketch.stroke(crease, shade(p.skin, 0.74), 0.6)


def draw_brow(sketch: Sketch, p: Identity, variation: Variation, sign: int) -> None:
    """Draw the brow as the identity has it."""
    y = p.eye_y - p.brow_gap - 2 * variation.brow_raise + 0.8 * p.asymmetry * sign
    color = mix(shade(p.hair, 0.82), p.skin, 0.12)
    top, bottom = [], []
    for along, arch, share in ((-1, 0, 0.7), (-0.3, 0.7, 1), (0.4, 1, 0.85), (1, 0.2, 0.25)):
        x = sign * (p.eye_gap + 1 + along * p.brow_length)
        middle = y - arch * p.brow_arch - along * p.brow_tilt
        thick = 0.5 * share * p.brow_thickness
        top.append(on_face(p, x, middle - thick, 1))
        bottom.append(on_face(p, x, middle + thick, 1))
    sketch.fill([*top, *bottom[::-1]], color)


def draw_nose(sketch: Sketch, p: Identity) -> None:
    """Draw the nose as the identity has it."""
    width, y, bridge = p.nose_width, p.nose_y, p.nose_bridge
    side = [(-bridge, p.eye_y, 2), (-bridge, y - 10, 0.6 * p.nose_depth), (-width, y - 1, 3)]
    inner = [(-0.2, y + 1, p.nose_depth), (0.2 - bridge / 2, p.eye_y, 3)]
    sketch.fill([on_face(p, *point) for point in (*side, *inner)], shade(p.skin, 0.92))
    base = [
        (-width, y, 2),
        (-0.6 * width, y - 2.6, 0.6 * p.nose_depth),
        (0, y - 3.4, p.nose_depth),
        (0.6 * width, y - 2.6, 0.6 * p.nose_depth),
        (width, y, 2),
        (0.55 * width, y + 2.4, 0.6 * p.nose_depth),
        (0, y + 3.2, p.nose_depth),
        (-0.55 * width, y + 2.4, 0.6 * p.nose_depth),
    ]
    sketch.fill([on_face(p, *point) for point in base], shade(p.skin, 0.84))
    tip = [(x * 0.86, yy - 1.1, z) for x, yy, z in base]
    sketch.fill([on_face(p, *point) for point in tip], shade(p.skin, 1.02))
    for sign in (-1, 1):
        x, depth = sign * 0.52 * width, 0.6 * p.nose_depth
        nostril = ((x - 1.4, y + 1, depth), (x, y + 0.2, depth), (x + 1.4, y + 1, depth))
        sketch.fill([on_face(p, *point) for point in nostril], shade(p.skin, 0.55))


def draw_mouth(sketch: Sketch, p: Identity, variation: Variation) -> None:
    """Draw the mouth as the identity has it."""
    smile, opening = variation.smile, 6.5 * variation.mouth_open
    width = p.mouth_width * (1 + 0.12 * smile - 0.12 * variation.mouth_open)
    steps = (-1, -0.6, -0.22, 0, 0.22, 0.6, 1)

    def line(heights: tuple[float, ...], scale: float, drop: float) -> list[Point]:
        points = []
        for step, height in zip(steps, heights, strict=True):
            lift = -(p.mouth_curve + 4.5 * smile) * step * step + 1.8 * smile
            y = p.mouth_y + lift + scale * height + drop * (1 - step * step)
            points.append(on_face(p, step * width, y, 1.5))
        return points

    bow = line((0, -0.75, -1, -0.72, -1, -0.75, 0), p.upper_lip, -0.2 * opening)
    upper = line((0, 0.05, 0.1, 0.2, 0.1, 0.05, 0), 1.5, -0.2 * opening)
    lower = line((0, 0.05, 0.1, 0.2, 0.1, 0.05, 0), 1.5, 0.8 * opening)
    bottom = line((0, 0.72, 1, 1, 1, 0.72, 0), p.lower_lip, 0.8 * opening)
    sketch.fill([*lower, *bottom[-2:0:-1]], shade(p.lips, 1.07))
    sketch.fill([*bow, *upper[-2:0:-1]], shade(p.lips, 0.9))
    if opening > 0.8:
        sketch.fill([*upper, *lower[-2:0:-1]], (92, 34, 40))
        teeth = [(x * 0.8, y + 0.32 * opening, z) for x, y, z in upper[1:-1]]
        sketch.fill([*upper[1:-1], *teeth[::-1]], WHITE)
    else:
        sketch.stroke(upper, shade(p.lips, 0.55), 0.8)


def draw_hair(sketch: Sketch, p: Identity) -> None:
    """The hair in front: from one temple over the top to the other, back along the hairline."""
    if p.hair_style == BALD:
        return
    style, volume = p.style, p.hair_volume
    wide = p.face_width + style.side * volume
    top, end = p.skull - style.top * volume, style.side_end + 0.4 * p.hair_length
    count = max(9, 2 * style.bumps + 1)
    outer: list[Point] = [(-wide + 0.5, end, -3.0)]
    for index in range(count):
        turn = math.pi * index / (count - 1)
        swell = 1 + (0.05 if style.bumps and index % 2 else 0.0)
        x = -wide * swell * math.cos(turn) * (1 - 0.1 * math.sin(turn) ** 4)
        outer.append((x, 46 - (46 - top) * swell * math.sin(turn) ** 0.85, -3.0))
    outer.append((wide - 0.5, end, -3.0))
    inner_x = (0.84, 0.46, 0.0, -0.46, -0.84)
    hairline = [
        on_face(p, x * p.face_width, p.hairline + y, 2)
        for x, y in zip(inner_x, style.hairline[::-1], strict=True)
    ]
    temple = 0.93 * p.face_width
    right, left = (temple, end - 3, 2.0), (-temple, end - 3, 2.0)
    sketch.fill([*outer, right, (temple, 44, 3.0), *hairline, (-temple, 44, 3.0), left], p.hair)
    strand = mix(p.hair, (255, 240, 220), 0.1 + 0.12 * p.hair_strand)
    sweep = (0.1 + 0.25 * p.hair_strand) * (1 if p.hair_flip else -1)
    for offset in (-0.3, 0.0, 0.3):
        rows = ((sweep + offset, 0.55), (0.6 * sweep + 1.3 * offset, 0.3), (1.5 * offset, 0.12))
        points = [(x * wide, p.hairline - y * (p.hairline - top), 6.0) for x, y in rows]
        sketch.stroke(points, strand, 1.1)


def draw_beard(sketch: Sketch, p: Identity, variation: Variation) -> None:
    """Stubble, full beard, goatee or moustache, as the identity has it."""
    if p.beard in (1, 2):
        color = mix(p.skin, p.hair, 0.22 if p.beard == 1 else 0.85)
        edge = [point for point in outline(p, inset=0.4) if point[1] > 72]
        inner = ((-0.6, 76), (-0.5, p.mouth_y - 9), (0, p.mouth_y - 8), (0.5, p.mouth_y - 9))
        top = [on_face(p, x * p.face_width, y) for x, y in (*inner, (0.6, 76))]
        sketch.fill([*edge, *top], color)
    elif p.beard == 3:
        low, wide = p.chin - 1, 0.8 * p.chin_width
        y = p.mouth_y + p.lower_lip + 2.5
        rows = ((-0.4, y), (0.4, y), (1, y + 4), (0.7, low), (-0.7, low), (-1, y + 4))
        sketch.fill([on_face(p, x * wide, yy) for x, yy in rows], mix(p.skin, p.hair, 0.85))
    if p.beard in (2, 4):
        y = p.mouth_y - p.upper_lip - 1.2 - 0.6 * variation.smile
        rows = (
            (-1, y + 3),
            (-0.5, y - 2.4),
            (0, y - 1.6),
            (0.5, y - 2.4),
            (1, y + 3),
            (0, y + 0.6),
        )
        points = [on_face(p, x * (p.mouth_width + 1), yy, 2) for x, yy in rows]
        sketch.fill(points, mix(p.skin, p.hair, 0.92))


def draw_glasses(sketch: Sketch, p: Identity) -> None:
    """Draw the glasses as the identity has them."""
    size, height = p.frame_size, p.frame_size * p.frame_height
    exponent = 2 / p.frame_round
    for sign in (-1, 1):
        rim = []
        for index in range(17):
            cos, sin = math.cos(index * math.pi / 8), math.sin(index * math.pi / 8)
            x = sign * p.eye_gap + size * math.copysign(abs(cos) ** exponent, cos)
            y = p.eye_y + 1 + height * math.copysign(abs(sin) ** exponent, sin)
            rim.append(on_face(p, x, y, 5))
        sketch.stroke(rim, p.frame, 1.5)
        hinge = on_face(p, sign * (p.eye_gap + size), p.eye_y - 1, 5)
        sketch.stroke([hinge, (sign * (p.face_width + 1), p.eye_y - 1, -4.0)], p.frame, 1.5, False)
    inner = p.eye_gap - size
    bridge = [(-inner, p.eye_y), (0, p.eye_y - 1.5), (inner, p.eye_y)]
    sketch.stroke([on_face(p, x, y, 5) for x, y in bridge], p.frame, 1.5)


def render(identity: Identity, variation: Variation) -> NDArray[np.uint8]:
    """Return the face as uint8 (112, 112, 3) RGB."""
    side = SIZE * SUPERSAMPLING
    canvas = np.empty((side, side, 3), dtype=np.uint8)
    backdrop, clothes = _surroundings(variation)
    cv2.rectangle(canvas, (0, 0), (side, side), backdrop, -1)
    centre = (int(side * (0.2 + 0.6 * variation.background)), int(side * 0.28))
    cv2.circle(canvas, centre, int(side * 0.42), shade(backdrop, 1.06), -1, cv2.LINE_AA)
    sketch = Sketch()
    draw_behind(sketch, identity, clothes)
    draw_head(sketch, identity)
    for sign in (-1, 1):
        draw_eye(sketch, identity, variation, sign)
    draw_nose(sketch, identity)
    draw_beard(sketch, identity, variation)
    draw_mouth(sketch, identity, variation)
    for sign in (-1, 1):
        draw_brow(sketch, identity, variation, sign)
    draw_hair(sketch, identity)
    if identity.glasses:
        draw_glasses(sketch, identity)
    sketch.paint(canvas, *_projection(identity, variation))
    occlude(canvas, variation)
    image = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return degrade(light(np.asarray(image, dtype=np.uint8), variation), variation)


def _surroundings(variation: Variation) -> tuple[Color, Color]:
    """Return the colours of the background and of the clothes."""
    spare = (variation.seed % 997) / 997
    red, green, blue = colorsys.hsv_to_rgb(variation.background, 0.12 + 0.3 * spare, 0.86)
    backdrop = (red * 240, green * 240, blue * 240)
    red, green, blue = colorsys.hsv_to_rgb((variation.background + 0.4 + 0.3 * spare) % 1, 0.5, 0.6)
    return backdrop, (red * 255, green * 255, blue * 255)


def _projection(
    identity: Identity, variation: Variation
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pose followed by the least-squares similarity onto the template's landmarks."""
    yaw, pitch = math.radians(variation.yaw), math.radians(variation.pitch)
    pose = np.array(
        [
            [math.cos(yaw), 0.0, math.sin(yaw)],
            [-math.sin(pitch) * math.sin(yaw), math.cos(pitch), math.sin(pitch) * math.cos(yaw)],
        ]
    )
    marks = np.array(landmarks(identity)) @ pose.T
    source = marks[:, 0] + 1j * marks[:, 1]
    target = _TEMPLATE[:, 0] + 1j * _TEMPLATE[:, 1]
    spread = source - source.mean()
    turn = np.vdot(spread, target - target.mean()) / np.vdot(spread, spread).real
    turn *= variation.zoom * np.exp(1j * math.radians(variation.roll))
    middle = target.mean() + complex(*variation.shift)
    offset = middle - turn * source.mean()
    similarity = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return similarity @ pose, np.array([offset.real, offset.imag])

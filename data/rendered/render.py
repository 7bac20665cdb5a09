"""Draw one rendered face: an identity's shapes, posed, aligned as face crops are, lit and degraded.

A face costs about a millisecond of one core; the same arguments give the same pixels.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.rendered.anatomy import landmarks, on_face, outline, oval
from data.rendered.features import draw_brow, draw_eye, draw_mouth, draw_nose
from data.rendered.hair import draw_beard, draw_glasses, draw_hair
from data.rendered.identity import Color, Identity, mix, shade
from data.rendered.sketch import SUPERSAMPLING, Sketch
from data.rendered.variation import Variation, degrade, light, occlude

SIZE = 112

# Where alignment puts the eyes, the nose and the corners of the mouth of a frontal crop.
_TEMPLATE = np.array([[38.6, 52], [73.4, 52], [56, 71.6], [42.3, 90.6], [69.7, 90.6]])


def render(identity: Identity, variation: Variation) -> NDArray[np.uint8]:
    """Return the face as uint8 (112, 112, 3) RGB."""
    side = SIZE * SUPERSAMPLING
    canvas = np.empty((side, side, 3), dtype=np.uint8)
    backdrop, clothes = _surroundings(variation)
    cv2.rectangle(canvas, (0, 0), (side, side), backdrop, -1)
    centre = (int(side * (0.2 + 0.6 * variation.background)), int(side * 0.28))
    cv2.circle(canvas, centre, int(side * 0.42), shade(backdrop, 1.06), -1, cv2.LINE_AA)
    sketch = Sketch()
    _behind(sketch, identity, clothes)
    _head(sketch, identity)
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
    image: Any = cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return degrade(light(image, variation), variation)


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
    found = marks[:, 0] + 1j * marks[:, 1]
    wanted = _TEMPLATE[:, 0] + 1j * _TEMPLATE[:, 1]
    spread = found - found.mean()
    turn = np.vdot(spread, wanted - wanted.mean()) / np.vdot(spread, spread).real
    turn *= variation.zoom * np.exp(1j * math.radians(variation.roll))
    middle = wanted.mean() + complex(*variation.shift)
    offset = middle - turn * found.mean()
    similarity = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return similarity @ pose, np.array([offset.real, offset.imag])


def _behind(sketch: Sketch, p: Identity, clothes: Color) -> None:
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


def _head(sketch: Sketch, p: Identity) -> None:
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

"""Draw one rendered face: an identity's shapes, posed, aligned as face crops are, lit and degraded.

A face costs about a millisecond of one core; the same arguments give the same pixels.
"""

from __future__ import annotations

import colorsys
import math

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import SIZE
from data.rendered.features import (
    draw_beard,
    draw_behind,
    draw_brow,
    draw_eye,
    draw_glasses,
    draw_hair,
    draw_head,
    draw_mouth,
    draw_nose,
    landmarks,
)
from data.rendered.identity import Color, Identity, shade
from data.rendered.sketch import SUPERSAMPLING, Sketch
from data.rendered.variation import Variation, degrade, light, occlude

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

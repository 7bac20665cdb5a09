"""Eyes, brows, nose and mouth of a rendered face, as an expression moves them."""

from __future__ import annotations

import math

from data.rendered.anatomy import on_face
from data.rendered.identity import Color, Identity, mix, shade
from data.rendered.sketch import Point, Sketch
from data.rendered.variation import Variation

WHITE: Color = (247, 245, 242)
DARK: Color = (38, 30, 32)
_SPARK = ((0.2, -0.6), (1.3, -0.6), (1.3, 0.5), (0.2, 0.5))


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

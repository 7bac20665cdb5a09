"""Hair, beard and glasses of a rendered face."""

from __future__ import annotations

import math

from data.rendered.anatomy import on_face, outline
from data.rendered.identity import BALD, Identity, mix
from data.rendered.sketch import Point, Sketch
from data.rendered.variation import Variation


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

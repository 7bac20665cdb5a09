"""Where things are on a rendered face before it is turned: the ellipsoid, the edge, landmarks."""

from __future__ import annotations

import math

from data.rendered.identity import Identity
from data.rendered.sketch import Point

_CENTRE_Y = 62.0
_HALF_HEIGHT = 54.0
_BULGE = 24.0  # pixels by which the middle of the face stands out


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

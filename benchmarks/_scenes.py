"""Pictures for benchmarks/detectors.py: scenes with known landmarks, and pictures of no face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data.faces import Faces
from data.synthetic import SyntheticFaces
from photos.align import REFERENCE

SCENE = (720, 1280)
TURN = 30.0  # degrees
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it: (K, 5, 2) landmarks and (K, 112, 112, 3) faces."""

    picture: Picture
    landmarks: NDArray[np.float64]
    faces: Picture


def scenes(faces: Faces, size: int, count: int) -> Iterator[Scene]:
    """Scenes of up to eight faces of one size, turned by up to `TURN` degrees either way.

    Backgrounds are plain and cluttered in turn.
    """
    random = np.random.default_rng(size)
    columns = max(1, min(4, SCENE[1] // int(size * 1.5)))
    lines = max(1, min(2, SCENE[0] // int(size * 1.5)))
    step = np.array([SCENE[1] / columns, SCENE[0] / lines])
    for number in range(count):
        plain = np.full((*SCENE, 3), random.integers(40, 216, 3), np.uint8)
        picture = clutter(random) if number % 2 else plain
        shown, landmarks = [], []
        for place in range(columns * lines):
            face = faces.read(int(random.integers(len(faces))))
            centre = (np.array([place % columns, place // columns]) + 0.5) * step
            angle = random.uniform(-TURN, TURN)
            landmarks.append(_paste(picture, face, size, angle, centre))
            shown.append(face)
        yield Scene(picture, np.stack(landmarks), np.stack(shown))


def portraits(faces: Faces, rows: Sequence[int], seed: int = 0) -> Iterator[Scene]:
    """Whole photos of one face each, 48 to 240 pixels large, turned by up to 15 degrees.

    A crop knows nothing of what lay around it: in turns its border is drawn out, mirrored or black.
    """
    random = np.random.default_rng(seed)
    borders = (cv2.BORDER_REPLICATE, cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT)
    for number, row in enumerate(rows):
        face, border = faces.read(int(row)), borders[number % 3]
        scale = int(random.choice([48, 72, 112, 168, 240])) / 112
        pad = int(56 * random.uniform(0.3, 1.5))
        picture = cv2.copyMakeBorder(face, pad, pad, pad, pad, border)
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=how)
        side = picture.shape[0]
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), random.uniform(-15, 15), 1)
        picture = cv2.warpAffine(picture, turn, (side, side), borderMode=border)
        there = (REFERENCE + pad + 0.5) * scale - 0.5
        there = there @ turn[:, :2].T + turn[:, 2]
        yield Scene(np.asarray(picture, np.uint8), there[None], face[None])


def _paste(
    picture: Picture, face: Picture, size: int, angle: float, centre: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Draw a face into a picture, its border faded out; returns its landmarks there."""
    scale = size / face.shape[0]
    if scale < 1:  # average, as a camera does; the rest of the warp is then a rotation
        face = np.asarray(cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    side = face.shape[0]
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, size / side)
    turn[:, 2] += np.round(centre) - (side - 1) / 2
    ramp = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5) / (0.06 * side)
    mask = np.minimum.outer(ramp, ramp).clip(0, 1).astype(np.float32)
    width_height = (picture.shape[1], picture.shape[0])
    cover = cv2.warpAffine(mask, turn, width_height)[..., None]
    drawn = cv2.warpAffine(face, turn, width_height, flags=cv2.INTER_CUBIC)
    picture[:] = np.rint(picture * (1 - cover) + drawn * cover)
    # the template counts from pixel centres
    there = (REFERENCE + 0.5) * (side / 112) - 0.5
    return there @ turn[:, :2].T + turn[:, 2]


def clutter(random: np.random.Generator) -> Picture:
    """Boxes, discs, lines, letters and noise of many sizes in all colours."""
    coarse = random.integers(0, 256, (9, 16, 3)).astype(np.uint8)
    picture = _stretched(coarse, cv2.INTER_CUBIC)
    for _ in range(250):
        colour = random.integers(0, 256, 3).tolist()
        x, y = int(random.integers(SCENE[1])), int(random.integers(SCENE[0]))
        extent = int(10 ** random.uniform(0.7, 2.2))
        kind = random.integers(4)
        if kind == 0:
            cv2.rectangle(picture, (x, y), (x + extent, y + extent // 2), colour, -1)
        elif kind == 1:
            cv2.circle(picture, (x, y), extent // 2, colour, -1, cv2.LINE_AA)
        elif kind == 2:
            cv2.line(picture, (x, y), (x + extent, y + extent), colour, 1 + extent // 30)
        else:
            words = "".join(map(chr, random.integers(65, 123, 6)))
            cv2.putText(picture, words, (x, y), 0, extent / 40, colour, 2, cv2.LINE_AA)
    noise = random.normal(0, 8, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _stretched(coarse: Picture, how: int) -> Picture:
    return np.asarray(cv2.resize(coarse, SCENE[::-1], interpolation=how), dtype=np.uint8)


def _noise(random: np.random.Generator) -> Picture:
    fine = random.integers(0, 256, (*SCENE, 3)).astype(np.uint8)
    return np.asarray(cv2.GaussianBlur(fine, (0, 0), 10 ** random.uniform(-0.5, 1)), np.uint8)


def _text(random: np.random.Generator) -> Picture:
    picture = np.full((*SCENE, 3), 255, np.uint8)
    for y in range(30, SCENE[0], 36):
        words = "".join(map(chr, random.integers(33, 123, 70)))
        cv2.putText(
            picture, words, (10, y), int(random.integers(8)), 0.9, (0, 0, 0), 2, cv2.LINE_AA
        )
    return picture


def _gradient(random: np.random.Generator) -> Picture:
    coarse = random.integers(0, 256, (2, 3, 3)).astype(np.uint8)
    return _stretched(coarse, cv2.INTER_LINEAR)


def _stripes(random: np.random.Generator) -> Picture:
    """Fur and water: waves that bend, in two colours."""
    y, x = np.mgrid[: SCENE[0], : SCENE[1]] / 10 ** random.uniform(0.5, 1.5)
    bend = sum(np.sin(x * random.uniform(0, 1) + y * random.uniform(0, 1)) for _ in range(4))
    share = (0.5 + 0.5 * np.sin(bend * random.uniform(1, 4)))[..., None]
    dark, light = random.integers(0, 256, (2, 3))
    return (dark * share + light * (1 - share)).astype(np.uint8)


def _smileys(random: np.random.Generator) -> Picture:
    """Drawn faces: a disc, two dots and an arc."""
    picture = np.full((*SCENE, 3), 255, np.uint8)
    for x in range(100, SCENE[1], 180):
        for y in range(100, SCENE[0], 180):
            r = int(random.integers(20, 80))
            skin = (255, int(random.integers(180, 230)), int(random.integers(60, 200)))
            cv2.circle(picture, (x, y), r, skin, -1, cv2.LINE_AA)
            for eye in (x - r // 3, x + r // 3):
                cv2.circle(
                    picture, (eye, y - r // 4), max(r // 9, 1), (20, 20, 20), -1, cv2.LINE_AA
                )
            cv2.ellipse(picture, (x, y), (r // 2, r // 2), 0, 30, 150, (90, 20, 20), 1 + r // 20)
    return picture


def _rendered(random: np.random.Generator) -> Picture:
    """Faces of data.synthetic, undistorted, twice their size, eight in a picture."""
    faces = SyntheticFaces(8, 1, seed=int(random.integers(1 << 30)), severity=0.0)
    picture = np.full((*SCENE, 3), 200, np.uint8)
    for row in range(8):
        y, x = 60 + 340 * (row // 4), 40 + 310 * (row % 4)
        large = cv2.resize(faces.read(row), (224, 224), interpolation=cv2.INTER_CUBIC)
        picture[y : y + 224, x : x + 224] = large
    return picture


NOT_FACES: dict[str, Callable[[np.random.Generator], Picture]] = {
    "noise": _noise,
    "text": _text,
    "gradients": _gradient,
    "shapes": clutter,
    "stripes": _stripes,
    "smileys": _smileys,
    "rendered faces": _rendered,
}

"""What a person can see in a face, measured, and in words: blur, size, pose, light.

The scorer calls `measure` for each batch and puts `reasons` into every row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import SIZE
from estimators.base import luminance
from photos.align import share_outside
from report.sheet import LANDMARKS, Measures

# x to the viewer's right, y down, z away from the viewer, of `LANDMARKS` in eye distances: the tip
# of the nose lies half an eye distance (some 32 mm) before the plane of eyes and mouth corners.
FACE_MODEL: NDArray[np.float64] = np.array(
    [(-0.5, 0.0, 0.0), (0.5, 0.0, 0.0), (0.0, 0.55, -0.5), (-0.42, 1.1, 0.0), (0.42, 1.1, 0.0)]
)
_TO_CAMERA = np.linalg.pinv(FACE_MODEL - FACE_MODEL.mean(axis=0)).T  # (5, 3)

# Where a reason begins. On 1500 LFW faces "blurred", "low contrast", "too bright" and "dark" are
# said of 1 to 4 in 100 each; docs/score_photos.md has the measurements behind every number.
LIMITS = {
    "blurred": 0.14,  # sqrt(sharpness) / contrast
    "small": 20.0,  # eye distance in pixels
    "turned away": 30.0,  # degrees of yaw, either way
    "tilted": 30.0,  # degrees of roll, either way
    "dark": 70.0,  # mean grey level, 0 to 255
    "too bright": 165.0,  # mean grey level
    "low contrast": 32.0,  # standard deviation of the grey levels
    "unevenly lit": 1.25,  # logarithm of how much more light one side gives: 3.5 times
    "cut off": 0.1,  # share of the aligned face beyond the border of the photo
}
_WHITE = 255.0
_Y, _X = np.mgrid[:SIZE, :SIZE]
FACE_REGION: NDArray[np.bool_] = ((_X - 56) / 34) ** 2 + ((_Y - 76) / 37) ** 2 <= 1  # brows to chin
_LEFT, _RIGHT = FACE_REGION & (_X < 50), FACE_REGION & (_X > 62)
_BLACK = 0.01  # luminance that is added, so that black has a logarithm


def measure(
    aligned: NDArray[np.uint8],
    landmarks: Sequence[NDArray[np.floating] | None],
    sizes: Sequence[tuple[float, float] | None] | None = None,
) -> list[Measures]:
    """Measure B faces, uint8 (B, 112, 112, 3) RGB.

    Sharpness, brightness and contrast are those of OpenCV's grey levels of the whole aligned face,
    the first as `estimators.sharpness` has it. Landmarks are (5, 2) x, y in the photo's pixels;
    without finite ones that span a face all measures of its place in the photo are None, and so is
    `uneven`, which a turned head would raise. `sizes` are width and height of each photo.

    Raises:
        ValueError: not one entry of landmarks per face.
    """
    if len(aligned) != len(landmarks):
        raise ValueError(f"{len(aligned)} faces, but landmarks for {len(landmarks)}")
    measures = [Measures(**_light(face)) for face in aligned]
    usable = [place for place, points in enumerate(landmarks) if spans_a_face(points)]
    if usable:
        points = np.stack([np.asarray(landmarks[place], np.float64) for place in usable])
        distances = np.linalg.norm(points[:, 1] - points[:, 0], axis=1)
        values = np.column_stack([distances, *head_pose(points)]).tolist()
        for place, five, (distance, yaw, roll) in zip(usable, points, values, strict=True):
            size = sizes[place] if sizes else None
            measures[place] = replace(
                measures[place],
                eye_distance=distance,
                yaw=yaw,
                roll=roll,
                uneven=_side_difference(aligned[place]),
                outside=None if size is None else share_outside(five, size),
            )
    return measures


def head_pose(landmarks: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Yaw and roll of B heads, by fitting `FACE_MODEL` to their landmarks under weak perspective.

    The least-squares map from the model to the picture, (2, 3), is replaced by the nearest one that
    is a rotation and a scale: its two singular values are made equal. The rotation is read as
    roll after yaw after pitch. Exact for points that are the model's own,
    turned and seen from afar; other faces deviate as their noses do.

    Args:
        landmarks: (B, 5, 2) finite x, y of `LANDMARKS`, not all at one place.

    Returns:
        (B,) degrees each: yaw in -90..90, positive where the face looks to the viewer's right, and
        roll in -180..180, positive clockwise.
    """
    centred = landmarks - landmarks.mean(axis=1, keepdims=True)
    affine = np.einsum("bpc,pm->bcm", centred, _TO_CAMERA)
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    towards = np.cross(rows[:, 0], rows[:, 1])  # third row: depth of the model's axes
    yaw = np.degrees(np.arcsin(np.clip(towards[:, 0], -1, 1)))
    return yaw, np.degrees(np.arctan2(rows[:, 1, 0], rows[:, 0, 0]))


def reasons(measures: Measures) -> tuple[str, ...]:
    """What a person would name, the worst first; () where nothing is beyond `LIMITS`.

    The worst is the one whose measure is the most times beyond its limit: half of a least eye
    distance and twice a largest yaw are equally bad. "too bright" counts what is left to white.
    Blur is measured against contrast, so that a dark or pale face is not called blurred: the
    Laplacian's standard deviation is compared with that of the grey levels.
    """
    beyond = {name: times for name, times in _times_beyond(measures) if times > 1}
    return tuple(sorted(beyond, key=lambda name: -beyond[name]))


def _times_beyond(measures: Measures) -> Iterable[tuple[str, float]]:
    """Each reason, and how many times its measure is beyond the limit; up to 1 is within it."""
    yield "blurred", _over(LIMITS["blurred"] * measures.contrast, measures.sharpness**0.5)
    if measures.eye_distance is not None:
        yield "small", _over(LIMITS["small"], measures.eye_distance)
    if measures.yaw is not None:
        yield "turned away", abs(measures.yaw) / LIMITS["turned away"]
    if measures.roll is not None:
        yield "tilted", abs(measures.roll) / LIMITS["tilted"]
    yield "dark", _over(LIMITS["dark"], measures.brightness)
    yield "too bright", _over(_WHITE - LIMITS["too bright"], _WHITE - measures.brightness)
    yield "low contrast", _over(LIMITS["low contrast"], measures.contrast)
    if measures.uneven is not None and abs(measures.yaw or 0) <= LIMITS["turned away"]:
        yield "unevenly lit", measures.uneven / LIMITS["unevenly lit"]
    if measures.outside is not None:
        yield "cut off", measures.outside / LIMITS["cut off"]


def _over(limit: float, value: float) -> float:
    """Divide limit by value; an even picture (0 / 0) has nothing to be blurred."""
    if value > 0:
        return limit / value
    return float("inf") if limit > 0 else 0.0


def _light(face: NDArray[np.uint8]) -> dict[str, float]:
    """Variance of the Laplacian, mean and standard deviation of the grey levels."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))
    sharpness = float(edges[0, 0]) ** 2
    return {"sharpness": sharpness, "brightness": float(grey.mean()), "contrast": float(grey.std())}


def _side_difference(face: NDArray[np.uint8]) -> float:
    """By how much the mean logarithms of the luminance of the face's two sides differ."""
    light = np.log(luminance(face[None])[0] + _BLACK)
    return float(abs(light[_LEFT].mean() - light[_RIGHT].mean()))


def spans_a_face(points: NDArray[np.floating] | None) -> bool:
    """Whether five landmarks can be aligned: finite, and not all at one place."""
    if points is None:
        return False
    if np.shape(points) != (len(LANDMARKS), 2):
        raise ValueError(f"landmarks of shape {np.shape(points)}: must be ({len(LANDMARKS)}, 2)")
    return bool(np.isfinite(points).all() and (points != points[0]).any())

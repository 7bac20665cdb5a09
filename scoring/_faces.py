"""From a photo to its aligned faces, or to the reason why it has none.

For `Scorer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluation.face_score import FaceScore

if TYPE_CHECKING:
    from photos.decode import Photo
    from photos.detectors.base import Detections

SIZE = 112


def faces_of(
    image: int,
    photo: Photo | ValueError,
    aligned: bool | None,
    find: Callable[[NDArray[np.uint8]], Detections],
    max_faces: int | None,
) -> list[FaceScore]:
    """Rows of one image: its aligned faces, not scored yet, or one row that says why there is none.

    Args:
        image: its number.
        photo: its pixels, or the error with which it was refused.
        aligned: whether it is an aligned face; None: it is one if it has 112x112 pixels.
        find: the detector; called for photos alone.
        max_faces: the largest ones; None for all.
    """
    if isinstance(photo, ValueError):
        return [FaceScore(image=image, status="unreadable", note=str(photo))]
    height, width = photo.pixels.shape[:2]
    if aligned is None:
        aligned = (height, width) == (SIZE, SIZE)
    if not aligned:
        return _detected(image, photo, find(photo.pixels), max_faces)
    from data.images import to_112

    resized = "" if (height, width) == (SIZE, SIZE) else f"resized from {width}x{height}"
    note = _joined(photo.note, resized)
    return [FaceScore(image=image, face=0, note=note, aligned=to_112(photo.pixels))]


def _detected(
    image: int, photo: Photo, found: Detections, max_faces: int | None
) -> list[FaceScore]:
    from photos.align import align

    usable = [place for place, points in enumerate(found.landmarks) if _spans_a_face(points)]
    if not usable:
        note = _joined("no face found", photo.note)
        return [FaceScore(image=image, status="no face", note=note)]
    boxes, landmarks = found.boxes * photo.scale, found.landmarks * photo.scale
    return [
        FaceScore(
            image=image,
            face=face,
            note=photo.note,
            box=tuple(boxes[place].tolist()),
            landmarks=landmarks[place].astype(np.float32),
            detection=float(found.scores[place]),
            aligned=align(photo.pixels, found.landmarks[place]),
        )
        for face, place in enumerate(usable[:max_faces])
    ]


def _spans_a_face(points: NDArray[np.floating]) -> bool:
    """Whether five landmarks can be aligned: finite, and not all at one place."""
    return bool(np.isfinite(points).all() and np.ptp(points, axis=0).any())


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)

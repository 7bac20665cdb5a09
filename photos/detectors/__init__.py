"""Face detectors, one file each: boxes and five landmarks of the faces in a photo."""

import numpy as np
from numpy.typing import NDArray

from photos.detectors.base import Detections, Detector, detections, suppress
from utils.config import Method, parse_method
from utils.methods import build

__all__ = ["Detections", "Detector", "open_detector"]


def open_detector(text: str) -> Detector:
    """Build a detector from `name` or `name:option=value,option=value`, as in `mtcnn:min_face=40`.

    The name is a file of this folder; `turned=true` suits each, see `Turned`.

    Raises:
        ValueError: unknown name or option, a value out of range, or a package or a file of
            weights that is missing; the message says what to do about it.
    """
    try:
        method = parse_method(text)
        options = dict(method.options)
        turned = str(options.pop("turned", "false")).lower()
        if turned not in ("true", "false"):
            raise ValueError(f"{text}: turned = {turned}: must be true or false")
        detector: Detector = build("photos.detectors", Method(method.name, **options))
    except TypeError as error:  # an option of another type, as in min_face=small
        raise ValueError(f"{text}: {error}") from error
    return Turned(detector) if turned == "true" else detector


class Turned:
    """Looks for faces in a photo turned by 0, 90, 180 and 270 degrees; four times the work.

    Of detections of one place the most certain counts, so that a turned head has turned landmarks.
    """

    def __init__(self, detector: Detector) -> None:
        self.name = detector.name
        self._detector = detector

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, turned by any quarter, any size."""
        height, width = image.shape[:2]
        boxes, landmarks, scores = [], [], []
        for quarters in range(4):
            faces = self._detector(np.ascontiguousarray(np.rot90(image, quarters)))
            corners, points = faces.boxes.reshape(-1, 2, 2), faces.landmarks
            for before in reversed(range(quarters)):
                side = height if before % 2 else width
                corners = np.stack([side - corners[..., 1], corners[..., 0]], axis=-1)
                points = np.stack([side - 1 - points[..., 1], points[..., 0]], axis=-1)
            boxes.append(np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1))
            landmarks.append(points)
            scores.append(faces.scores)
        places, certainty = np.concatenate(boxes), np.concatenate(scores)
        chosen = suppress(places, certainty, 0.5, "smaller")
        return detections(
            places[chosen], np.concatenate(landmarks)[chosen], certainty[chosen], image.shape
        )

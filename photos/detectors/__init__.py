"""Face detectors, one file each: boxes and five landmarks of the faces in a photo."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photos.detectors.base import Detections, Detector, detections, not_upright, suppress
from utils.config import Method, parse_method
from utils.methods import build, check_options

__all__ = ["Detections", "Detector", "FaceSearch", "Found", "SearchOptions", "open_detector"]


@dataclass(frozen=True)
class SearchOptions:
    """What suits every detector.

    Attributes:
        turned: look also for heads turned by 90, 180 and 270 degrees; four times the work.
        second_look: where nothing is found, look again, less strictly; of detectors that can.
    """

    turned: bool = False
    second_look: bool = True


def open_detector(text: str) -> "FaceSearch":
    """Build a detector from `name` or `name:option=value,option=value`, as in `mtcnn:min_face=40`.

    The name is a file of this folder; the options of `SearchOptions` suit each.

    Raises:
        ValueError: unknown name or option, a value out of range, or a package or a file of
            weights that is missing; the message says what to do about it.
    """
    try:
        method = parse_method(text)
        check_options("photos.detectors", method, SearchOptions)
        options = dict(method.options)
        search = {name: options.pop(name) for name in vars(SearchOptions()) if name in options}
        for name, value in search.items():
            search[name] = {"true": True, "false": False}.get(str(value).lower(), value)
            if not isinstance(search[name], bool):
                raise ValueError(f"{text}: {name} = {value}: must be true or false")
        detector: Detector = build("photos.detectors", Method(method.name, **options))
    except TypeError as error:  # an option of another type, as in min_face=small
        raise ValueError(f"{text}: {error}") from error
    return FaceSearch(detector, SearchOptions(**search))


class Found(NamedTuple):
    """What a search found in a photo.

    Attributes:
        faces: largest first.
        at_second_look: whether they were found at the second look only.
        turned: number of turned heads: of those among `faces` where these were looked for, else of
            those that were left out.
    """

    faces: Detections
    at_second_look: bool
    turned: int


class FaceSearch:
    """A detector that looks again where it finds nothing, and is not deceived by turned heads.

    A head turned by a quarter or more may have landmarks as if it were upright. Such faces are left
    out, or with `turned` found in a look at the photo turned accordingly.

    A detector may have `looser`, the same with lower thresholds for the second look, and
    `turned(image, faces)`, which tells the faces (K,) whose heads are turned; by default those are
    the ones whose mouth is not below their eyes.
    """

    def __init__(self, detector: Detector, options: SearchOptions = SearchOptions()) -> None:
        self.name, self.options = detector.name, options
        self.least_score: float = getattr(detector, "least_score", 0.0)
        self._detector: Detector = detector
        self._looser: Detector | None = getattr(detector, "looser", None)
        self._turned: Callable[[NDArray[np.uint8], Detections], NDArray[np.bool_]]
        self._turned = getattr(detector, "turned", lambda _, faces: not_upright(faces.landmarks))

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, any size."""
        return self.search(image).faces

    def search(self, image: NDArray[np.uint8]) -> Found:
        """Find the faces of a photo, and say how."""
        faces, turned = self._look(self._detector, image)
        if len(faces.scores) or self._looser is None or not self.options.second_look:
            return Found(faces, False, turned)
        faces, turned_at_last = self._look(self._looser, image)
        return Found(faces, len(faces.scores) > 0, max(turned, turned_at_last))

    def _look(self, detector: Detector, image: NDArray[np.uint8]) -> tuple[Detections, int]:
        """Look once, or in all directions; of detections of one place the most certain counts."""
        height, width = image.shape[:2]
        looks, left_out = [], 0
        for quarters in range(4 if self.options.turned else 1):
            view = np.ascontiguousarray(np.rot90(image, quarters))
            faces = detector(view)
            wrong = self._turned(view, faces) if len(faces.scores) else np.zeros(0, np.bool_)
            left_out += int(wrong.sum())
            boxes, points, scores = (values[~wrong] for values in faces)
            corners = boxes.reshape(-1, 2, 2)
            for before in reversed(range(quarters)):
                side = height if before % 2 else width
                corners = np.stack([side - corners[..., 1], corners[..., 0]], axis=-1)
                points = np.stack([side - 1 - points[..., 1], points[..., 0]], axis=-1)
            boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
            looks.append((boxes, points, scores, np.full(len(scores), quarters > 0)))
        boxes, points, scores, is_turned = map(np.concatenate, zip(*looks, strict=True))
        if not self.options.turned:
            return detections(boxes, points, scores, image.shape), left_out
        chosen = suppress(boxes, scores, 0.5, "smaller")
        faces = detections(boxes[chosen], points[chosen], scores[chosen], image.shape)
        return faces, int(is_turned[chosen].sum())

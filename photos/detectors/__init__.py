"""Face detectors, one file each: boxes and five landmarks of the faces in a photo."""

from photos.detectors.base import Detections, Detector
from utils.config import parse_method
from utils.methods import build

__all__ = ["Detections", "Detector", "open_detector"]


def open_detector(text: str) -> Detector:
    """Build a detector from `name` or `name:option=value,option=value`, as in `mtcnn:min_face=40`.

    The name is a file of this folder.

    Raises:
        ValueError: unknown name or option, a value out of range, or a package or a file of
            weights that is missing; the message says what to do about it.
    """
    try:
        detector: Detector = build("photos.detectors", parse_method(text))
    except TypeError as error:  # an option of another type, as in min_face=small
        raise ValueError(f"{text}: {error}") from error
    return detector

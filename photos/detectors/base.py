"""What every face detector gives; scoring aligns faces with it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Detections(NamedTuple):
    """The K faces of one photo, largest first.

    Attributes:
        boxes: (K, 4) float32 left, top, right, bottom in pixels.
        landmarks: (K, 5, 2) float32 x, y of left eye, right eye, nose tip, left and right mouth
            corner, as seen by the viewer.
        scores: (K,) float32 in 0..1, how sure the detector is.
    """

    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    scores: NDArray[np.float32]


class Detector(Protocol):
    """Finds faces; owns its weights and thresholds, and always answers the same."""

    name: str

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, upright, any size."""
        ...

"""YuNet by OpenCV's own detector class: the fastest of the three, for users who bring its file.

The file is face_detection_yunet_*.onnx of opencv_zoo.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np
from numpy.typing import NDArray

from photos.detectors.base import Detections, check_options, detections, needed_file, shrunk

__all__ = ["YuNet"]

_MULTIPLE = 32  # the input's sides are multiples of it
_SOURCE = "face_detection_yunet_*.onnx lies in opencv_zoo, folder models/face_detection_yunet"
_CANDIDATES = 5000  # of a photo, before doubles are dropped


class YuNet:
    """Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023.

    An instance may be shared by threads; they take turns.
    """

    name = "yunet"

    def __init__(
        self,
        *,
        weights: str = "",
        threshold: float = 0.8,
        overlap: float = 0.3,
        max_side: int = 1280,
    ) -> None:
        """Load the network of the file `weights`; `check_options` explains the rest.

        Raises:
            ValueError: value out of range, or a file that is missing or not a network.
        """
        check_options(self.name, threshold, overlap, max_side, _MULTIPLE)
        path = needed_file(self.name, weights, _SOURCE)
        self.max_side = max_side
        size = (_MULTIPLE, _MULTIPLE)
        try:
            self._net = cv2.FaceDetectorYN.create(
                str(path), "", size, threshold, overlap, _CANDIDATES
            )
        except cv2.error as error:
            raise ValueError(f"yunet: {path}: not an ONNX network: {error}") from error
        self._lock = threading.Lock()

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, upright, any size."""
        small, scale = shrunk(image, self.max_side)
        blue_first = np.ascontiguousarray(small[..., ::-1])
        with self._lock:
            self._net.setInputSize((small.shape[1], small.shape[0]))
            _, faces = self._net.detect(blue_first)
        rows = np.zeros((0, 15)) if faces is None else np.asarray(faces, dtype=np.float64)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        landmarks = rows[:, 4:14].reshape(-1, 5, 2)
        return detections(boxes / scale, landmarks / scale, rows[:, 14], image.shape)

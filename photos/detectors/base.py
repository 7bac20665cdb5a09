"""What every face detector gives, and what they share: boxes, and networks of OpenCV.

Boxes are (K, 4) left, top, right, bottom; a pixel is the unit square whose left and top edges are
its indices.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.files import naming
from utils.onnx_runtime import read_probed

Floats = NDArray[np.floating | np.integer]
# Of each face its box (K, 4), landmarks (K, 5, 2) and score (K,).
Rows = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]

MOST_TURN = 60.0  # degrees, of a head that counts as upright
_AT_ONCE = 64  # boxes that are compared with all others at a time
MULTIPLE = 32  # the sides of the input of most networks of OpenCV are multiples of it


class Detections(NamedTuple):
    """The K faces of one photo, largest first.

    Attributes:
        boxes: (K, 4) float32 left, top, right, bottom in pixels.
        landmarks: (K, 5, 2) float32 x, y of left eye, right eye, nose tip, left and right mouth
            corner, as seen by the viewer.
        scores: (K,) float32 in 0..1, the detector's certainty.
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


def suppress(
    boxes: Floats, scores: Floats, most: float, share_of: Literal["union", "smaller"] = "union"
) -> NDArray[np.intp]:
    """Choose boxes (K, 4), the highest scores (K,) first; return their rows in this order.

    No box covers a more certain one by more than `most`, their intersection as a share of the union
    or of the smaller box. Of equal scores the first comes first.
    """
    corners, opposite = boxes[:, None, :2], boxes[:, None, 2:]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

    def doubles(rows: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.bool_]:
        corner = np.minimum(opposite[rows], boxes[others, 2:])
        sides = (corner - np.maximum(corners[rows], boxes[others, :2])).clip(min=0)
        shared = sides[..., 0] * sides[..., 1]
        if share_of == "union":
            whole = areas[rows, None] + areas[others] - shared
        else:
            whole = np.minimum(areas[rows, None], areas[others])
        return np.asarray(shared > most * whole)

    rest, chosen = np.argsort(-scores, kind="stable"), [np.zeros(0, np.intp)]
    while rest.size:
        rows, rest = rest[:_AT_ONCE], rest[_AT_ONCE:]
        double, free = doubles(rows, rows), np.ones(len(rows), np.bool_)
        for place in range(len(rows)):
            if free[place]:
                free[place + 1 :] &= ~double[place, place + 1 :]
        chosen.append(rows[free])
        if rest.size:
            rest = rest[~doubles(rows[free], rest).any(axis=0)]
    return np.concatenate(chosen)


def not_upright(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether the way from eyes to mouth (K, 5, 2) is more than `MOST_TURN` away from down."""
    across, down = (landmarks[:, 3:].mean(axis=1) - landmarks[:, :2].mean(axis=1)).T
    turned: NDArray[np.bool_] = np.abs(np.degrees(np.arctan2(across, down))) > MOST_TURN
    return turned


def detections(
    boxes: Floats, landmarks: Floats, scores: Floats, shape: tuple[int, ...]
) -> Detections:
    """Sort boxes (K, 4), clipped to the photo's shape, and their landmarks (K, 5, 2) by size.

    A box wholly outside of it is dropped; scores (K,) are clipped to 0..1.
    """
    height, width = shape[:2]
    boxes = np.clip(boxes.reshape(-1, 4), 0, [width, height, width, height])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = np.argsort(-area, kind="stable")
    order = order[area[order] > 0]
    return Detections(
        boxes[order].astype(np.float32),
        landmarks.reshape(-1, 5, 2)[order].astype(np.float32),
        np.clip(scores[order], 0, 1).astype(np.float32),
    )


@dataclass(kw_only=True, eq=False)
class OneLook(ABC):
    """A detector that sees a photo once, by a network of OpenCV whose file the user brings.

    Threads may share it; they take turns.

    Args:
        weights: the file.
        threshold: least score of a face, in 0..1.
        overlap: largest share of its union with a more certain face that a face may have, in 0..1.
        max_side: pixels; a photo whose longer side has more is reduced to it.

    Raises:
        ValueError: value out of range, or a file that is missing or another network.
    """

    weights: str = ""
    threshold: float = 0.5
    overlap: float = 0.3
    max_side: int = 1280

    name: ClassVar[str]
    source: ClassVar[str]  # where to get the file

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or not 0 < self.overlap < 1:
            raise ValueError(
                f"{self.name}: threshold = {self.threshold}, overlap = {self.overlap}: must be "
                "between 0 and 1"
            )
        if self.max_side < MULTIPLE:
            raise ValueError(
                f"{self.name}: max_side = {self.max_side}: must be at least {MULTIPLE}"
            )
        if not self.weights:
            raise ValueError(f"{self.name}: say {self.name}:weights=FILE; {self.source}")
        if not Path(self.weights).is_file():
            raise ValueError(f"{self.name}: {self.weights}: no such file; {self.source}")
        try:
            with naming(self.name):
                read_probed(Path(self.weights))
            self.open()
        except cv2.error as error:
            raise ValueError(f"{self.name}: {self.weights}: not its network: {error}") from error
        self.least_score, self._lock = self.threshold, threading.Lock()

    @abstractmethod
    def open(self) -> None:
        """Read the network; cv2.error where the file is not it."""

    @abstractmethod
    def look(self, image: NDArray[np.uint8]) -> Rows:
        """Find faces in a photo (H, W, 3), not too large."""

    def __call__(self, image: NDArray[np.uint8]) -> Detections:
        """Find the faces of a photo: uint8 (H, W, 3) RGB, upright, any size."""
        small, scale = shrunk(image, self.max_side)
        with self._lock:
            boxes, landmarks, scores = self.look(small)
        return detections(boxes / scale, landmarks / scale, scores, image.shape)


def shrunk(image: NDArray[np.uint8], max_side: int) -> tuple[NDArray[np.uint8], float]:
    """Reduce a photo whose longer side is too large; return it and its relative size, at most 1."""
    scale = min(1.0, max_side / max(image.shape[:2]))
    if scale == 1.0:
        return image, scale
    height, width = image.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, dtype=np.uint8), scale

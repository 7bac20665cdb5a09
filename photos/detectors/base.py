"""What every face detector gives, and the tools they share: boxes, weight files, ONNX networks.

Boxes are (K, 4) left, top, right, bottom; a pixel is the unit square whose left and top edges are
its indices. onnxruntime is imported when a network is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from utils.onnx_runtime import open_session

Floats = NDArray[np.floating | np.integer]

MOST_TURN = 60.0  # degrees, of a head that counts as upright
_BATCH = 256  # inputs at a time, which bounds memory


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


def check_options(
    name: str, threshold: float, overlap: float, max_side: int, smallest: int
) -> None:
    """Refuse options of a detector that sees a photo once; ValueError names the value.

    `threshold` is the least score of a face, in 0..1; `overlap` the largest share of its union with
    a more certain face that a face may have; a photo whose longer side has more than `max_side`
    pixels is reduced to it.
    """
    if not 0 < threshold < 1 or not 0 < overlap < 1:
        raise ValueError(
            f"{name}: threshold = {threshold}, overlap = {overlap}: must be between 0 and 1"
        )
    if max_side < smallest:
        raise ValueError(f"{name}: max_side = {max_side}: must be at least {smallest}")


def suppress(
    boxes: Floats, scores: Floats, most: float, share_of: Literal["union", "smaller"] = "union"
) -> NDArray[np.intp]:
    """Choose boxes (K, 4), the highest scores (K,) first; return their rows in this order.

    No box covers a more certain one by more than `most`, their intersection as a share of the union
    or of the smaller box. Of equal scores the first comes first.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    rest = np.argsort(-scores, kind="stable")
    chosen = []
    while rest.size:
        first, rest = rest[0], rest[1:]
        chosen.append(first)
        corner = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        sides = (corner - np.maximum(boxes[first, :2], boxes[rest, :2])).clip(min=0)
        shared = sides[:, 0] * sides[:, 1]
        if share_of == "union":
            whole = areas[first] + areas[rest] - shared
        else:
            whole = np.minimum(areas[first], areas[rest])
        rest = rest[shared <= most * whole]
    return np.array(chosen, dtype=np.intp)


def not_upright(landmarks: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Whether the way from eyes to mouth (K, 5, 2) is more than `MOST_TURN` away from down."""
    across, down = (landmarks[:, 3:].mean(axis=1) - landmarks[:, :2].mean(axis=1)).T
    turned: NDArray[np.bool_] = np.abs(np.degrees(np.arctan2(across, down))) > MOST_TURN
    return turned


def squared(boxes: Floats) -> Floats:
    """Grow each box to a square about its own centre."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def cut(image: NDArray[np.uint8], boxes: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """Cut boxes out of a picture (H, W, 3) as squares; black where they pass its border.

    Boxes are (K, 4) whole pixels, right and bottom exclusive, each with an area. Returns (K, side,
    side, 3), shrunk by averaging, so that fine patterns do not alias.
    """
    height, width = image.shape[:2]
    squares = np.zeros((len(boxes), side, side, 3), dtype=np.uint8)
    for square, (left, top, right, bottom) in zip(squares, boxes.tolist(), strict=True):
        part = image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
        if not part.size:
            continue
        above, before = max(-top, 0), max(-left, 0)
        below, after = max(bottom - height, 0), max(right - width, 0)
        if above or before or below or after:
            part = np.pad(part, ((above, below), (before, after), (0, 0)))
        shrinks = part.shape[0] > side
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cv2.resize(part, (side, side), dst=square, interpolation=how)
    return squares


def shrunk(image: NDArray[np.uint8], max_side: int) -> tuple[NDArray[np.uint8], float]:
    """Reduce a photo whose longer side is too large; return it and its relative size, at most 1."""
    scale = min(1.0, max_side / max(image.shape[:2]))
    if scale == 1.0:
        return image, scale
    height, width = image.shape[:2]
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, dtype=np.uint8), scale


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


def needed_file(name: str, weights: str, source: str) -> Path:
    """Path of the weights that a user brings; `source` says where to get such a file.

    Raises:
        ValueError: no path, or no such file.
    """
    if not weights:
        raise ValueError(f"{name}: say {name}:weights=FILE; {source}")
    path = Path(weights)
    if not path.is_file():
        raise ValueError(f"{name}: {path}: no such file; {source}")
    return path


class Network:
    """One network with one input; safe to call from several threads."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Read a file.

        Raises:
            ValueError: onnxruntime or the file is missing, or it is not a network.
        """
        if not path.is_file():
            raise ValueError(f"{path}: no such file of weights")
        self._session = open_session(path, path, threads=threads)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Every output of the network, in the file's order, first axis as the input's."""
        parts = [
            self._session.run(None, {self._input: batch[start : start + _BATCH]})
            for start in range(0, max(len(batch), 1), _BATCH)
        ]
        return [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]

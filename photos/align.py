"""Align faces by five landmarks: the similarity transform to ArcFace's 112x112 template.

`LooseCrops` aligns the images of a set that comes as loose crops with landmarks (IJB-B/C).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import SIZE, Sizes, decode, fingerprint
from utils.files import read_bytes
from utils.long_work import threads

# (x, y) in pixels of left eye, right eye, nose tip, left and right mouth corner, as seen by the
# viewer: where every public ArcFace-style recogniser expects them.
REFERENCE: NDArray[np.float64] = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ]
)


def similarity_transforms(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rotation, scale and shift that bring landmarks nearest to `REFERENCE` by least squares.

    Closed form (Umeyama, PAMI 1991, in the plane): with centred points as complex numbers z and
    reference w, rotation and scale are sum(conj(z) w) / sum |z|^2. It never mirrors.
    Points are (N, 5, 2) x, y in pixels.

    Returns:
        (N, 2, 3) matrices for `cv2.warpAffine`; NaN where all five points coincide.
    """
    source = points[..., 0] + 1j * points[..., 1].astype(np.float64)
    target = REFERENCE[:, 0] + 1j * REFERENCE[:, 1]
    centre = source.mean(axis=1)
    centred = source - centre[:, None]
    size = (centred.real**2 + centred.imag**2).sum(axis=1)
    joint = (centred.conj() * (target - target.mean())).sum(axis=1)
    turn = np.divide(joint, size, out=np.full_like(joint, np.nan), where=size > 0)
    shift = target.mean() - turn * centre
    rows = [(turn.real, -turn.imag, shift.real), (turn.imag, turn.real, shift.imag)]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)


def share_outside(landmarks: NDArray[np.floating], size: tuple[float, float]) -> float:
    """Return which share of the aligned face lies beyond the border of a photo (width, height)."""
    to_photo = cv2.invertAffineTransform(similarity_transforms(landmarks[None])[0])
    corners = np.array([(0, 0), (SIZE, 0), (SIZE, SIZE), (0, SIZE)]) - 0.5
    face = (corners @ to_photo[:, :2].T + to_photo[:, 2]).astype(np.float32)
    width, height = size
    photo = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) - 0.5
    inside, _ = cv2.intersectConvexConvex(face, photo)
    return max(0.0, 1 - inside / cv2.contourArea(face))


def align(image: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Cut the aligned face (112, 112, 3) out of a picture (H, W, 3) RGB.

    It is bilinear, and black outside of the picture. Landmarks are (5, 2) x, y in the picture's
    pixels.

    Raises:
        ValueError: all five landmarks coincide.
    """
    matrix = similarity_transforms(points[None])[0]
    if not np.isfinite(matrix).all():
        raise ValueError(f"the five landmarks do not span a face: {points.tolist()}")
    warped = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderValue=0)
    return np.asarray(warped, dtype=np.uint8)


class LooseCrops:
    """M loose crops, aligned when they are decoded; landmarks are (M, 5, 2) x, y in pixels."""

    def __init__(
        self, folder: Path, names: NDArray[np.bytes_], landmarks: NDArray[np.float64]
    ) -> None:
        self.folder, self._names, self._landmarks = folder, names, landmarks
        self.sizes = Sizes()  # of nothing: the crops are aligned here

    def __len__(self) -> int:
        return len(self._names)

    def image_name(self, row: int) -> str:
        """Return the file name in `loose_crop/`."""
        name: str = self._names[row].decode()
        return name

    def decode(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return images [start, stop) as (n, 112, 112, 3) RGB, aligned by their landmarks.

        Raises:
            ValueError: an image is missing or damaged, or has no usable landmarks; by its path.
        """
        rows = range(start, min(stop, len(self)))
        batch = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
        with ThreadPoolExecutor(threads(None)) as pool:
            for place, image in enumerate(pool.map(self._read, rows)):
                batch[place] = image
        return batch

    def fingerprint(self, row: int) -> int:
        """Return 64 bits that equal crops with equal landmarks share; ValueError as `decode`."""
        return fingerprint(self._encoded(row), self._landmarks[row].tobytes())

    def _encoded(self, row: int) -> bytes:
        path = self.folder / self.image_name(row)
        try:
            return read_bytes(path)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from error

    def _read(self, row: int) -> NDArray[np.uint8]:
        encoded = self._encoded(row)
        try:
            return align(decode(encoded), self._landmarks[row])
        except ValueError as error:
            raise ValueError(f"{self.folder / self.image_name(row)}: {error}") from error

"""Loose crops of faces with landmarks, aligned as they are decoded: the images of IJB."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.images import SIZE, decode
from photos.align import align

_WORKERS = min(8, os.cpu_count() or 1)  # threads that decode: the decoders release the GIL


class LooseCrops:
    """M loose crops, aligned when they are decoded; landmarks are (M, 5, 2) x, y in pixels."""

    def __init__(
        self, folder: Path, names: NDArray[np.bytes_], landmarks: NDArray[np.float64]
    ) -> None:
        self.folder, self._names, self._landmarks = folder, names, landmarks

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
        with ThreadPoolExecutor(_WORKERS) as pool:
            for place, image in enumerate(pool.map(self._read, rows)):
                batch[place] = image
        return batch

    def _read(self, row: int) -> NDArray[np.uint8]:
        path = self.folder / self.image_name(row)
        try:
            return align(decode(path.read_bytes()), self._landmarks[row])
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{path}: {what}") from error

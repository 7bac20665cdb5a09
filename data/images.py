"""Aligned faces as pixels: decoded to 112x112, their sizes counted, and encoded.

An image in this project is uint8 (H, W, 3) RGB; OpenCV's BGR never leaves this file.
"""

from __future__ import annotations

import hashlib
import logging
import threading

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from data.decode import LARGEST, check_size, decode, jpeg_header

log = logging.getLogger("faceuq")

SIZE = 112
LARGEST_ALIGNED = 224  # pixels; aligned faces are squares of 96 to 224, larger ones are loose crops


def decode_into(encoded: bytes | memoryview, out: NDArray[np.uint8]) -> tuple[int, int]:
    """Decode to 112x112 in place: what `to_112(decode(encoded))` returns, without a copy of a JPEG.

    `out` is uint8 (112, 112, 3), C order; it is overwritten, also where this fails.

    Returns:
        Height and width of the image before it was resized.

    Raises:
        ValueError: not an image, or a damaged one.
    """
    if _fits(encoded):
        try:
            simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
        except ValueError:
            pass  # stray bytes or damage: `decode` knows which
        else:
            return SIZE, SIZE
    image = decode(bytes(encoded))
    out[...] = to_112(image)
    return image.shape[0], image.shape[1]


class Sizes:
    """Counts the images of a source by the size that they have before they are resized to 112x112.

    Threads may share it. An image that is not square, or larger than 224x224, is not aligned.
    """

    def __init__(self) -> None:
        self.met = self.unaligned = 0
        self._example: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._is_told = False

    def add(self, height: int, width: int) -> None:
        """Count an image."""
        with self._lock:
            self.met += 1
            if height != width or height > LARGEST_ALIGNED:
                self.unaligned += 1
                self._example = self._example or (width, height)

    def warn(self, source: str) -> None:
        """Warn, once, if some of the images so far are not aligned faces."""
        if self._example is None or self._is_told:
            return
        self._is_told = True
        log.warning(
            "%s: %d of %d images (%.0f %%) are not aligned faces by their size, such as %dx%d: "
            "squeezed to 112x112, they are hardly recognised. Align them first: python "
            "photos/align_faces.py PHOTOS --out FACES --face largest",
            *(source, self.unaligned, self.met, 100 * self.unaligned / self.met, *self._example),
        )


def to_112(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3) at 112x112: itself, or resized (bilinear, as `cv2.resize` does).

    Raises:
        ValueError: no pixels, or too many.
    """
    if image.shape[:2] == (SIZE, SIZE):
        return image
    check_size(image.shape[1], image.shape[0], LARGEST)
    resized = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def fingerprint(*contents: bytes | memoryview) -> int:
    """Return 64 bits that are the same for equal bytes, in every process.

    Two different images of a million share them with a chance below 1e-7.
    """
    return int.from_bytes(hashlib.blake2b(b"".join(contents), digest_size=8).digest(), "little")


def first_rows(fingerprints: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return (M,) the first row with the fingerprint of each row."""
    _, first, place = np.unique(fingerprints, return_index=True, return_inverse=True)
    return first[place]


def encode_jpeg(image: NDArray[np.uint8], quality: int = 95) -> bytes:
    """Encode uint8 (H, W, 3) RGB as JPEG (4:2:0, as OpenCV and mxnet do)."""
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality, "RGB", colorsubsampling="420"
    )
    return encoded


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Encode uint8 (H, W, 3) RGB as PNG, without loss."""
    done, encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return encoded.tobytes()


def _fits(encoded: bytes | memoryview) -> bool:
    """Say whether this is a JPEG of 112x112 whose decoder needs no other memory than the pixels.

    Trying without asking would lose 4 KB for each larger image (simplejpeg 1.9).
    """
    header = jpeg_header(encoded)
    return header is not None and header[:2] == (SIZE, SIZE) and header.colours[-1] != "K"

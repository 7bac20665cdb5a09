"""Encoded images to RGB pixels and back: JPEG through simplejpeg, everything else through OpenCV.

An image in this project is uint8 (H, W, 3) RGB; OpenCV's BGR never leaves this file.
"""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

SIZE = 112

_JPEG_START = b"\xff\xd8\xff"


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode JPEG, PNG or another format of OpenCV; grey becomes RGB, transparency is dropped.

    Returns:
        uint8 (H, W, 3) RGB. JPEG pixels equal those of mxnet and OpenCV bit for bit.

    Raises:
        ValueError: not an image, or a damaged one.
    """
    if encoded[:3] == _JPEG_START:
        return _decode_jpeg(encoded)
    return _decode_other(encoded)


def to_112(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the image at 112x112: itself, or resized (bilinear, as `cv2.resize` does).

    Args:
        image: uint8 (H, W, 3) RGB.
    """
    if image.shape[:2] == (SIZE, SIZE):
        return image
    resized = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


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


def _decode_jpeg(encoded: bytes) -> NDArray[np.uint8]:
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, "RGB")
    except ValueError as error:
        if "extraneous bytes" not in str(error):
            raise ValueError(f"damaged JPEG ({error})") from error
        # stray bytes between segments are common in old collections and cost no pixel
        image = simplejpeg.decode_jpeg(encoded, "RGB", strict=False)
    return image


def _decode_other(encoded: bytes) -> NDArray[np.uint8]:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise ValueError(f"not an image ({len(encoded)} bytes, starting {encoded[:8]!r})")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)

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


def decode_into(encoded: bytes | memoryview, out: NDArray[np.uint8]) -> None:
    """Decode to 112x112 in place: what `to_112(decode(encoded))` returns, without a copy of a JPEG.

    Args:
        encoded: as `decode` takes it, or a view of a mapped file.
        out: uint8 (112, 112, 3), C order; overwritten, also where this fails.

    Raises:
        ValueError: not an image, or a damaged one.
    """
    if _fits(encoded):
        try:
            simplejpeg.decode_jpeg(encoded, "RGB", buffer=out)
        except ValueError:
            pass  # stray bytes or damage: `decode` knows which
        else:
            return
    out[...] = to_112(decode(bytes(encoded)))


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


def _fits(encoded: bytes | memoryview) -> bool:
    """Say whether this is a JPEG of 112x112 whose decoder needs no other memory than the pixels.

    Costs 1.3 us. Trying without asking would lose 4 KB for each larger image (simplejpeg 1.9).
    """
    if encoded[:3] != _JPEG_START:
        return False
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return False
    return (height, width) == (SIZE, SIZE) and colours not in ("CMYK", "YCCK")


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

"""Photos in JPEG, by simplejpeg: large ones are decoded at a fraction of their size.

Used by photos/decode.py. Pixels equal those of data/images.py where nothing is reduced.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray

START = b"\xff\xd8\xff"
FEW = 16  # stray bytes that a writer may leave; more means that the decoder lost its way

_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
_COLOURS = {"Gray": "grey", "CMYK": "CMYK", "YCCK": "CMYK"}
_END = b"\xff\xd9"


def jpeg_size(encoded: bytes) -> tuple[int, int, str] | None:
    """Return (height, width, note on its colours); None where simplejpeg cannot read the header.

    That is so for damaged headers, and for rare sampling factors that other decoders know.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError:
        return None
    return height, width, _COLOURS.get(colours, "")


def decode_jpeg(encoded: bytes, eighths: int = 8) -> tuple[NDArray[np.uint8], str]:
    """Return uint8 (H, W, 3) RGB at so many eighths of its size, rounded up, and a note.

    Raises:
        ValueError: cut off or damaged.
    """
    if eighths == 8:
        options = {}
    else:
        height, width, _, _ = simplejpeg.decode_jpeg_header(encoded)
        options = {"min_height": -(-height * eighths // 8), "min_width": -(-width * eighths // 8)}
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB", **options), ""
    except ValueError as error:
        if not _harmless(str(error), encoded):
            raise ValueError(_reason(str(error))) from error
    try:
        pixels = simplejpeg.decode_jpeg(encoded, "RGB", strict=False, **options)
    except ValueError as error:
        raise ValueError(_reason(str(error))) from error
    return pixels, "stray bytes in the file"


def _harmless(message: str, encoded: bytes) -> bool:
    """Say whether what the decoder met costs no pixel: a few stray bytes, or padding at the end."""
    found = _STRAY.search(message)
    if found is None:
        return False
    count = int(found[1])
    if count <= FEW:
        return encoded.rfind(_END) > encoded.rfind(b"\xff\xda")
    end = encoded.rfind(_END)
    return found[2] == "d9" and len(set(encoded[end - count : end])) == 1


def _reason(message: str) -> str:
    if "Premature end" in message:
        return "cut off: the end of the JPEG is missing"
    return f"damaged JPEG ({message})"

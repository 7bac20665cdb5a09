"""Which way up a photo is: finds the orientation in EXIF data, and turns pixels accordingly.

Pillow's parser of EXIF is not used: it warns, for the whole process, about damaged data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UPRIGHT = 1
ORIENTATION = 0x0112  # the tag
_START = b"Exif\0\0"


def jpeg_exif(encoded: bytes) -> bytes:
    """Return the EXIF block of a JPEG, b"" where it has none."""
    at = 2
    while encoded[at : at + 1] == b"\xff":
        marker = encoded[at + 1 : at + 2]
        if marker == b"\xff":  # padding
            at += 1
            continue
        if marker in (b"", b"\xd9", b"\xda"):
            break
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == b"\xe1" and encoded[at + 4 : at + 10] == _START:
            return encoded[at + 4 : at + 2 + length]
        at += 2 + length
    return b""


def orientation(exif: bytes) -> int:
    """Return the orientation 1..8 that EXIF data gives; 1 where it gives none, or is damaged.

    Source: TIFF 6.0 and EXIF 2.3: tag 0x0112 of the first directory.
    """
    exif = exif.removeprefix(_START)
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return UPRIGHT

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if exif[:1] == b"I" else "big")

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if number(entry, 2) == ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else UPRIGHT
        if entry > len(exif):
            break
    return UPRIGHT


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return the upright image.

    Args:
        pixels: (H, W, 3).
        orientation: of EXIF, 1..8.
    """
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_note(orientation: int) -> str:
    """Say in a few words what `turn` does."""
    if orientation == UPRIGHT:
        return ""
    return "rotated by EXIF" if orientation in (3, 6, 8) else "mirrored by EXIF"

"""Whole photos to upright RGB pixels, whatever their format; each says what was done to it.

For scoring photos (photos/sources.py finds them); docs/score_photos.md lists formats and notes.
"""

from __future__ import annotations

import importlib
import io
import math
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from data.images import (
    JPEG_START,
    LARGEST_JPEG,
    JpegHeader,
    check_size,
    decode_jpeg,
    jpeg_header,
)
from photos.pillow import ORIENTATION, UPRIGHT, guarded, load_rgb, open_image, to_bytes

__all__ = ["Photo", "from_array", "read_photo"]

MOST_PIXELS = 25_000_000  # pixels; a larger photo is reduced
LARGEST = 89_000_000  # pixels that are decoded whole; Pillow itself warns a little above
_EXIF = b"Exif\0\0"
_COLOURS = {"Gray": "grey", "CMYK": "CMYK", "YCCK": "CMYK"}  # of a JPEG
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = 64  # bytes of a file's head that list its brands

_large_photo_lock = threading.Lock()  # so that threads do not decode several huge ones at once


@dataclass(frozen=True, eq=False)
class Photo:
    """An image that is ready to be searched for faces.

    Attributes:
        pixels: uint8 (H, W, 3) RGB, upright.
        note: what was done to it or is unusual, as in "grey; rotated by EXIF"; "" for nothing.
        scale: pixels of the upright original per pixel of `pixels`; 1.0 unless it was reduced.
    """

    pixels: NDArray[np.uint8]
    note: str = ""
    scale: float = 1.0


def read_photo(encoded: bytes) -> Photo:
    """Decode a photo, turn it upright and bring it to 8-bit RGB of at most 25 megapixels.

    Nothing in it is ever executed. Safe to call from several threads.

    Args:
        encoded: JPEG, PNG, WebP, TIFF, GIF, BMP, AVIF, JPEG 2000, PPM and others of Pillow's; HEIC
            where pillow-heif is installed.

    Raises:
        ValueError: the reason: empty, not an image, damaged, cut off, too large, or HEIC.
    """
    if not encoded:
        raise ValueError("empty file")
    if encoded[:3] == JPEG_START:
        header = jpeg_header(encoded)
        if header is not None:
            return _read_jpeg(encoded, header)
    image = _open_heic(encoded) if _is_heic(encoded) else open_image(encoded)
    if image is None:
        raise ValueError(f"not an image ({len(encoded)} bytes, starting {encoded[:8]!r})")
    return _from_pillow(image)


def from_array(array: ArrayLike | Image.Image) -> Photo:
    """Take an image that is in memory already.

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) RGBA, of uint8, uint16, bool or
            floating point (0..1, or 0..255); or an image of PIL, which is turned upright.

    Raises:
        ValueError: another shape or type, no pixels, or values outside.
    """
    if isinstance(array, Image.Image):
        return _from_pillow(array)
    values = np.asarray(array)
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or not values.size:
        raise ValueError(
            f"an array of shape {values.shape} is not an image: expected (H, W), (H, W, 3) RGB or "
            "(H, W, 4) RGBA"
        )
    pixels, note = to_bytes(values)
    if pixels.shape[2] == 3 and pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS:
        return Photo(np.ascontiguousarray(pixels), note)
    photo = _from_pillow(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return replace(photo, note=_joined([photo.note, note]))


def _read_jpeg(encoded: bytes, header: JpegHeader) -> Photo:
    height, width, colours = header
    check_size(width, height, LARGEST_JPEG)
    eighths = next(n for n in range(8, 0, -1) if _part(height, n) * _part(width, n) <= MOST_PIXELS)
    with _one_large_at_a_time(height * width):
        pixels, note = decode_jpeg(encoded, eighths)
    turned = orientation(jpeg_exif(encoded))
    scale = 8 / eighths
    notes = [_COLOURS.get(colours, ""), note, turn_note(turned), _reduced_note(scale)]
    return Photo(turn(pixels, turned), _joined(notes), scale)


def _from_pillow(image: Image.Image) -> Photo:
    width, height = image.size
    check_size(width, height, LARGEST)
    factor = max(1, math.ceil(math.sqrt(width * height / MOST_PIXELS)))
    with _one_large_at_a_time(height * width):
        pixels, notes, already_turned, exif = load_rgb(image, factor)
    turned = orientation(exif)
    notes += [turn_note(already_turned), turn_note(turned), _reduced_note(factor)]
    return Photo(turn(pixels, turned), _joined(notes), float(factor))


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
        if marker == b"\xe1" and encoded[at + 4 : at + 10] == _EXIF:
            return encoded[at + 4 : at + 2 + length]
        at += 2 + length
    return b""


def orientation(exif: bytes) -> int:
    """Return the orientation 1..8 that EXIF data gives; 1 where it gives none, or is damaged.

    Pillow's parser is not used: it warns, for the whole process, about damaged data.
    Source: TIFF 6.0 and EXIF 2.3: tag 0x0112 of the first directory.
    """
    exif = exif.removeprefix(_EXIF)
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


def _is_heic(encoded: bytes) -> bool:
    brands = encoded[8 : min(_BRANDS, int.from_bytes(encoded[:4], "big"))]
    return encoded[4:8] == b"ftyp" and any(brand in brands for brand in _HEIC)


def _open_heic(encoded: bytes) -> Image.Image:
    """Decode HEIC, which comes upright, without telling Pillow of the format."""
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ValueError(
            "HEIC needs the package pillow-heif (pip install pillow-heif), or save it as JPEG"
        ) from error
    opened = guarded("HEIC", lambda: heif.open_heif(io.BytesIO(encoded)))
    width, height = guarded("HEIC", lambda: opened.size)
    check_size(width, height, LARGEST)
    image: Image.Image = guarded("HEIC", opened.to_pillow)
    image.info.pop("exif", None)
    return image


def _one_large_at_a_time(pixels: int) -> AbstractContextManager[object]:
    return _large_photo_lock if pixels > MOST_PIXELS else nullcontext()


def _part(length: int, eighths: int) -> int:
    return -(-length * eighths // 8)


def _reduced_note(scale: float) -> str:
    return f"reduced {scale:.3g} times" if scale > 1 else ""


def _joined(notes: Iterable[str]) -> str:
    return "; ".join(note for note in notes if note)

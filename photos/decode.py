"""Whole photos to upright RGB pixels, whatever their format; each says what was done to it.

For scoring photos (photos/sources.py finds them); docs/score_photos.md lists formats and notes.
"""

from __future__ import annotations

import importlib
import io
import math
import threading
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from photos.exif import jpeg_exif, orientation, turn, turn_note
from photos.jpeg import START, decode_jpeg, jpeg_size
from photos.pillow import guarded, load_rgb, open_image
from photos.pixel_types import to_bytes

__all__ = ["Photo", "from_array", "read_photo"]

KEPT = 25_000_000  # pixels; a larger photo is reduced
LARGEST = 89_000_000  # pixels that are decoded whole; Pillow itself warns a little above
LARGEST_JPEG = 250_000_000  # decoded at a fraction of its size
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = 64  # bytes of a file's head that list its brands

_one_large = threading.Lock()  # so that threads do not decode several huge ones at once


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
    if encoded[:3] == START:
        size = jpeg_size(encoded)
        if size is not None:
            return _read_jpeg(encoded, *size)
    image = _open_heic(encoded) if _is_heic(encoded) else open_image(encoded)
    if image is None:
        raise ValueError(f"not an image ({len(encoded)} bytes, starting {encoded[:8]!r})")
    return _from_pillow(image)


def from_array(array: Any) -> Photo:
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
            f"an array of shape {values.shape} is no image: expected (H, W), (H, W, 3) RGB or "
            "(H, W, 4) RGBA"
        )
    pixels, note = to_bytes(values)
    if pixels.shape[2] == 3 and pixels.shape[0] * pixels.shape[1] <= KEPT:
        return Photo(np.ascontiguousarray(pixels), note)
    found = _from_pillow(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return Photo(found.pixels, _joined([found.note, note]), found.scale)


def _read_jpeg(encoded: bytes, height: int, width: int, colours: str) -> Photo:
    _check_size(width, height, LARGEST_JPEG)
    eighths = next(n for n in range(8, 0, -1) if _part(height, n) * _part(width, n) <= KEPT)
    with _alone(height * width):
        pixels, note = decode_jpeg(encoded, eighths)
    turned = orientation(jpeg_exif(encoded))
    scale = 8 / eighths
    notes = [colours, note, turn_note(turned), _reduced_note(scale)]
    return Photo(turn(pixels, turned), _joined(notes), scale)


def _from_pillow(image: Image.Image) -> Photo:
    width, height = image.size
    _check_size(width, height, LARGEST)
    factor = max(1, math.ceil(math.sqrt(width * height / KEPT)))
    with _alone(height * width):
        pixels, notes, turned = load_rgb(image, factor)
    notes += [turn_note(turned), _reduced_note(factor)]
    return Photo(turn(pixels, turned), _joined(notes), float(factor))


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
    found = guarded("HEIC", heif.open_heif, io.BytesIO(encoded))
    width, height = guarded("HEIC", getattr, found, "size")
    _check_size(width, height, LARGEST)
    image: Image.Image = guarded("HEIC", found.to_pillow)
    image.info.pop("exif", None)
    return image


def _alone(pixels: int) -> Any:
    return _one_large if pixels > KEPT else nullcontext()


def _part(length: int, eighths: int) -> int:
    return -(-length * eighths // 8)


def _check_size(width: int, height: int, largest: int) -> None:
    if width * height > largest:
        raise ValueError(
            f"too large: {width}x{height} pixels, more than {largest // 1_000_000} million; save "
            "it smaller"
        )
    if not width * height:
        raise ValueError(f"an image of {width}x{height} has no pixels")


def _reduced_note(scale: float) -> str:
    return f"reduced {scale:.3g} times" if scale > 1 else ""


def _joined(notes: Iterable[str]) -> str:
    return "; ".join(note for note in notes if note)

"""Photos in every format but JPEG, by Pillow, which runs nothing of them; any pixels to 8-bit RGB.

Changes nothing of Pillow that other threads or users could notice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

# What Pillow could open by starting a program (EPS) or through what others registered is left out,
# and so is what it would have to guess at for lack of a signature. The classes are called by
# themselves because Image.open warns, once a process, about sizes that are checked here.
UPRIGHT, ORIENTATION = 1, 0x0112  # of EXIF: the usual value, and the tag
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    {"Jpeg2K": "JPEG2000"}.get(name, name.upper()): getattr(
        import_module(f"PIL.{name}ImagePlugin"), f"{name}ImageFile"
    )
    for name in (
        *("Avif", "Bmp", "Gif", "Ico", "Jpeg", "Jpeg2K", "Pcx"),
        *("Png", "Ppm", "Psd", "Qoi", "Sgi", "Tiff", "WebP"),
    )
}
Result = TypeVar("Result")
_COLOURS = {"1": "black and white", "L": "grey", "LA": "grey", "La": "grey", "CMYK": "CMYK"}
_ALPHA = ("LA", "PA", "La", "RGBa", "RGBA")
_OVERSHOOT = 0.05  # of the range: what resizing by cubic curves may add
_BAND = 1 << 21  # pixels that are turned into RGB at once where an image is reduced


def open_image(encoded: bytes) -> Image.Image | None:
    """Return the image with its header read; None where it is in no format that is known.

    Raises:
        ValueError: damaged, or Pillow was built without this format.
    """
    for name, reader in _READERS.items():
        accepts = Image.OPEN[name][1]
        answer = accepts(encoded[:16].ljust(16, b"\0")) if accepts else False
        if isinstance(answer, str):
            raise ValueError(f"this Pillow reads no {name}: pip install --upgrade pillow")
        if answer:
            return guarded(name, partial(reader, io.BytesIO(encoded)))
    return None


def load_rgb(image: Image.Image, factor: int) -> tuple[NDArray[np.uint8], list[str], int, bytes]:
    """Decode, and bring to 8-bit RGB.

    Args:
        image: its first frame is taken.
        factor: boxes of so many pixels a side are averaged; 1 for none.

    Returns:
        uint8 (H, W, 3); notes; the orientation by which Pillow has turned it (a TIFF); the EXIF
        block that says how it is still to be turned, b"" without.

    Raises:
        ValueError: damaged, cut off, or in colours that cannot be turned into RGB.
    """
    if image.mode == "LAB":
        raise ValueError("LAB colours are not read: save it as RGB")
    return guarded(image.format or "image", partial(_load_rgb, image, factor))


def guarded(name: str, function: Callable[[], Result]) -> Result:
    """Call a decoder of Pillow's, which raises nearly anything where a file is damaged.

    Args:
        name: of the format.
        function: the call.

    Raises:
        ValueError: whatever it raised, in one line.
    """
    try:
        return function()
    except MemoryError:
        raise
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        if "truncated" in what.lower():
            raise ValueError(f"cut off: the end of the {name} is missing ({what})") from error
        raise ValueError(f"damaged {name}, or of a kind that is not read ({what})") from error


def _load_rgb(image: Image.Image, factor: int) -> tuple[NDArray[np.uint8], list[str], int, bytes]:
    notes, turned = _notes_before_loading(image), UPRIGHT
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        turned = int(image.tag_v2.get(ORIENTATION, UPRIGHT))
    image.load()  # a TIFF is turned here
    simple, colours = _simple(image)
    if factor == 1:
        pixels = np.asarray(_opaque(simple))
    else:
        pixels = np.concatenate(list(_reduced_bands(simple, factor)))
    return pixels, [*colours, *notes], turned, _exif(image)


def _reduced_bands(image: Image.Image, factor: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the reduced image from top to bottom; in full size only a band is RGB at a time."""
    rows = max(1, _BAND // (image.width * factor)) * factor
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        yield np.asarray(_opaque(band).reduce(factor))


def _notes_before_loading(image: Image.Image) -> list[str]:
    """Return notes on what an image file no longer tells once it is decoded."""
    notes = []
    tiles = str(getattr(image, "tile", ""))
    if re.search(";16[BLN]", tiles) and image.mode[0] != "I":
        notes.append("16-bit")
    if getattr(image, "is_animated", False):
        tiff = image.format == "TIFF"
        notes.append("first of several pages" if tiff else "first frame of an animation")
    return notes


def _exif(image: Image.Image) -> bytes:
    """Return the EXIF block, b"" without; ImageMagick writes it into PNG as hexadecimal text."""
    block = image.info.get("exif", b"")
    if not block and "Raw profile type exif" in image.info:
        block = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    return bytes(block)


def _simple(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return the image in 8 bits, with transparency as a channel where it has any; and notes."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        grey, note = to_bytes(_sixteen_bits(values) if values.dtype == np.int32 else values)
        return Image.fromarray(grey), ["grey", note]
    notes = [_COLOURS[image.mode]] if image.mode in _COLOURS else []
    if "transparency" not in image.info and image.mode not in _ALPHA:
        return image, notes
    if image.mode == "La":  # which Pillow turns into LA alone
        image = image.convert("LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB"), notes
    return image, [*notes, "transparent parts on white"]


def _sixteen_bits(values: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Return the values of Pillow's 32-bit mode, which it also uses for 16 bits."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(f"32-bit pixels from {lowest} to {highest}: save it with 16 or 8 bits")
    return values.astype(np.uint16)


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


def to_bytes(values: NDArray[np.generic]) -> tuple[NDArray[np.uint8], str]:
    """Return uint8 of the same shape, and a note on what it was.

    Args:
        values: uint8 as it is; bool; uint16, whose high byte is taken, as Pillow and OpenCV do;
            floating point, 0..1 or 0..255 by the largest value, rounded.

    Raises:
        ValueError: another type, values outside, or values that are not numbers.
    """
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8), ""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), "black and white"
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return (values.astype(np.uint16) >> 8).astype(np.uint8), "16-bit"
    if values.dtype.kind == "f":
        return _from_float(values), "floating point"
    raise ValueError(
        f"pixels of type {values.dtype}: expected uint8, uint16, bool or floating point; for "
        "values 0..255 use .astype(np.uint8)"
    )


def _from_float(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    lowest, highest = float(values.min()), float(values.max())
    if not np.isfinite([lowest, highest]).all():
        raise ValueError("pixels that are infinite or no numbers (NaN)")
    top = 1 if highest <= 1 + _OVERSHOOT else 255
    if lowest < -_OVERSHOOT * top or highest > (1 + _OVERSHOOT) * top:
        raise ValueError(
            f"floating-point pixels from {lowest:g} to {highest:g}: expected 0..1 or 0..255"
        )
    scaled = values.astype(np.float32) * np.float32(255 // top)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)

"""Whole photos to upright RGB pixels, whatever their format; each says what was done to it.

For scoring photos (photos/sources.py finds them); docs/score_photos.md lists formats and notes.
data/images.py decodes, with the limits that all images have.
"""

from __future__ import annotations

import inspect
import io
import math
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, TiffImagePlugin

from data.images import (
    MOST_PIXELS,
    JpegHeader,
    decode_jpeg,
    eight_bits,
    guarded,
    jpeg_header,
    jpeg_segments,
    largest,
    largest_jpeg,
    open_image,
    rgb_pixels,
    room_for,
    to_bytes,
)

_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"  # starts of a JPEG's blocks
# an attribute or an element; what Pillow's ImageOps looks for, and blanks and single quotes
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")
_COLOURS = {"Gray": "grey", "CMYK": "CMYK", "YCCK": "CMYK"}  # of a JPEG
UPRIGHT, ORIENTATION = 1, 0x0112  # of EXIF: the usual value, and the tag
_BYTES = (bytes, bytearray, memoryview)
IMAGE_KINDS = (
    "a path, the bytes of an image file, an open binary file or upload, a PIL image, a NumPy array "
    "(H, W, 3), or a torch tensor (3, H, W) or (H, W, 3)"
)
_CHANNELS = (1, 3, 4)
_ALPHA = ("LA", "PA", "La", "RGBa", "RGBA")


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
    header = jpeg_header(encoded)
    return _from_pillow(open_image(encoded)) if header is None else _read_jpeg(encoded, header)


def is_pixels(image: object) -> bool:
    """Whether it is a NumPy array or a torch tensor."""
    torch = sys.modules.get("torch")  # whoever holds a tensor has imported it
    return isinstance(image, np.ndarray) or (torch is not None and torch.is_tensor(image))


def is_image(image: object) -> bool:
    """Whether `to_photo` takes it as one image; an array of more than 3 dimensions is several."""
    if is_pixels(image):
        return bool(image.ndim < 4)  # type: ignore[attr-defined]
    return isinstance(image, (*_BYTES, Image.Image)) or _file_of(image) is not None


def to_photo(image: object, *, bgr: bool = False) -> Photo:
    """Take one image, of any kind but a path: that is for photos/sources.py.

    Args:
        image: bytes of an image file; an open file, from its start where it can be rewound, or what
            has one as `.file`, as uploads do; what `from_array` takes.
        bgr: of an array or a tensor, see `from_array`.

    Raises:
        TypeError: something else; names its type and what is an image.
        ValueError: see `read_photo` and `from_array`.
    """
    if isinstance(image, _BYTES):
        return read_photo(bytes(image))
    if isinstance(image, Image.Image) or is_pixels(image):
        return from_array(image, bgr=bgr)  # type: ignore[arg-type]
    file = _file_of(image)
    if file is None:
        raise TypeError(f"{type(image).__name__} is not an image: give {IMAGE_KINDS}")
    return read_photo(_content(file))


def _file_of(image: object) -> Any | None:
    """The file that an upload holds, or an open file itself; None for anything else."""
    files = (getattr(image, "file", None), image)
    return next((file for file in files if callable(getattr(file, "read", None))), None)


def _content(file: Any) -> bytes:
    try:
        with suppress(AttributeError, io.UnsupportedOperation):  # it may have been read before
            file.seek(0)
        content = file.read()
    except UnicodeDecodeError:
        content = ""  # of a file that was opened as text
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    if isinstance(content, _BYTES):
        return bytes(content)
    if inspect.iscoroutine(content):
        content.close()
        raise TypeError(f"{type(file).__name__}.read() must be awaited: give what it returns")
    raise TypeError(
        f"{type(file).__name__}.read() gives {type(content).__name__}, not bytes: open the file "
        "with mode 'rb'"
    )


def from_array(array: ArrayLike | Image.Image, *, bgr: bool = False) -> Photo:
    """Take an image that is in memory already.

    Args:
        array: (H, W) or (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) RGBA, of uint8, uint16, bool or
            floating point (0..1, or 0..255); a torch tensor of such a shape, or with the channels
            first, on any device; or an image of PIL, which is turned upright.
        bgr: of an array or a tensor, whether its colours are BGR or BGRA, as OpenCV's.

    Raises:
        ValueError: another shape or type, no pixels, or values outside.
    """
    if isinstance(array, Image.Image):
        return _from_pillow(array)
    values = np.asarray(array if isinstance(array, np.ndarray) else _without_torch(array))
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in _CHANNELS or not values.size:
        first = values.ndim == 3 and values.shape[0] in _CHANNELS and values.size
        raise ValueError(
            f"an array of shape {values.shape} is not an image: expected (H, W), (H, W, 3) RGB or "
            f"(H, W, 4) RGBA{'; for channels first use .transpose(1, 2, 0)' if first else ''}"
        )
    pixels, note = to_bytes(values)
    if bgr and pixels.shape[2] >= 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    if pixels.shape[2] == 3 and pixels.shape[0] * pixels.shape[1] <= MOST_PIXELS:
        return Photo(np.ascontiguousarray(pixels), note)
    photo = _from_pillow(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    return replace(photo, note=_joined([photo.note, note]))


def _without_torch(array: Any) -> Any:
    """Return the values (H, W, C) of a tensor as an array; anything else as it is."""
    if not is_pixels(array):
        return array
    tensor = array.detach().cpu()
    values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    is_first = values.ndim == 3 and values.shape[0] in _CHANNELS
    return values.transpose(1, 2, 0) if is_first else values


def _read_jpeg(encoded: bytes, header: JpegHeader) -> Photo:
    height, width, colours = header
    with room_for(width, height, largest_jpeg(encoded)):
        parts = (_part(height, n) * _part(width, n) for n in range(8, 0, -1))
        eighths = next(8 - place for place, part in enumerate(parts) if part <= MOST_PIXELS)
        pixels, note = decode_jpeg(encoded, eighths)
    turned = orientation(jpeg_block(encoded, _EXIF), jpeg_block(encoded, _XMP))
    scale = 8 / eighths
    notes = [_COLOURS.get(colours, ""), note, turn_note(turned), _reduced_note(scale)]
    return Photo(turn(pixels, turned), _joined(notes), scale)


def _from_pillow(image: Image.Image) -> Photo:
    width, height = image.size
    factor = max(1, math.ceil(math.sqrt(width * height / MOST_PIXELS)))
    with room_for(width, height, largest(image)):
        pixels, notes, already_turned, turned = load_rgb(image, factor)
    notes += [turn_note(already_turned), turn_note(turned), _reduced_note(factor)]
    return Photo(turn(pixels, turned), _joined(notes), float(factor))


def jpeg_block(encoded: bytes, start: bytes) -> bytes:
    """Return the block APP1 of a JPEG that starts so (EXIF or XMP), b"" where it has none."""
    blocks = (content for marker, content in jpeg_segments(encoded) if marker == 0xE1)
    return next((block for block in blocks if block.startswith(start)), b"")


def orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return the orientation 1..8 that EXIF data gives, else XMP; 1 where neither does.

    EXIF counts where both give one, as in Pillow's ImageOps; its parser is not used, because it
    warns, for the whole process, about damaged data.
    Source: TIFF 6.0 and EXIF 2.3: tag 0x0112 of the first directory; XMP: tiff:Orientation.
    """
    exif = exif.removeprefix(_EXIF)

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], "little" if exif[:1] == b"I" else "big")

    if exif[:4] in (b"II*\0", b"MM\0*"):
        directory = number(4, 4)
        for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
            if number(entry, 2) == ORIENTATION:
                value = number(entry + 8, 2)
                return value if 1 <= value <= 8 else UPRIGHT
            if entry > len(exif):
                break
    match = _XMP_ORIENTATION.search(xmp.replace(b"\0", b""))  # it may be UTF-16
    return int(match[1]) if match else UPRIGHT


def turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return the upright image of pixels (H, W, 3) by the orientation 1..8 of EXIF."""
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


def _part(length: int, eighths: int) -> int:
    return -(-length * eighths // 8)


def _reduced_note(scale: float) -> str:
    return f"reduced {scale:.3g} times" if scale > 1 else ""


def _joined(notes: Iterable[str]) -> str:
    return "; ".join(note for note in notes if note)


def load_rgb(image: Image.Image, factor: int) -> tuple[NDArray[np.uint8], list[str], int, int]:
    """Decode the first frame, and bring it to 8-bit RGB, boxes of factor x factor pixels averaged.

    Returns:
        uint8 (H, W, 3); notes; the orientation by which Pillow has turned it (a TIFF); the one by
        which it is still to be turned.

    Raises:
        ValueError: damaged, cut off, or in colours that cannot be turned into RGB.
    """
    if image.mode == "LAB":
        raise ValueError("LAB colours are not read: save it as RGB")
    return guarded(image, partial(_load_rgb, image, factor))


def _load_rgb(image: Image.Image, factor: int) -> tuple[NDArray[np.uint8], list[str], int, int]:
    notes, turned, tag = _notes_before_loading(image), UPRIGHT, 0
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tag = int(image.tag_v2.get(ORIENTATION, 0))
        turned = tag or orientation(b"", _xmp(image))
    image.load()  # a TIFF is turned here, and what turned it is removed
    simple, colours = _simple(image)
    pixels = rgb_pixels(simple, _opaque, factor)
    rest = UPRIGHT if tag else orientation(_exif(image), _xmp(image))
    return pixels, [*colours, *notes], turned if rest == UPRIGHT else UPRIGHT, rest


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


def _xmp(image: Image.Image) -> bytes:
    block = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", b"")
    return block.encode() if isinstance(block, str) else bytes(block)


def _simple(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return the image in 8 bits, with transparency as a channel where it has any; and notes."""
    image, notes = eight_bits(image)
    if "transparency" not in image.info and image.mode not in _ALPHA:
        return image, notes
    if image.mode == "La":  # which Pillow turns into LA alone
        image = image.convert("LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB"), notes
    return image, [*notes, "transparent parts on white"]


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white

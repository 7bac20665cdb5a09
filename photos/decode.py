"""Whole photos to upright RGB pixels, whatever their format; each says what was done to it.

For scoring photos (photos/sources.py finds them); docs/score_photos.md lists formats and notes.
JPEG goes through data/images.py, all else through Pillow, which runs nothing of a file and of which
nothing is changed that other threads or users could notice.
"""

from __future__ import annotations

import inspect
import io
import math
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageFile, TiffImagePlugin

from data.images import JPEG_START, LARGEST_JPEG, JpegHeader, check_size, decode_jpeg, jpeg_header

MOST_PIXELS = 25_000_000  # pixels; a larger photo is reduced
LARGEST = 89_000_000  # pixels that are decoded whole; Pillow itself warns a little above
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"  # starts of a JPEG's blocks
# an attribute or an element; what Pillow's ImageOps looks for, and blanks and single quotes
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\s*["'<]""")
_COLOURS = {"Gray": "grey", "CMYK": "CMYK", "YCCK": "CMYK"}  # of a JPEG
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = 64  # bytes of a file's head that list its brands

_large_photo_lock = threading.Lock()  # so that threads do not decode several huge ones at once

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
_BYTES = (bytes, bytearray, memoryview)
IMAGE_KINDS = (
    "a path, the bytes of an image file, an open binary file or upload, a PIL image, a NumPy array "
    "(H, W, 3), or a torch tensor (3, H, W) or (H, W, 3)"
)
_MODES = {"1": "black and white", "L": "grey", "LA": "grey", "La": "grey", "CMYK": "CMYK"}
_CHANNELS = (1, 3, 4)
_ALPHA = ("LA", "PA", "La", "RGBa", "RGBA")
_OVERSHOOT = 0.05  # of the range: what resizing by cubic curves may add
_BAND = 1 << 21  # pixels that are turned into RGB at once where an image is reduced


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
    check_size(width, height, LARGEST_JPEG)
    eighths = next(n for n in range(8, 0, -1) if _part(height, n) * _part(width, n) <= MOST_PIXELS)
    with _one_large_at_a_time(height * width):
        pixels, note = decode_jpeg(encoded, eighths)
    turned = orientation(jpeg_block(encoded, _EXIF), jpeg_block(encoded, _XMP))
    scale = 8 / eighths
    notes = [_COLOURS.get(colours, ""), note, turn_note(turned), _reduced_note(scale)]
    return Photo(turn(pixels, turned), _joined(notes), scale)


def _from_pillow(image: Image.Image) -> Photo:
    width, height = image.size
    check_size(width, height, LARGEST)
    factor = max(1, math.ceil(math.sqrt(width * height / MOST_PIXELS)))
    with _one_large_at_a_time(height * width):
        pixels, notes, already_turned, turned = load_rgb(image, factor)
    notes += [turn_note(already_turned), turn_note(turned), _reduced_note(factor)]
    return Photo(turn(pixels, turned), _joined(notes), float(factor))


def jpeg_block(encoded: bytes, start: bytes) -> bytes:
    """Return the block APP1 of a JPEG that starts so (EXIF or XMP), b"" where it has none."""
    at = 2
    while encoded[at : at + 1] == b"\xff":
        marker = encoded[at + 1 : at + 2]
        if marker == b"\xff":  # padding
            at += 1
            continue
        if marker in (b"", b"\xd9", b"\xda"):
            break
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        if marker == b"\xe1" and encoded.startswith(start, at + 4):
            return encoded[at + 4 : at + 2 + length]
        at += 2 + length
    return b""


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


def _is_heic(encoded: bytes) -> bool:
    brands = encoded[8 : min(_BRANDS, int.from_bytes(encoded[:4], "big"))]
    return encoded[4:8] == b"ftyp" and any(brand in brands for brand in _HEIC)


def _open_heic(encoded: bytes) -> Image.Image:
    """Decode HEIC, which comes upright, without telling Pillow of the format."""
    try:
        heif = import_module("pillow_heif")
    except ImportError as error:
        raise ValueError(
            "HEIC needs the package pillow-heif (pip install pillow-heif), or save it as JPEG"
        ) from error
    opened = guarded("HEIC", lambda: heif.open_heif(io.BytesIO(encoded)))
    width, height = guarded("HEIC", lambda: opened.size)
    check_size(width, height, LARGEST)
    image: Image.Image = guarded("HEIC", opened.to_pillow)
    for block in ("exif", "xmp"):
        image.info.pop(block, None)
    return image


def _one_large_at_a_time(pixels: int) -> AbstractContextManager[object]:
    return _large_photo_lock if pixels > MOST_PIXELS else nullcontext()


def _part(length: int, eighths: int) -> int:
    return -(-length * eighths // 8)


def _reduced_note(scale: float) -> str:
    return f"reduced {scale:.3g} times" if scale > 1 else ""


def _joined(notes: Iterable[str]) -> str:
    return "; ".join(note for note in notes if note)


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
    return guarded(image.format or "image", partial(_load_rgb, image, factor))


def guarded(name: str, function: Callable[[], Result]) -> Result:
    """Call a decoder of Pillow's, which raises nearly anything where a file is damaged.

    Raises:
        ValueError: whatever it raised, in one line that names the format.
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


def _load_rgb(image: Image.Image, factor: int) -> tuple[NDArray[np.uint8], list[str], int, int]:
    notes, turned, tag = _notes_before_loading(image), UPRIGHT, 0
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tag = int(image.tag_v2.get(ORIENTATION, 0))
        turned = tag or orientation(b"", _xmp(image))
    image.load()  # a TIFF is turned here, and what turned it is removed
    simple, colours = _simple(image)
    if factor == 1:
        pixels = np.asarray(_opaque(simple))
    else:
        pixels = np.concatenate(list(_reduced_bands(simple, factor)))
    rest = UPRIGHT if tag else orientation(_exif(image), _xmp(image))
    return pixels, [*colours, *notes], turned if rest == UPRIGHT else UPRIGHT, rest


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


def _xmp(image: Image.Image) -> bytes:
    block = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", b"")
    return block.encode() if isinstance(block, str) else bytes(block)


def _simple(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return the image in 8 bits, with transparency as a channel where it has any; and notes."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        bits = _bits_per_sample(image)
        grey, note = to_bytes(_sixteen_bits(values) if values.dtype == np.int32 else values)
        if 8 < bits < 16:  # Pillow leaves them in the lower part of 16
            grey, note = (values >> (bits - 8)).clip(0, 255).astype(np.uint8), f"{bits}-bit"
        return Image.fromarray(grey), ["grey", note]
    notes = [_MODES[image.mode]] if image.mode in _MODES else []
    if "transparency" not in image.info and image.mode not in _ALPHA:
        return image, notes
    if image.mode == "La":  # which Pillow turns into LA alone
        image = image.convert("LA")
    image = image if image.mode == "RGBA" else image.convert("RGBA")
    if image.getchannel("A").getextrema()[0] == 255:
        return image.convert("RGB"), notes
    return image, [*notes, "transparent parts on white"]


def _bits_per_sample(image: Image.Image) -> int:
    """Return how many bits of a sample a TIFF uses; 0 for another format."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    return int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0])


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
        values: uint8 as it is; bool; uint16, whose high byte is taken, as Pillow and OpenCV do,
            unless no value needs one; floating point, 0..1 or 0..255 by the largest value, rounded.

    Raises:
        ValueError: another type, values outside, or values that are not numbers.
    """
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8), ""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255), "black and white"
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        wide = values.astype(np.uint16)
        return (wide >> 8 if wide.max() > 255 else wide).astype(np.uint8), "16-bit"
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

"""Images as pixels: decoded, at 112x112, their sizes counted, fingerprinted and encoded.

An image in this project is uint8 (H, W, 3) RGB; OpenCV's BGR never leaves this file. simplejpeg
decodes JPEG, Pillow every other format, by one set of rules and limits, here and in photos/: a
cut-off end or a lost middle is an error, a few stray bytes or padding of a JPEG cost no pixel and
pass, and what claims to be larger than `LARGEST` is refused before there is memory for it. Pillow
runs nothing of a file, and nothing of it is changed that other threads or users could notice.
"""

from __future__ import annotations

import hashlib
import io
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin

log = logging.getLogger("faceuq")

SIZE = 112
LARGEST_ALIGNED = 224  # pixels; aligned faces are squares of 96 to 224, larger ones are loose crops
JPEG_START = b"\xff\xd8\xff"
LARGEST = 89_000_000  # pixels that are decoded whole; Pillow itself warns a little above
LARGEST_WIDE = 40_000_000  # of formats and modes that take more than 10 bytes a pixel to decode
LARGEST_JPEG = 250_000_000  # pixels of a JPEG that is reduced while it is decoded, row by row
MOST_PIXELS = 25_000_000  # pixels; of larger images threads decode one at a time
MOST_SCANS = 16  # of a JPEG of any size: each passes over all pixels; usual are 1 to 12
MOST_SCANNED = 1_000_000_000  # pixels times scans, where there are more
_LONGEST_FACE = 1 << 17  # bytes of a JPEG of 112x112 that is decoded in place; usual are 10 000
_LONGEST_PPM_HEADER, _MOST_COMMENTS = 1 << 16, 1000  # each byte, or comment, takes Pillow its time
_PLAIN_PPM = (b"P1", b"P2", b"P3")
FEW = 16  # stray bytes that a writer may leave; more means that the decoder lost its way

Result = TypeVar("Result")
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
_JPEG_END, _SCAN = b"\xff\xd9", b"\xff\xda"
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_BRANDS = 64  # bytes of a file's head that list its brands
_MODES = {"1": "black and white", "L": "grey", "LA": "grey", "La": "grey", "CMYK": "CMYK"}
_WIDE = {"WEBP", "JPEG2000", "AVIF", "F", "I"}
_BAND = 1 << 21  # pixels that are turned into RGB at once
_OVERSHOOT = 0.05  # of the range: what resizing by cubic curves may add

large_image_lock = threading.Lock()

# What Pillow could open by starting a program (EPS) or through what others registered is left out,
# and so is what it would have to guess at for lack of a signature. The classes are called by
# themselves because Image.open warns, once a process, about sizes that are checked here.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    {"Jpeg2K": "JPEG2000"}.get(name, name.upper()): getattr(
        import_module(f"PIL.{name}ImagePlugin"), f"{name}ImageFile"
    )
    for name in (
        *("Avif", "Bmp", "Gif", "Ico", "Jpeg", "Jpeg2K", "Pcx"),
        *("Png", "Ppm", "Psd", "Qoi", "Sgi", "Tiff", "WebP"),
    )
}


class JpegHeader(NamedTuple):
    """Size of a JPEG in pixels, and its colours: Gray, YCbCr, RGB, CMYK or YCCK."""

    height: int
    width: int
    colours: str


def decode(encoded: bytes) -> NDArray[np.uint8]:
    """Decode any format; grey becomes RGB, transparency is dropped, nothing is turned.

    Returns:
        uint8 (H, W, 3) RGB. JPEG pixels equal those of mxnet and OpenCV bit for bit.

    Raises:
        ValueError: not an image, a damaged one, or too large.
    """
    header = jpeg_header(encoded)
    if header is not None:
        with room_for(header.width, header.height, LARGEST):
            return decode_jpeg(encoded)[0]
    image = open_image(encoded)
    with room_for(*image.size, largest(image)):
        return guarded(image, lambda: rgb_pixels(eight_bits(image)[0], _rgb))


def _rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def jpeg_header(encoded: bytes | memoryview) -> JpegHeader | None:
    """Read a JPEG's header; None where simplejpeg cannot, at a cost of 1.3 us.

    That is so for other formats, damaged headers, and rare sampling factors that Pillow knows.
    """
    try:
        is_jpeg = encoded[:3] == JPEG_START
        return JpegHeader(*simplejpeg.decode_jpeg_header(encoded)[:3]) if is_jpeg else None
    except (ValueError, KeyError):
        return None


def jpeg_segments(encoded: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of a JPEG's segments up to its first scan."""
    at, marker = 2, 0
    while encoded[at : at + 1] == b"\xff" and at + 1 < len(encoded) and marker != _SCAN[1]:
        marker = encoded[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        yield marker, encoded[at + 4 : at + 2 + length]
        at += 2 + length


def largest(image: Image.Image) -> int:
    """Return how many pixels an image that Pillow has opened may have."""
    return LARGEST_WIDE if {image.format, image.mode} & _WIDE else LARGEST


def largest_jpeg(encoded: bytes) -> int:
    """Return how many pixels a JPEG may have that can be reduced while it is decoded.

    One with several scans (progressive, or a colour each) is held in memory as a whole.
    """
    segments = dict(jpeg_segments(encoded))
    frame = segments.get(0xC0) or segments.get(0xC1) or b""
    is_one_scan = frame[5:6] == segments.get(_SCAN[1], b"")[:1] != b""
    return LARGEST_JPEG if is_one_scan else LARGEST


def decode_jpeg(encoded: bytes, eighths: int = 8) -> tuple[NDArray[np.uint8], str]:
    """Return uint8 (H, W, 3) RGB at so many eighths of its size, rounded up, and a note or "".

    The caller has checked the size.

    Raises:
        ValueError: cut off or damaged.
    """
    options = {}
    header = jpeg_header(encoded)
    if header is not None and eighths < 8:
        options = {
            "min_height": -(-header.height * eighths // 8),
            "min_width": -(-header.width * eighths // 8),
        }
    if header is not None:
        _check_scans(encoded, header.height * header.width)
    try:
        return simplejpeg.decode_jpeg(encoded, "RGB", **options), ""
    except ValueError as error:
        if not _is_harmless(str(error), encoded):
            raise ValueError(_jpeg_problem(error)) from error
    try:
        pixels = simplejpeg.decode_jpeg(encoded, "RGB", strict=False, **options)
    except ValueError as error:
        raise ValueError(_jpeg_problem(error)) from error
    return pixels, "stray bytes in the file"


def _check_scans(encoded: bytes, pixels: int) -> None:
    scans = encoded.count(_SCAN)
    if scans > MOST_SCANS and scans * pixels > MOST_SCANNED:
        most = max(MOST_SCANS, MOST_SCANNED // pixels)
        raise ValueError(f"damaged JPEG ({scans} scans, more than {most})")


def check_size(width: int, height: int, largest: int) -> None:
    """Refuse an image without pixels or with more than `largest`; ValueError says so."""
    if width * height > largest:
        raise ValueError(
            f"too large: {width}x{height} pixels, more than {largest // 1_000_000} million; save "
            "it smaller"
        )
    if not width * height:
        raise ValueError(f"an image of {width}x{height} has no pixels")


def room_for(width: int, height: int, largest: int) -> AbstractContextManager[object]:
    """Check a size as `check_size`; in the context no other thread decodes a large image too."""
    check_size(width, height, largest)
    return large_image_lock if width * height > MOST_PIXELS else nullcontext()


def _is_harmless(message: str, encoded: bytes) -> bool:
    """Say whether what the decoder met costs no pixel: a few stray bytes, or padding at the end."""
    stray = _STRAY.search(message)
    if stray is None:
        return False
    count = int(stray[1])
    if count <= FEW:
        return encoded.rfind(_JPEG_END) > encoded.rfind(_SCAN)
    end = encoded.rfind(_JPEG_END)
    return stray[2] == "d9" and len(set(encoded[end - count : end])) == 1


def _jpeg_problem(error: ValueError) -> str:
    if "Premature end" in str(error):
        return "cut off: the end of the JPEG is missing"
    return f"damaged JPEG ({error})"


def open_image(encoded: bytes) -> Image.Image:
    """Return the image with its header read.

    Raises:
        ValueError: not an image, damaged, or what reads it is not installed.
    """
    if _is_heic(encoded):
        return _open_heic(encoded)
    for name, reader in _READERS.items():
        accepts = Image.OPEN[name][1]
        answer = accepts(encoded[:16].ljust(16, b"\0")) if accepts else False
        if isinstance(answer, str):
            raise ValueError(f"this Pillow reads no {name}: pip install --upgrade pillow")
        if answer:
            if name == "PPM":
                guarded(name, partial(reader, io.BytesIO(encoded[:_LONGEST_PPM_HEADER])))
                if encoded[:2] in _PLAIN_PPM and encoded.count(b"#") > _MOST_COMMENTS:
                    raise ValueError(f"PPM with more than {_MOST_COMMENTS} comments: refused")
            image = guarded(name, partial(reader, io.BytesIO(encoded)))
            if name == "JPEG":
                _check_scans(encoded, image.width * image.height)
            return image
    raise ValueError(f"not an image ({len(encoded)} bytes, starting {encoded[:8]!r})")


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


def guarded(image: Image.Image | str, function: Callable[[], Result]) -> Result:
    """Call a decoder of Pillow's, which raises nearly anything where a file is damaged.

    Args:
        image: it, or the name of its format.
        function: what decodes it.

    Raises:
        ValueError: whatever it raised, in one line that names the format.
    """
    name = image if isinstance(image, str) else image.format or "image"
    try:
        return function()
    except MemoryError:
        raise
    except Exception as error:
        what = " ".join(str(error).split()) or type(error).__name__
        if "truncated" in what.lower():
            raise ValueError(f"cut off: the end of the {name} is missing ({what})") from error
        raise ValueError(f"damaged {name}, or of a kind that is not read ({what})") from error


def rgb_pixels(
    image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image], factor: int = 1
) -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3), boxes of factor x factor pixels averaged.

    In full size only a band of the image is RGB at a time.
    """
    width, height = image.size
    rows = max(1, _BAND // (width * factor)) * factor
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for top in range(0, height, rows):
        is_whole = rows >= height
        band = to_rgb(image if is_whole else image.crop((0, top, width, min(top + rows, height))))
        pixels[top // factor : (top + rows) // factor] = np.asarray(band.reduce(factor))
    return pixels


def eight_bits(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Return the decoded image with at most 8 bits a channel, and notes on what it was."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image, [_MODES[image.mode]] if image.mode in _MODES else []
    values = np.asarray(image)
    bits = _bits_per_sample(image)
    grey, note = to_bytes(_sixteen_bits(values) if values.dtype == np.int32 else values)
    if 8 < bits < 16:  # Pillow leaves them in the lower part of 16
        grey, note = (values >> (bits - 8)).clip(0, 255).astype(np.uint8), f"{bits}-bit"
    return Image.fromarray(grey), ["grey", note]


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
    return np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled).astype(np.uint8)


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
    header = jpeg_header(encoded) if len(encoded) <= _LONGEST_FACE else None
    return header is not None and header[:2] == (SIZE, SIZE) and header.colours[-1] != "K"

"""Photos against Pillow's exif_transpose, OpenCV and NumPy's arithmetic; damage of all kinds."""

import io
import struct
import sys
import threading
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, TiffImagePlugin

from data import images as decoders
from data.images import decode, encode_jpeg
from photos import decode as photos
from photos.decode import from_array, read_photo
from tests.helpers import python

LOSSLESS = {
    **dict.fromkeys(("PNG", "BMP", "PPM", "QOI", "SGI", "PCX", "TIFF", "JPEG2000"), {}),
    "WEBP": {"lossless": True},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
}
LOSSY = ("JPEG", "WEBP", "AVIF", "GIF")


def picture(height=40, width=61, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def saved(image, name, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, name.split()[0], **options)
    return file.getvalue()


def exif(orientation, order="<", kind=3):
    """An EXIF block with another tag before the orientation, in either byte order."""
    head = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + "HH", orientation, 0)
    make = struct.pack(order + "HHI4s", 0x010F, 2, 3, b"me\0\0")
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + value
    return b"Exif\0\0" + head + struct.pack(order + "IH", 8, 2) + make + entry + bytes(4)


def with_exif(name, orientation, order="<"):
    options = LOSSLESS.get(name, {"quality": 95})
    if name.startswith("TIFF"):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[0x0112] = orientation
        return saved(picture(), name, tiffinfo=tags, **options)
    return saved(picture(), name, exif=exif(orientation, order), **options)


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(name):
    photo = read_photo(saved(picture(), name, **LOSSLESS[name]))
    assert np.array_equal(photo.pixels, picture())
    assert photo.pixels.dtype == np.uint8
    assert (photo.note, photo.scale) == ("", 1.0)


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_formats_are_read_as_pillow_reads_them(name):
    encoded = saved(picture(), name)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    assert np.array_equal(read_photo(encoded).pixels, expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF lzw", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(name, orientation, order):
    encoded = with_exif(name, orientation, order)
    photo = read_photo(encoded)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))).convert("RGB")
    assert np.array_equal(photo.pixels, np.asarray(upright))
    assert photo.pixels.shape == ((61, 40, 3) if orientation >= 5 else (40, 61, 3))
    assert photo.pixels.flags["C_CONTIGUOUS"]
    turned = "rotated by EXIF" if orientation in (3, 6, 8) else "mirrored by EXIF"
    assert photo.note == ("" if orientation == 1 else turned)
    if not name.endswith("lzw"):
        image = Image.open(io.BytesIO(encoded))
        assert same(from_array(image), photo)
        again = from_array(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))
        assert np.array_equal(again.pixels, photo.pixels)
        assert again.note == ""


def same(photo, other):
    return np.array_equal(photo.pixels, other.pixels) and photo.note == other.note


def test_orientation_that_imagemagick_writes_into_png():
    block = exif(8)
    text = f"\nexif\n{len(block):8}\n{block.hex()}\n"
    extra = PngImagePlugin.PngInfo()
    extra.add_text("Raw profile type exif", text)
    photo = read_photo(saved(picture(), "PNG", pnginfo=extra))
    assert np.array_equal(photo.pixels, np.rot90(picture()))


@pytest.mark.parametrize(
    "form", ['<a tiff:Orientation="6"/>', "<tiff:Orientation>6</tiff:Orientation>"]
)
@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_xmp_turns_a_photo_where_exif_does_not(name, form):
    block = f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{form}</x:xmpmeta>'.encode()
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8] = 255  # bright above: bright at the right once it is turned
    options = {"TIFF": {"tiffinfo": {700: block}}, "PNG": {"pnginfo": PngImagePlugin.PngInfo()}}
    if name == "PNG":
        options["PNG"]["pnginfo"].add_itxt("XML:com.adobe.xmp", block.decode())
    exif = Image.Exif()
    exif[0x0112] = 3
    for both in (False, True):
        file = io.BytesIO()
        options.setdefault(name, {"xmp": block})
        extra = {"exif": exif} if both and name != "TIFF" else {}
        Image.fromarray(picture).save(file, name, **options[name], **extra)
        photo = read_photo(file.getvalue())
        assert photo.note == "rotated by EXIF"
        if extra:
            assert photo.pixels.shape == (16, 32, 3)
            assert photo.pixels[12:].mean() > 240 > 20 > photo.pixels[:4].mean()
        else:
            assert photo.pixels.shape == (32, 16, 3)
            assert photo.pixels[:, 12:].mean() > 240 > 20 > photo.pixels[:, :4].mean()


def test_a_tiff_of_12_bits_is_as_the_one_of_8_bits():
    values = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
    packed = np.packbits(np.unpackbits(values.astype(">u2").view(np.uint8)).reshape(64, 16)[:, 4:])
    tags = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 12 * 8 + 4), (278, 8)]
    tags.append((279, packed.size))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    encoded = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed.tobytes()
    photo = read_photo(encoded)
    assert photo.note == "grey; 12-bit"
    np.testing.assert_array_equal(photo.pixels[..., 0], values >> 4)


def test_damaged_exif_is_as_good_as_none():
    plain = read_photo(saved(picture(), "JPEG")).pixels
    random = np.random.default_rng(1)
    whole = exif(6)
    blocks = [whole[:length] for length in range(6, len(whole) - 8)]
    blocks += [whole[:10] + b"\xff\xff\xff\xff" + whole[14:], exif(0), exif(9), b"Exif\0\0"]
    blocks += [b"Exif\0\0II*\0" + random.bytes(60) for _ in range(50)]
    for block in blocks:
        photo = read_photo(saved(picture(), "JPEG", exif=block))
        assert np.array_equal(photo.pixels, plain), block


def white(pixels, alpha):
    """Composite on white, in floating point."""
    share = alpha[..., None].astype(float) / 255
    return pixels * share + 255 * (1 - share)


def test_transparent_parts_are_white():
    alpha = np.linspace(0, 255, 40 * 61).reshape(40, 61).astype(np.uint8)
    colour = np.dstack([picture(), alpha])
    grey = np.dstack([picture()[..., 0], alpha])
    for name in ("PNG", "TIFF", "WEBP"):
        photo = read_photo(saved(colour, name, **({"exact": True} | LOSSLESS[name])))
        assert np.abs(photo.pixels - white(picture(), alpha)).max() <= 1
        assert photo.note == "transparent parts on white"
    photo = read_photo(saved(merged("LA", grey), "PNG"))
    assert np.abs(photo.pixels - white(picture()[..., :1], alpha)).max() <= 1
    assert photo.note == "grey; transparent parts on white"
    opaque = read_photo(saved(np.dstack([picture(), np.full((40, 61), 255, np.uint8)]), "PNG"))
    assert np.array_equal(opaque.pixels, picture())
    assert opaque.note == ""


def merged(mode, values):
    parts = [Image.fromarray(np.ascontiguousarray(part)) for part in np.moveaxis(values, -1, 0)]
    return Image.merge(mode, parts)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P"])
def test_a_colour_that_stands_for_transparent_is_white(mode):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:4] = 255
    image = Image.fromarray(pixels).convert(mode)
    key = {"RGB": (0, 0, 0), "L": 0, "1": 0, "P": image.convert("P").getpixel((0, 0))}[mode]
    photo = read_photo(saved(image, "PNG", transparency=key))
    assert (photo.pixels == 255).all()
    assert photo.note.endswith("transparent parts on white")


def test_palettes():
    image = Image.fromarray(picture()).convert("P", palette=Image.Palette.ADAPTIVE, colors=17)
    expected = np.array(image.getpalette()).reshape(-1, 3)[np.asarray(image)]
    for name in ("PNG", "GIF", "BMP", "TIFF"):
        photo = read_photo(saved(image, name))
        assert np.array_equal(photo.pixels, expected)
        assert photo.note == ""


def test_grey_and_one_bit():
    grey = np.ascontiguousarray(picture()[..., 1])
    for name in ("PNG", "TIFF", "BMP", "PPM", "JPEG2000"):
        photo = read_photo(saved(grey, name))
        assert np.array_equal(photo.pixels, np.repeat(grey[..., None], 3, axis=2))
        assert photo.note == "grey"
        if name != "JPEG2000":
            photo = read_photo(saved(Image.fromarray(grey > 127), name))
            assert np.array_equal(photo.pixels[..., 2], 255 * (grey > 127))
            assert photo.note == "black and white"
    assert read_photo(saved(grey, "JPEG", exif=exif(3))).note == "grey; rotated by EXIF"


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm", ".pgm"])
def test_sixteen_bits_give_their_high_byte(suffix):
    deep = np.random.default_rng(2).integers(0, 1 << 16, (30, 20, 3), dtype=np.uint16)
    if suffix != ".pgm":
        photo = read_photo(cv2.imencode(suffix, deep[..., ::-1])[1].tobytes())
        rounding = 1 if suffix == ".ppm" else 0  # Pillow rounds there
        assert np.abs(photo.pixels.astype(int) - (deep >> 8)).max() <= rounding
        assert photo.note == ("" if suffix == ".ppm" else "16-bit")
    if suffix != ".ppm":
        photo = read_photo(cv2.imencode(suffix, deep[..., 0])[1].tobytes())
        assert np.array_equal(photo.pixels, np.repeat((deep[..., :1] >> 8), 3, axis=2))
        assert photo.note == "grey; 16-bit"


def test_floating_point_and_32_bits_of_grey():
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    for top in (1, 255):
        photo = read_photo(saved(values * top, "TIFF"))
        assert np.array_equal(photo.pixels[..., 0], np.rint(values * 255))
        assert photo.note == "grey; floating point"
    assert np.array_equal(
        read_photo(saved((values * 65535).astype(np.int32), "TIFF")).pixels[..., 1],
        (values * 65535).astype(int) >> 8,
    )
    for wrong, message in [
        (values * 1000, "floating-point pixels from 0 to 1000: expected 0..1 or 0..255"),
        (values * np.nan, "infinite or no numbers"),
        ((values * 1e6).astype(np.int32), "32-bit pixels from 0 to 1000000: save it with 16"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_photo(saved(wrong, "TIFF"))


def test_cmyk_and_other_colours():
    four = np.dstack([picture(), picture(seed=1)[..., :1]])
    image = merged("CMYK", four)
    ink = four.astype(float) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    for name, tolerance in (("TIFF", 1.5), ("JPEG", 6)):
        photo = read_photo(saved(image, name, **({"quality": 100} if name == "JPEG" else {})))
        assert np.abs(photo.pixels - expected).max() <= tolerance
        assert photo.note == "CMYK"
    other = Image.fromarray(picture()).convert("HSV")
    assert np.array_equal(from_array(other).pixels, np.asarray(other.convert("RGB")))
    with pytest.raises(ValueError, match="LAB colours are not read: save it as RGB"):
        read_photo(saved(Image.new("LAB", (4, 4)), "TIFF"))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        *((name, "first frame of an animation") for name in ("GIF", "PNG", "WEBP", "AVIF")),
        ("TIFF", "first of several pages"),
        ("MPO", ""),  # several pictures in a JPEG
    ],
)
def test_the_first_frame_is_taken(name, note):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if name == "WEBP" else {}
    encoded = saved(frames[0], name, save_all=True, append_images=frames[1:], **options)
    photo = read_photo(encoded)
    assert photo.note == note
    assert np.abs(photo.pixels.astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("shape", [(1000, 700), (999, 701), (1, 30_000)])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(shape, monkeypatch):
    encoded = encode_jpeg(picture(*shape))
    whole = read_photo(encoded).pixels
    for eighths in (7, 6, 4, 3, 1):
        part = tuple(-(-length * eighths // 8) for length in shape)
        monkeypatch.setattr(photos, "MOST_PIXELS", part[0] * part[1])
        photo = read_photo(encoded)
        assert photo.pixels.shape[:2] == part
        assert photo.scale == 8 / eighths
        assert photo.note == f"reduced {8 / eighths:.3g} times"
        small = cv2.resize(whole, part[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(photo.pixels.astype(int) - small).mean() < 2


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "I;16", "F", "CMYK"])
def test_another_large_photo_is_reduced_by_averaging_boxes(mode, monkeypatch):
    monkeypatch.setattr("data.images._BAND", 2000)
    monkeypatch.setattr(photos, "MOST_PIXELS", 4000)
    if mode == "I;16":
        image = Image.fromarray((picture(203, 301)[..., 0].astype(np.uint16) << 8) + 77)
    else:
        image = Image.fromarray(picture(203, 301)).convert(mode)
    encoded = saved(image, "TIFF" if mode in ("F", "CMYK") else "PNG")
    photo = read_photo(encoded)
    assert photo.scale == 4.0
    assert "reduced 4 times" in photo.note
    assert photo.pixels.shape == (51, 76, 3)
    monkeypatch.undo()
    whole = read_photo(encoded).pixels.astype(float)
    boxes = whole[:200, :300].reshape(50, 4, 75, 4, 3).mean(axis=(1, 3))
    assert np.abs(photo.pixels[:50, :75] - boxes).max() <= 0.5 + 1e-6
    edge = whole[200:, 300:].mean(axis=(0, 1))
    assert np.abs(photo.pixels[-1, -1] - edge).max() < 1


@pytest.mark.parametrize("name", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [1, 2, 6])
def test_scale_leads_back_to_pixels_of_the_upright_original(name, orientation, monkeypatch):
    pixels = np.zeros((600, 900, 3), np.uint8)
    pixels[120:180, 600:720] = 255
    encoded = saved(pixels, name, exif=exif(orientation))
    whole = read_photo(encoded).pixels
    monkeypatch.setattr(photos, "MOST_PIXELS", 100_000)
    photo = read_photo(encoded)
    assert photo.scale > 2
    for axis in (0, 1):
        expected, found = (
            np.flatnonzero((image[..., 0] > 127).any(axis=1 - axis))
            for image in (whole, photo.pixels)
        )
        assert abs(found[0] * photo.scale - expected[0]) <= photo.scale
        assert abs((found[-1] + 1) * photo.scale - (expected[-1] + 1)) <= photo.scale


def test_huge_photos_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(decoders, "MOST_PIXELS", 1000)
    monkeypatch.setattr(photos, "MOST_PIXELS", 1000)
    encoded = [saved(picture(60, 80), name) for name in ("JPEG", "PNG")]
    with decoders.large_image_lock:
        threads = [threading.Thread(target=read_photo, args=(one,)) for one in encoded]
        for thread in threads:
            thread.start()
        threads[0].join(0.2)
        assert all(thread.is_alive() for thread in threads)
        read_photo(saved(picture(10, 10), "JPEG"))
    for thread in threads:
        thread.join()


def png_of(width, height, length=1000, depth=1, colours=0):
    def chunk(kind, content):
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    idat = zlib.compress(bytes(length), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def bombs():
    jpeg = bytearray(saved(picture(), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 65000)
    progressive = bytearray(saved(picture(), "JPEG", progressive=True))
    at = progressive.index(b"\xff\xc2")
    progressive[at + 5 : at + 9] = struct.pack(">HH", 15000, 10000)
    webp = bytearray(saved(picture(), "WEBP", lossless=True))
    at = webp.index(b"VP8L") + 9
    webp[at : at + 4] = struct.pack("<I", 8999 | 8999 << 14)
    gif = bytearray(saved(picture(), "GIF"))
    gif[6:10] = struct.pack("<HH", 65000, 60000)
    bmp = bytearray(saved(picture(), "BMP"))
    bmp[18:26] = struct.pack("<II", 65000, 60000)
    tiff = bytearray(saved(picture(), "TIFF"))
    for tag, value in ((0x0100, 65000), (0x0101, 60000)):
        at = find_tag(tiff, tag)
        tiff[at + 2 : at + 12] = struct.pack("<HII", 4, 1, value)
    return {
        "JPEG": bytes(jpeg),
        "progressive JPEG": bytes(progressive),
        "WEBP": bytes(webp),
        "PNG": png_of(65000, 60000),
        "PNG that Pillow would warn about": png_of(10_000, 10_000),
        "GIF": bytes(gif),
        "BMP": bytes(bmp),
        "TIFF": bytes(tiff),
        "PPM": b"P6 65000 60000 255\n" + bytes(99),
    }


def find_tag(tiff, tag):
    (start,) = struct.unpack_from("<I", tiff, 4)
    (count,) = struct.unpack_from("<H", tiff, start)
    places = range(start + 2, start + 2 + 12 * count, 12)
    return next(at for at in places if struct.unpack_from("<H", tiff, at)[0] == tag)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_with_their_size_and_without_a_warning(name):
    size = {"PNG that Pillow would warn about": "10000x10000", "WEBP": "9000x9000"}.get(
        name, "10000x15000" if name == "progressive JPEG" else "65000x60000"
    )
    for read, limit in ((read_photo, {"JPEG": 250, "WEBP": 40}), (decode, {"WEBP": 40})):
        message = f"too large: {size} pixels, more than {limit.get(name, 89)} million"
        with pytest.raises(ValueError, match=message):
            read(bombs()[name])


@pytest.mark.parametrize("sampling", [0x22, 0x13], ids=["simplejpeg", "Pillow"])
@pytest.mark.parametrize(("size", "most"), [((1100, 1000), 909), ((300, 100), 33333)])
def test_a_jpeg_of_many_scans_is_refused(size, most, sampling):
    encoded = saved(picture(*size), "JPEG", progressive=True)
    at, factors = encoded.rindex(b"\xff\xda"), encoded.index(b"\xff\xc2") + 11
    head = encoded[:factors] + bytes([sampling]) + encoded[factors + 1 : at]
    with pytest.raises(ValueError, match=rf"damaged JPEG \(\d+ scans, more than {most}\)"):
        decode(head + most * encoded[at:-2] + encoded[-2:])


def test_the_largest_image_takes_less_than_a_gigabyte(tmp_path):
    (tmp_path / "large.png").write_bytes(png_of(9400, 9400, 9400 * 28201, 8, 2))
    for number, bomb in enumerate(bombs().values()):
        (tmp_path / f"{number}").write_bytes(bomb)
    code = """
import resource, sys
from pathlib import Path
from data.images import decode
from photos.decode import read_photo
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
before = peak()
for path in Path(sys.argv[1]).iterdir():
    for read in (decode, read_photo):
        try:
            read(path.read_bytes())
        except ValueError as error:
            if "too large" not in str(error): raise
print(peak() - before)
"""
    run = python("-c", code, tmp_path)
    assert not run.returncode, run.stderr
    assert int(run.stdout) < 1024 << (10 if sys.platform == "darwin" else 0)  # bytes there


def test_an_array_can_be_too_large_as_well(monkeypatch):
    monkeypatch.setattr(photos, "MOST_PIXELS", 300)
    monkeypatch.setattr(decoders, "LARGEST", 3000)
    photo = from_array(picture(40, 60))
    assert photo.scale == 3.0
    assert photo.pixels.shape == (14, 20, 3)
    with pytest.raises(ValueError, match="too large: 61x50 pixels"):
        from_array(picture(50, 61))


def a_file(name):
    if name == "ICO":
        return saved(picture(64, 64), name, sizes=[(64, 64)])
    return saved(picture(), name, **LOSSLESS.get(name, {}))


ALL = sorted({*LOSSLESS, *LOSSY, "ICO"})


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_was_cut_off_is_refused(name):
    encoded = a_file(name)
    for length in (len(encoded) // 2, len(encoded) // 3, 60):
        with pytest.raises(ValueError, match=r"^(cut off: the end of the|damaged) \w+"):
            read_photo(encoded[:length])


@pytest.mark.parametrize("name", ALL)
def test_damage_of_any_kind_is_a_value_error_or_a_photo(name):
    encoded = a_file(name)
    random = np.random.default_rng(3)
    for _ in range(60):
        damaged = np.frombuffer(encoded, np.uint8).copy()
        near = len(damaged) if random.random() < 0.5 else min(100, len(damaged))
        places = random.integers(0, near, random.integers(1, 6))
        damaged[places] = random.integers(0, 256, len(places))
        found = outcome(damaged[: random.integers(1, len(damaged) + 1)].tobytes())
        if isinstance(found, str):
            assert found
            assert "\n" not in found
        else:
            assert found.pixels.ndim == 3


def outcome(encoded):
    try:
        return read_photo(encoded)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("read", [decode, read_photo])
def test_comments_of_a_ppm_take_no_time(read):
    """Pillow reads what stands before the pixels a byte at a time, and again for each comment."""
    size, pixels = b"2 1\n255\n", b"1 2 3 4 5 6"
    for start in (b"P6\n#", b"P3\n "):
        with pytest.raises(ValueError, match="PPM"):
            read(start + b" " * 70_000 + b"\n" + size + pixels)
    with pytest.raises(ValueError, match="more than 1000 comments"):
        read(b"P3\n" + size + b"#\n" * 1001 + pixels)
    read(b"P3\n# by hand\n" + size + b"#" + b"x" * 70_000 + b"\n" + pixels)
    read(b"P6\n" + size + b"######")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"x",
        b"just some text, with a line\nor two" * 9,
        bytes(500),
        b"%PDF-1.7\n%%EOF" + bytes(99),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 5,
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch pwned) (w) file\n",
        b"\xd7\xcd\xc6\x9a" + bytes(99),
    ],
    ids=["byte", "text", "zeros", "pdf", "svg", "eps", "wmf"],
)
def test_what_is_not_an_image(rubbish):
    with pytest.raises(ValueError, match="^empty file$"):
        read_photo(b"")
    with pytest.raises(ValueError, match=rf"^not an image \({len(rubbish)} bytes, starting b['\"]"):
        read_photo(rubbish)


def test_stray_bytes_between_the_parts_of_a_jpeg():
    """Simplejpeg cannot read such a header; Pillow can."""
    whole = saved(picture(64, 64), "JPEG")
    start = whole.index(b"\xff\xda")
    broken = whole[:start] + b"\x01\x02" + whole[start:]
    assert np.array_equal(read_photo(broken).pixels, read_photo(whole).pixels)
    with pytest.raises(ValueError, match="cut off: the end of the JPEG is missing"):
        read_photo(broken[: start + 100])


def heic(brand=b"heic", rest=b"mif1heic"):
    return struct.pack(">I", 16 + len(rest)) + b"ftyp" + brand + bytes(4) + rest + bytes(99)


@pytest.mark.parametrize("encoded", [heic(), heic(b"mif1"), heic(b"heix", b"mif1heix")])
def test_heic_says_what_to_install(encoded, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"HEIC needs the package pillow-heif \(pip install"):
        read_photo(encoded)


def test_heic_is_read_by_pillow_heif_without_being_turned_twice(monkeypatch):
    class Opened:
        size = (61, 40)

        def to_pillow(self):
            image = Image.fromarray(picture())
            image.info["exif"] = exif(6)
            return image

    def open_heif(file):
        if file.read().endswith(b"bad"):
            raise EOFError("Invalid input:\nno end")
        return Opened()

    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(open_heif=open_heif))
    photo = read_photo(heic())
    assert np.array_equal(photo.pixels, picture())
    assert photo.note == ""
    with pytest.raises(ValueError, match=r"^damaged HEIC, or .* \(Invalid input: no end\)$"):
        read_photo(heic() + b"bad")
    monkeypatch.setattr(Opened, "size", (20_000, 20_000))
    with pytest.raises(ValueError, match="too large: 20000x20000 pixels"):
        read_photo(heic())


def test_heic_in_earnest():
    heif = pytest.importorskip("pillow_heif")
    for orientation in (1, 6):
        file = io.BytesIO()
        heif.from_pillow(Image.fromarray(picture())).save(file, quality=95, exif=exif(orientation))
        photo = read_photo(file.getvalue())
        expected = picture() if orientation == 1 else np.rot90(picture(), -1)
        assert photo.pixels.shape == expected.shape
        assert np.abs(photo.pixels.astype(int) - expected).mean() < 8
        with pytest.raises(ValueError, match="^damaged HEIC"):
            read_photo(file.getvalue()[:-50])


def test_a_pillow_without_a_format_says_so(monkeypatch):
    monkeypatch.setitem(Image.OPEN, "AVIF", (None, lambda prefix: "not installed"))
    with pytest.raises(ValueError, match="this Pillow reads no AVIF: pip install --upgrade pillow"):
        read_photo(saved(picture(), "PNG"))


def test_threads_get_what_one_gets_and_pillow_s_state_stays():
    def state():
        flags = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        return flags, list(Image.ID), dict(Image.OPEN), list(warnings.filters)

    before = state()
    encoded = [a_file(name) for name in ALL] * 6
    alone = [read_photo(one) for one in encoded]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(read_photo, encoded))
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.note == other.note
    assert state() == before


@pytest.mark.parametrize(
    ("kind", "values", "note"),
    [
        ("uint8", [0, 77, 255], ""),
        ("uint16", [0, 77 * 256 + 200, 65535], "16-bit"),
        ("float32", [0, 77 / 255, 1], "floating point"),
        ("float64", [-0.01, 77.3, 255.2], "floating point"),
        ("float16", [0, 77, 255], "floating point"),
    ],
)
def test_arrays_of_every_type(kind, values, note):
    array = np.array(values, kind).reshape(1, 3)
    grey = from_array(array)
    assert grey.note == "; ".join(filter(None, ["grey", note]))
    assert np.array_equal(grey.pixels[0], [[0] * 3, [77] * 3, [255] * 3])
    assert np.array_equal(from_array(array[..., None]).pixels, grey.pixels)
    colour = from_array(array.reshape(1, 1, 3))
    assert colour.note == note
    assert np.array_equal(colour.pixels[0, 0], [0, 77, 255])


def test_boolean_arrays_and_transparent_ones():
    photo = from_array(np.array([[True, False]]))
    assert np.array_equal(photo.pixels[0, :, 0], [255, 0])
    assert photo.note == "grey; black and white"
    half = from_array(np.array([[[10, 20, 30, 51]]], np.uint8))
    assert np.abs(half.pixels[0, 0] - (204 + 0.2 * np.array([10, 20, 30]))).max() <= 1
    assert half.note == "transparent parts on white"


def test_arrays_may_be_views():
    image = picture()
    photo = from_array(image[::-1, ::2])
    assert np.array_equal(photo.pixels, image[::-1, ::2])
    assert photo.pixels.flags["C_CONTIGUOUS"]
    assert np.array_equal(from_array(image[..., 0].T).pixels[..., 1], image[..., 0].T)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 9, 9), np.uint8), r"shape \(3, 9, 9\) is not an image: expected \(H, W\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\) is not an image"),
        (np.zeros(5, np.uint8), r"shape \(5,\) is not an image"),
        (np.zeros((2, 2, 3), np.int64), r"type int64: expected uint8.*\.astype\(np.uint8\)"),
        (np.full((2, 2), -0.5), "floating-point pixels from -0.5 to -0.5"),
        (np.full((2, 2, 3), np.inf), "infinite or no numbers"),
        ("photo.jpg", "is not an image"),
        (None, "is not an image"),
    ],
)
def test_arrays_that_are_no_image(array, message):
    with pytest.raises(ValueError, match=message):
        from_array(array)


def test_an_image_of_pillow_that_cannot_be_decoded():
    image = Image.open(io.BytesIO(saved(picture(), "PNG")[:200]))
    with pytest.raises(ValueError, match="cut off: the end of the PNG is missing"):
        from_array(image)
    with pytest.raises(ValueError, match="an image of 0x0 has no pixels"):
        from_array(Image.new("RGB", (0, 0)))

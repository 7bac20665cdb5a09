"""Decoding against OpenCV, resizing against a slow bilinear formula."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import simplejpeg

from data.faces import FaceImages, open_faces, write_pack
from data.images import decode, decode_into, decode_jpeg, encode_jpeg, encode_png, to_112
from data.recordio import RecordWriter
from data.verification import VerificationSet, write_bin_from_pairs
from tests.helpers import SHARED

ORACLE = SHARED / "oracle"


def picture(height=112, width=112, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def read_all(faces):
    FaceImages(faces).decode(0, len(faces))
    faces.sizes.warn("faces")
    faces.sizes.warn("faces")


def read_pairs(images):
    opened = VerificationSet("set", images, np.array([True, False]))
    opened.decode(0, 4)
    opened.sizes.warn("set")


def read_records(folder, images):
    with RecordWriter(folder / "raw") as writer:
        for label, image in enumerate(images):
            writer.write_image(label, encode_png(image))
    read_all(open_faces(str(folder / "raw.rec")))


@pytest.mark.parametrize(
    ("sizes", "is_told"),
    [([112, 96, 224, 160], False), ([112, 250, (96, 112), (300, 200)], True)],
)
@pytest.mark.parametrize(
    "use",
    [
        lambda folder, images: read_all(open_faces(str(folder))),
        lambda folder, images: read_all(open_faces([f"{folder}/a", f"{folder}/b"])),
        lambda folder, images: write_pack(open_faces(str(folder)), folder / "pack"),
        lambda folder, images: write_bin_from_pairs(folder / "pairs.csv", folder, folder / "x.bin"),
        read_records,
        lambda folder, images: read_pairs([encode_png(image) for image in images]),
        lambda folder, images: read_pairs(images),
    ],
)
def test_images_that_are_not_aligned_faces_are_counted(tmp_path, caplog, sizes, is_told, use):
    images = [picture(*((size, size) if isinstance(size, int) else size)) for size in sizes]
    for number, image in enumerate(images):
        path = tmp_path / "ab"[number % 2] / "person" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(image) if number else encode_jpeg(image))
    lines = "a/person/0.png,b/person/1.png,1\na/person/2.png,b/person/3.png,0\n"
    (tmp_path / "pairs.csv").write_text(lines)
    use(tmp_path, images)
    assert caplog.text.count("3 of 4 images (75 %) are not aligned faces") == is_told
    assert ("align_faces.py PHOTOS" in caplog.text) == is_told


def test_png_keeps_every_pixel_and_the_channel_order():
    image = picture()
    assert np.array_equal(decode(encode_png(image)), image)
    bgr = cv2.imdecode(np.frombuffer(encode_png(image), np.uint8), 1)
    assert np.array_equal(bgr[..., 2::-1], image)


def test_jpeg_pixels_equal_opencv_s():
    encoded = encode_jpeg(picture())
    reference = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(decode(encoded), reference)
    assert np.abs(decode(encoded).astype(int) - picture()).mean() < 3


def test_grey_images_become_rgb():
    grey = picture()[..., :1]
    for encoded in (
        simplejpeg.encode_jpeg(np.ascontiguousarray(grey), 95, "GRAY", colorsubsampling="Gray"),
        cv2.imencode(".png", grey)[1].tobytes(),
    ):
        image = decode(encoded)
        assert image.shape == (112, 112, 3)
        assert np.array_equal(image[..., 0], image[..., 2])
        assert np.abs(image[..., :1].astype(int) - grey).max() <= 12


def test_transparency_and_16_bits():
    image = picture()
    transparent = np.dstack([image[..., ::-1], np.full((112, 112, 1), 7, np.uint8)])
    assert np.array_equal(decode(cv2.imencode(".png", transparent)[1].tobytes()), image)
    deep = image[..., ::-1].astype(np.uint16) * 257
    assert np.array_equal(decode(cv2.imencode(".png", deep)[1].tobytes()), image)


def test_stray_bytes_and_padding_cost_no_pixel():
    whole = cv2.imencode(".jpg", picture(200, 300))[1].tobytes()
    expected = decode(whole)
    notes = set()
    for extra in (b"\x12\x34\x56", bytes(1000), b"U" * 300):
        pixels, note = decode_jpeg(whole[:-2] + extra + whole[-2:])
        assert np.array_equal(pixels, expected)
        notes.add(note)
    assert notes <= {"", "stray bytes in the file"}
    assert len(notes) == 2
    assert decode_jpeg(whole + b"a trailer of some camera")[1] == ""


def test_a_jpeg_whose_middle_is_lost_is_refused():
    whole = encode_jpeg(np.random.default_rng(4).integers(0, 256, (160, 200, 3), dtype=np.uint8))
    middle = len(whole) // 2
    with pytest.raises(ValueError, match=r"^damaged JPEG \(Corrupt JPEG data: \d+ extraneous"):
        decode(whole[:middle] + bytes(500) + whole[middle + 500 :])


def kinds():
    """Yield a name and the bytes of files of many kinds, whole and damaged."""
    for shape in [(112, 112), (50, 50), (112, 100), (112, 113), (56, 224), (250, 250), (1, 1)]:
        image = picture(*shape)
        bgr = np.ascontiguousarray(image[..., ::-1])
        yield f"jpeg {shape}", encode_jpeg(image)
        for sampling in ("444", "422", "440", "411"):
            encoded = simplejpeg.encode_jpeg(image, 90, "RGB", colorsubsampling=sampling)
            yield f"jpeg {sampling} {shape}", encoded
        grey = np.ascontiguousarray(image[..., :1])
        yield f"grey {shape}", simplejpeg.encode_jpeg(grey, 95, "GRAY", colorsubsampling="Gray")
        yield f"cmyk {shape}", cmyk(image)
        progressive = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1]
        yield f"progressive {shape}", progressive.tobytes()
        for suffix in (".png", ".bmp", ".webp", ".tiff"):
            yield f"{suffix} {shape}", cv2.imencode(suffix, bgr)[1].tobytes()
        whole = encode_jpeg(image)
        yield f"stray bytes {shape}", whole[:-2] + b"\x12\x34\x56" + whole[-2:]
        yield f"wrong bytes {shape}", whole[:-20] + bytes(10) + whole[-10:]
        for length in (3, 30, 300, len(whole) // 2, -1):
            yield f"cut {length} {shape}", whole[:length]
    whole = encode_jpeg(picture())
    factors = whole.index(b"\xff\xc0") + 11  # of sampling: some have no name in simplejpeg
    for sampling in (0x13, 0x14, 0x31, 0x44, 0x00):
        named = f"sampling {sampling:x}"
        yield named, whole[:factors] + bytes([sampling]) + whole[factors + 1 :]
    yield "rubbish", b"rubbish"
    yield "nothing", b""


def cmyk(image):
    four = np.concatenate([255 - image, image[..., :1] // 4], axis=-1)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(four), 95, "CMYK", colorsubsampling="444")


def outcome(read):
    try:
        return read()
    except ValueError as error:
        return str(error)


KINDS = dict(kinds())


@pytest.mark.parametrize("name", KINDS)
def test_decoding_in_place_does_what_decoding_and_resizing_do(name):
    encoded = KINDS[name]
    expected = outcome(lambda: to_112(decode(encoded)))
    around = np.full((3, 112, 112, 3), 77, dtype=np.uint8)
    for given in (encoded, memoryview(encoded)):
        around[1] = 99
        found = outcome(lambda given=given: decode_into(given, around[1]))
        if isinstance(expected, str):
            assert found == expected
        else:
            assert found == decode(encoded).shape[:2]
            assert np.array_equal(around[1], expected)
        assert (around[[0, 2]] == 77).all()


def bilinear(image, size):
    """Resize by the formula: sample at pixel centres, clamp at the border."""

    def weights(length):
        centre = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(centre.astype(int), length - 2)
        matrix = np.zeros((size, length))
        matrix[np.arange(size), low] = 1 - (centre - low)
        matrix[np.arange(size), low + 1] = centre - low
        return matrix

    rows, columns = weights(image.shape[0]), weights(image.shape[1])
    return np.einsum("ya,abc,xb->yxc", rows, image.astype(float), columns, optimize=True)


@pytest.mark.parametrize("shape", [(130, 100), (96, 96), (250, 250), (40, 112)])
def test_other_sizes_are_resized_bilinearly(shape):
    image = picture(*shape)
    resized = to_112(image)
    assert resized.shape == (112, 112, 3)
    assert np.abs(resized - bilinear(image, 112)).max() <= 1


@pytest.mark.skipif(not ORACLE.exists(), reason="needs ../shared/oracle")
def test_resize_equals_the_original_s():
    with np.load(ORACLE / "model" / "preprocess_eval.npz") as oracle:
        for row in range(3):
            image = to_112(oracle[f"img{row}"]).transpose(2, 0, 1)
            expected = oracle["out"][row]
            assert np.allclose((image / 255 - 0.5) / 0.5, expected, atol=1e-6)


@pytest.mark.skipif(not ORACLE.exists(), reason="needs ../shared/oracle")
def test_decoded_pixels_equal_mxnet_s():
    expected = json.loads((ORACLE / "bin" / "expected.json").read_text())
    with np.load(ORACLE / "bin" / "decoded_rgb.npz") as oracle:
        for pixels in oracle.values():
            for image in pixels if pixels.ndim == 4 else [pixels]:
                digest = hashlib.sha256(np.ascontiguousarray(image, np.uint8)).hexdigest()
                assert digest in expected["decoded_sha256_mxnet_rgb"]

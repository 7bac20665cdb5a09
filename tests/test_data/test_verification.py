"""`.bin` sets in every variant met in the wild, and pickles that must not run."""

import hashlib
import json
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from data import verification
from data.images import decode, encode_jpeg, encode_png
from data.verification import (
    VerificationSet,
    open_verification,
    read_bin,
    write_bin,
    write_bin_from_pairs,
)
from tests.helpers import GOLDEN

SETS = GOLDEN / "data" / "bin"
EXPECTED = json.loads((SETS / "expected.json").read_text())
BOMB = b"\x80\x04\x8e" + struct.pack("<Q", 1 << 42) + b"x."  # a length of terabytes
GOOD = sorted(path.name for path in SETS.glob("py*.bin"))


def pixels(value, size=112):
    return np.full((size, size, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("name", GOOD)
def test_every_variant_gives_mxnet_s_pixels(name):
    found = read_bin(SETS / name)
    assert found.mated.dtype == np.bool_
    assert found.mated.tolist() == EXPECTED["issame"]
    images = found.decode(0, 12)
    for part, key in ((found.images, "jpeg_sha256"), (images, "decoded_sha256_mxnet_rgb")):
        assert [hashlib.sha256(image).hexdigest() for image in part] == EXPECTED[key]
    assert images[0, 0, 56].tolist() == EXPECTED["first_image_top_row_pixel_rgb"]
    assert images[0, -1, 56].tolist() == EXPECTED["first_image_bottom_row_pixel_rgb"]


def test_decode_takes_parts_and_resizes():
    images = [encode_png(pixels(1)), encode_png(pixels(2, 50)), encode_jpeg(pixels(3))]
    images.append(pixels(4, 30))
    found = VerificationSet("x", images, np.array([True, False]))
    assert found.decode(0, 4)[:, 5, 5, 0].tolist() == [1, 2, 3, 4]
    assert found.decode(1, 3)[:, 5, 5, 0].tolist() == [2, 3]
    assert found.decode(3, 99).shape == (1, 112, 112, 3)
    with pytest.raises(ValueError, match="x: image 1: not an image"):
        VerificationSet("x", [b"no"] * 2, np.array([True])).decode(1, 2)


def test_unsafe_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = SETS / "bad_unsafe_global.bin"
    with pytest.raises(ValueError, match=f"{path}: refused, nothing was run: .* posix.system"):
        read_bin(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        *("os system", "builtins eval", "builtins getattr", "builtins memoryview"),
        *("numpy load", "numpy.core.multiarray fromfile", "codecs encode"),
        *("functools partial", "data.verification main"),
    ],
)
def test_any_other_name_is_refused(tmp_path, name):
    module, function = name.split()
    path = tmp_path / "x.bin"
    path.write_bytes(f"c{module}\n{function}\n(tR.".encode())
    with pytest.raises(ValueError, match=f"nothing was run: it asks for {module}.{function}"):
        read_bin(path)


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        # an object dtype, whose bytes numpy would take for pointers
        (
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x01\x00\x00\x00OI0\nI1\ntR"
            b"C\x08AAAAAAAAtR.",
            "an array that does not consist of numbers",
        ),
        (b"cnumpy\ndtype\n(X\x04\x00\x00\x00u1,OI0\nI1\ntR.", "an array of dtype 'u1,O'"),
        # another codec
        (b"c_codecs\nencode\n(Va\nVrot13\ntR.", "it encodes as 'rot13'"),
        # a function whose attributes are to be changed
        (b"c_codecs\nencode\n)b.", "it tries to change a function"),
        # an object of another program
        (b"Pabc\n.", "it refers to an object outside the file"),
        # an array made of Python objects
        (b"cnumpy.core.multiarray\n_reconstruct\n(tR(K\x01K\x01NI00\n(lp0\ntb.",
         "an array that does not consist of numbers"),
    ],
)  # fmt: skip
def test_allowed_names_cannot_be_bent(tmp_path, opcodes, message):
    path = tmp_path / "x.bin"
    path.write_bytes(opcodes)
    with pytest.raises(ValueError, match=message):
        read_bin(path)


@pytest.mark.parametrize(
    "opcodes", [b"Nr\0\0\0\x08.", b"\x8e\0\0\0\0\2\0\0\0x.", b"\x96\0\0\0\0\2\0\0\0x."]
)
def test_a_few_bytes_take_no_gigabytes(tmp_path, opcodes):
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\x05" + opcodes)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"damaged|expected"):
            read_bin(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


DEEP = b")" + b"2\x86" * 60  # a tuple of itself twice, 60 times


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"}" + DEEP + b"K\x01s.", "it holds a set or a dictionary"),
        (b"\x8f(" + DEEP + b"\x90.", "it holds a set or a dictionary"),
        (b"(" + DEEP + b"\x91.", "it holds a set or a dictionary"),
        (b"cnumpy\ndtype\n" + DEEP + b"\x85R.", "an array of dtype \\(\\("),
        (b"c_codecs\nencode\nX\1\0\0\0a" + DEEP + b"\x86R.", "it encodes as"),
        (DEEP + b"Q.", "an object outside the file"),
        (b"](K\1" + DEEP + b"l\x86.", "damaged|issame is not a list of"),
        (b"]]" + DEEP + b"a\x86.", "issame is not a list of"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\n)R(K\1(J\0\0\0\x40K\0tcnumpy\ndtype\nU\2u1\x85RN"
            b"C\0tbK\0\x86.",
            r"shape \(1073741824, 0\) and 0 bytes",
        ),
        (b"](]q\0(" + b"K\0" * 99999 + b"e" + b"h\0" * 99999 + b"e.", "expected .images, issame"),
    ],
)
def test_a_few_bytes_take_no_end(tmp_path, opcodes, message):
    path = tmp_path / "x.bin"
    path.write_bytes(b"\x80\4" + opcodes)
    with pytest.raises(ValueError, match=message) as error:
        read_bin(path)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["bool", "int64", ">i4", "float32"])
def test_arrays_of_every_protocol_and_byte_order(tmp_path, protocol, dtype):
    path = tmp_path / "x.bin"
    content = ([np.arange(9, dtype=np.uint8)] * 4, np.array([1, 0]).astype(dtype))
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_bin(path)
    assert found.mated.tolist() == [True, False]
    assert found.images == [bytes(range(9))] * 4


@pytest.mark.parametrize("flag", [np.bool_(True), np.int32(1), np.float64(1.0), 1, True])
def test_flags_of_every_kind(tmp_path, flag):
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(((b"a", bytearray(b"b")), [flag]), protocol=5))
    found = read_bin(path)
    assert found.mated.tolist() == [True]
    assert found.images == [b"a", b"b"]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", GOOD)
def test_cut_files_are_told(tmp_path, name, share):
    data = (SETS / name).read_bytes()
    path = tmp_path / "cut.bin"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=f"{path}: damaged or cut short"):
        read_bin(path)


@pytest.mark.parametrize("junk", [b"", b"\x80", b"hello", bytes(100), b"\x80\x04\x8c\xff.", BOMB])
def test_junk_is_told(tmp_path, junk):
    path = tmp_path / "junk.bin"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=f"{path}: damaged or cut short"):
        read_bin(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (([b"a"] * 3, [True, False]), "3 images for 2 pairs; a set has two images for each pair"),
        (([b"a"] * 5, [True, False]), "5 images for 2 pairs"),
        (([], []), "0 images for 0 pairs; .* at least one pair"),
        (([b"a"] * 2, [2]), "issame is not a list of True and False"),
        (([b"a"] * 2, ["yes"]), "issame is not a list of True and False"),
        (([b"a"] * 2, [[True], [True, False]]), "issame is not a list of True and False"),
        (([b"a"] * 2, None), "issame is not a list of True and False"),
        (([b"a", 3], [True]), "an image is a int, not encoded bytes"),
        (([b"a", np.zeros((4, 4))], [True]), "an image is a ndarray, not encoded bytes"),
        ((b"ab", [True]), "images are a bytes, not a list"),
        ([b"a"], r"expected \(images, issame\), found list"),
        ({"images": []}, "it holds a set or a dictionary"),
    ],
)
def test_other_content_is_told(tmp_path, content, message):
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(ValueError, match=message) as error:
        read_bin(path)
    assert str(path) in str(error.value)


def test_written_sets_are_read_again_by_anyone(tmp_path):
    images = [encode_png(pixels(value)) for value in range(4)]
    path = tmp_path / "deep" / "mine.bin"
    write_bin(path, images, np.array([True, False]))
    assert pickle.loads(path.read_bytes()) == (images, [True, False])
    again = read_bin(path)
    assert again.images == images
    assert again.mated.tolist() == [True, False]
    write_bin(path, [pixels(9), images[0]], [True])
    assert np.array_equal(decode(read_bin(path).images[0]), pixels(9))
    with pytest.raises(ValueError, match="3 images for 2 pairs"):
        write_bin(tmp_path / "x.bin", images[:3], [True, False])
    assert not (tmp_path / "x.bin").exists()


def test_targets(tmp_path):
    write_bin(tmp_path / "lfw.bin", [encode_png(pixels(1))] * 2, [True])
    assert open_verification("lfw", tmp_path).name == "lfw"
    with pytest.raises(ValueError, match="no verification set .*cfp_fp.bin .sets in this .*: lfw."):
        open_verification("cfp_fp", tmp_path)
    with pytest.raises(ValueError, match="no folder .*nowhere: name the one with the .bin files"):
        open_verification("lfw", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="target 'lfw' needs a dataset_path"):
        open_verification("lfw", None)
    with pytest.raises(ValueError, match="no verification set"):
        read_bin(tmp_path / "none.bin")


@pytest.fixture
def people(tmp_path):
    for person in ("Ann_Lee", "Bo"):
        (tmp_path / person).mkdir()
        for number in (1, 2):
            image = pixels(10 * number + (person == "Bo"))
            (tmp_path / person / f"{person}_{number:04d}.png").write_bytes(encode_png(image))
    return tmp_path


ROWS = """Ann_Lee/Ann_Lee_0001.png,Ann_Lee/Ann_Lee_0002.png,1
"Bo/Bo_0002.png", Ann_Lee/Ann_Lee_0001.png , 0
"""


@pytest.mark.parametrize(
    "text",
    [
        *(ROWS, f"path_a,path_b,same\n{ROWS}", f"\ufeffa,b,same\n\n{ROWS}"),
        "1\t1\nAnn_Lee\t1\t2\nBo\t2\tAnn_Lee\t1\n",  # as LFW's
    ],
)
def test_pairs_of_a_list(people, text):
    (people / "pairs.txt").write_text(text, encoding="utf-8")
    assert write_bin_from_pairs(people / "pairs.txt", people, people / "x.bin") == 2
    found = read_bin(people / "x.bin")
    assert found.mated.tolist() == [True, False]
    assert found.decode(0, 4)[:, 0, 0, 0].tolist() == [10, 20, 21, 10]
    assert found.images[0] == (people / "Ann_Lee" / "Ann_Lee_0001.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png,b.png,2\n", "pairs.csv:1: expected `path_a,path_b,same` with same = 0 or 1, got"),
        ("a,b,same\na.png,b.png\n", "pairs.csv:2: expected"),
        ("path_a,path_b,same\n", "pairs.csv: no pairs"),
        ("", "pairs.csv: no pairs"),
        ("Bo/Bo_0001.png,Bo/none.png,1\n", "pairs.csv:1: .*Bo/none.png: No such file"),
        ("Bo/Bo_0001.png,notes.png,1\n", "pairs.csv:1: .*notes.png: not an image"),
        ("1 1\nBo 1 2 3 4\n", "pairs.csv:2: expected `name n m` or `name n other m`"),
    ],
)
def test_bad_pairs_are_told_with_their_line(people, text, message, refused):
    (people / "notes.png").write_text("not a picture")
    (people / "pairs.csv").write_text(text)
    arguments = ["--pairs", str(people / "pairs.csv"), "--images", str(people)]
    with pytest.raises(ValueError, match=message):
        write_bin_from_pairs(people / "pairs.csv", people, people / "x.bin")
    refused(verification.main([*arguments, "--out", str(people / "x.bin")]), "", alone=True)
    assert not (people / "x.bin").exists()

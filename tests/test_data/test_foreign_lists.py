"""Lists, folders and `.bin` sets as other people's tools write them."""

import logging
import pickle

import cv2
import numpy as np
import pytest

from data.listing import folder_listing, list_file_listing
from data.verification import read_bin

PATHS = [f"{person}/{image}.jpg" for person in "abc" for image in range(2)]
LABELS = [path[0] for path in PATHS]


@pytest.fixture
def folder(tmp_path):
    for path in PATHS:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    return tmp_path


def read(folder, text, name="list.txt", encoding="utf-8"):
    (folder / name).write_bytes(text.encode(encoding))
    listing = list_file_listing(folder / name)
    return [listing.path(row) for row in range(len(listing))], listing.labels.tolist()


def lines(form, labels="012"):
    return "".join(
        form.format(path=path, label=labels["abc".index(path[0])]) + "\n" for path in PATHS
    )


@pytest.mark.parametrize(
    "form",
    [
        "{path} {label}",
        "{path}\t{label}",
        "7\t{label}\t{path}",
        "1\t{path}\t{label}",
        "7\t{label}.000000\t{path}",  # MXNet's im2rec
        "0\t{path}\t{label}\t10\t12\t98\t110",
        "0\t{path}\t{label}\t10.5\t12\t98\t1.1e2\t38\t74\t56\t41\t71",
        "7\t{label}\t0.5\t0.25\t{path}",  # several labels: the first
        "{path}\t{label}\t10\t12\t98\t110",
        "1 {path} {label}",
        "1 {path} {label} 10 12 98 110",
        "7 {label} {path}",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_layouts_and_encodings(folder, form, encoding):
    paths, labels = read(folder, lines(form), "list.lst", encoding)
    assert paths == PATHS
    assert labels == [0, 0, 1, 1, 2, 2]


def test_a_path_with_spaces_and_a_number_in_front_stays_a_path(folder):
    (folder / "1 a.jpg").touch()
    assert read(folder, "1 a.jpg 5\na/0.jpg 6\n") == (["1 a.jpg", "a/0.jpg"], [0, 1])


def test_labels_are_whole_numbers_of_any_size(folder):
    big = ["20230115093000120", "20230115093000121", "20230115093000122"]
    assert read(folder, lines("{path} {label}", big))[1] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "label", ["1_12", "12e4", "0x1f", "1.5", "nan", "inf", "\u0663", "--1", "1,2"]
)
def test_what_is_not_a_whole_number_is_refused_with_its_line(folder, label):
    with pytest.raises(ValueError, match=r"list.txt:2: .*whole number"):
        read(folder, f"a/0.jpg 0\na/1.jpg {label}\n")


def test_another_encoding_is_refused_with_the_line(folder):
    with pytest.raises(ValueError, match=r"list.txt: line 3 is not UTF-8.*save it as UTF-8"):
        read(folder, "a/0.jpg 0\na/1.jpg 0\n\u5f20\u4f1f/1.jpg 1\n", encoding="gbk")


def test_backslashes_are_separators_where_no_such_file_exists(folder):
    assert read(folder, "a\\0.jpg 4\n")[0] == ["a/0.jpg"]
    (folder / "b\\0.jpg").touch()
    assert read(folder, "b\\0.jpg 4\n", "other.txt")[0] == ["b\\0.jpg"]


def test_a_list_of_which_nothing_exists_is_refused(folder):
    with pytest.raises(ValueError, match=r"none of its first 2 images exists.*x/0.jpg"):
        read(folder, "x/0.jpg 0\nx/1.jpg 1\n")


def test_images_below_an_identity_are_used_and_told(folder, caplog):
    (folder / "a" / "more" / "deep").mkdir(parents=True)
    (folder / "a" / "more" / "2.jpg").touch()
    (folder / "a" / "more" / "deep" / "3.PNG").touch()
    with caplog.at_level(logging.WARNING, "faceuq"):
        listing = folder_listing(folder)
    paths = [listing.path(row) for row in range(len(listing))]
    assert paths[:4] == ["a/0.jpg", "a/1.jpg", "a/more/2.jpg", "a/more/deep/3.PNG"]
    assert listing.labels.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]
    assert "2 images lie deeper" in caplog.text


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_encoded_images_of_any_array_type_are_the_same_set(tmp_path, protocol):
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (112, 112, 3), np.uint8) for _ in range(4)]
    encoded = [cv2.imencode(".png", image[..., ::-1])[1].ravel() for image in pixels]
    data = [image.tobytes() for image in encoded]
    objects = np.empty(4, object)
    objects[:] = data
    kinds = {
        "bytes": data,
        "bytearray": [bytearray(image) for image in data],
        "(n,)": encoded,
        "(n, 1)": [image.reshape(-1, 1) for image in encoded],
        "(1, n)": [image.reshape(1, -1) for image in encoded],
        "np.bytes_": [np.bytes_(image) for image in data],
        "array of bytes": np.array(data),
        "array of objects": objects,
        "array of pixels": np.stack(pixels),
    }
    for kind, images in kinds.items():
        path = tmp_path / "set.bin"
        path.write_bytes(pickle.dumps((images, [True, False]), protocol=protocol))
        assert np.array_equal(read_bin(path).decode(0, 4), pixels), kind

"""Packing by data/recordio.py, as a user runs it."""

import numpy as np
import pytest

from data import recordio
from data.faces import open_faces
from data.images import encode_jpeg, encode_png
from tests.helpers import ROOT, python


@pytest.fixture
def faces(tmp_path):
    for person in range(3):
        (tmp_path / "faces" / f"p{person}").mkdir(parents=True)
        for number in range(person + 1):
            image = np.full((112, 112, 3), 40 * person + 10 * number, np.uint8)
            (tmp_path / "faces" / f"p{person}" / f"{number}.png").write_bytes(encode_png(image))
    return tmp_path / "faces"


def test_pack_from_anywhere(faces, tmp_path):
    script = ROOT / "data" / "recordio.py"
    arguments = ("--images", "faces", "--out", "packed/train")
    done = python(script, *arguments, cwd=tmp_path, PYTHONPATH="")
    assert (done.returncode, done.stdout) == (0, "packed/train.rec: 6 images of 3 identities\n")
    packed, folder = open_faces(str(tmp_path / "packed")), open_faces(str(faces))
    assert packed.labels.tolist() == folder.labels.tolist() == [0, 1, 1, 2, 2, 2]
    assert [packed.encoded(row) for row in range(6)] == [folder.encoded(row) for row in range(6)]
    assert (tmp_path / "packed" / "property").read_text() == "3,112,112"


def test_labels_in_any_order_and_other_sizes(faces, tmp_path):
    big = np.full((150, 100, 3), 200, np.uint8)
    (faces / "big.jpg").write_bytes(encode_jpeg(big))
    listing = faces / "list.txt"
    listing.write_text("p0/0.png 5\np2/0.png 9\nbig.jpg 5\n")
    assert recordio.main(["--images", str(listing), "--out", str(tmp_path / "x")]) == 0
    packed = open_faces(str(tmp_path / "x.rec"))
    assert packed.labels.tolist() == [0, 0, 1]
    assert [int(packed.read(row)[9, 9, 0]) for row in range(3)] == [0, 200, 80]


@pytest.mark.parametrize("broken", [False, True])
def test_one_clear_line_and_no_half_pack(faces, tmp_path, broken, refused):
    if broken:
        (faces / "p1" / "0.png").write_bytes(b"rubbish")
    source = str(faces) if broken else "nowhere"
    code = recordio.main(["--images", source, "--out", str(tmp_path / "out" / "x")])
    refused(code, "p1/0.png: not an image" if broken else "no faces at nowhere", alone=True)
    assert not list(tmp_path.glob("out/*"))

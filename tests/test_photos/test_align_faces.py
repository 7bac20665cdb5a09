"""The command that cuts aligned faces out of a folder of photos."""

import numpy as np
import pytest

from data.faces import open_faces
from data.images import decode, encode_png
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces
from photos import align_faces
from photos.align import REFERENCE
from photos.detectors import Detections

FACES = SyntheticFaces(4, 1, seed=3)


class AtOffsets:
    """Takes the photo apart that `album` puts together: a face at every 130 pixels."""

    def __call__(self, image):
        count = image.shape[1] // 130
        marks = np.stack([REFERENCE + (130 * n, 0) for n in range(count)] or [np.empty((5, 2))])
        marks = marks[:count].astype(np.float32)
        return Detections(np.zeros((count, 4), np.float32), marks, np.ones(count, np.float32))


def album(*rows):
    picture = np.zeros((112, max(130 * len(rows), 20), 3), np.uint8)
    for place, row in enumerate(rows):
        picture[:, 130 * place : 130 * place + 112] = FACES.read(row)
    return encode_png(picture)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(align_faces, "open_detector", lambda name: AtOffsets())
    root = tmp_path / "photos"
    (root / "ann").mkdir(parents=True)
    (root / "ann/1.png").write_bytes(album(0, 1))
    (root / "ann/none.png").write_bytes(album())
    (root / "bad.jpg").write_bytes(b"rubbish")
    (root / "notes.doc").write_bytes(b"")
    with RecordWriter(root / "bo/pack") as writer:
        writer.write_image(0, encode_png(FACES.read(2)))
    return root


def test_a_folder_is_aligned_once_and_never_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "faces"
    command = ["--photos", str(folder), "--out", str(out), "--threads", "2"]
    assert align_faces.main(command) == 0
    said = capsys.readouterr()
    assert "4 photos, 3 faces, 1 without a face, 1 unreadable, 0 done before, 4 non-" in said.out
    assert f"{folder}/bad.jpg: not an image" in said.err
    names = ["ann/1.png.2.png", "ann/1.png.png", "bo/pack.rec.000000.png"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == names
    faces = open_faces(str(out))
    for row, expected in enumerate((1, 0, 2)):
        np.testing.assert_array_equal(faces.read(row), FACES.read(expected))
    (out / "ann/1.png.png").write_bytes(b"mine")
    assert align_faces.main(command) == 0
    assert (out / "ann/1.png.png").read_bytes() == b"mine"
    assert "4 photos, 0 faces, 1 without a face, 1 unreadable, 2 done" in capsys.readouterr().out


def test_only_the_largest_and_mistakes(folder, tmp_path, capsys):
    command = ["--photos", str(folder), "--out", str(tmp_path / "x"), "--largest"]
    assert align_faces.main(command) == 0
    assert not list((tmp_path / "x").rglob("*.2.png"))
    assert align_faces.main(["--photos", "nowhere", "--out", "x"]) == 2
    error = "error: no folder nowhere: --photos names a folder of photos\n"
    assert capsys.readouterr().err.endswith(error)


def test_the_central_face_and_the_report(folder, tmp_path):
    (folder / "three.png").write_bytes(album(0, 1, 2))
    out, report = tmp_path / "faces", tmp_path / "faces.csv"
    command = [str(folder), "--out", str(out), "--face", "central", "--report", str(report)]
    assert align_faces.main(command) == 0
    np.testing.assert_array_equal(decode((out / "three.png.png").read_bytes()), FACES.read(1))
    first = report.read_text()
    assert f"{folder}/ann/none.png,0,no face detected" in first
    assert f'{folder}/bad.jpg,0,"not an image' in first
    assert f"{folder}/three.png,1,\n" in first
    assert align_faces.main(command) == 0
    assert report.read_text() == first

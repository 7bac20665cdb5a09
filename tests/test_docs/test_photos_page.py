"""The example of docs/score_photos.md runs, and the page has every note and reason of the code."""

import re
from pathlib import Path

import numpy as np
import pytest

from data.images import encode_jpeg
from data.verification import write_bin
from photos.decode import _MODES, _READERS, LARGEST, LARGEST_JPEG, MOST_PIXELS, turn_note
from photos.sources import COLUMNS, PHOTO_SUFFIXES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "score_photos.md").read_text(encoding="utf-8")
PAGE = PAGE.partition("\n## Photos: what is read, and what is said about it\n")[2].partition(
    "\n## "
)[0]


def test_the_example_runs(tmp_path, monkeypatch, capsys):
    face = encode_jpeg(np.zeros((112, 112, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    Path("holiday").mkdir()
    Path("holiday/1.jpg").write_bytes(face)
    Path("holiday/notes.doc").write_bytes(b"")
    Path("album.txt").write_text("holiday/1.jpg\nholiday/2.jpg\n")
    Path("clip.mp4").write_bytes(b"")
    write_bin("lfw.bin", [face, face], [True])
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    found = {}
    exec(compile(example, "docs/score_photos.md", "exec"), found)
    assert found["reason"] == "empty file"
    assert (found["pixels"].shape, found["note"], found["scale"]) == ((112, 112, 3), "", 1.0)
    assert capsys.readouterr().out == "{'.doc': 1}\n"


@pytest.mark.parametrize("note", sorted({*_MODES.values(), turn_note(2), turn_note(3)}))
def test_notes_are_explained(note):
    assert f"`{note}`" in PAGE


def test_sizes_and_columns_and_formats():
    for number in (MOST_PIXELS, LARGEST, LARGEST_JPEG):
        assert f"{number // 1_000_000} m" in PAGE
    for column in COLUMNS:
        assert f"`{column}`" in PAGE
    for name in {*_READERS} - {"JPEG2000", "WEBP"} | {"JPEG 2000", "WebP", "HEIC"}:
        assert name in PAGE
    assert {".jpg", ".heic", ".png"} <= PHOTO_SUFFIXES


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
    assert reason in PAGE
    assert reason in code

"""docs/score_photos.md has every column, and its commands and readers run on the demo model."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from data.synthetic import SyntheticFaces
from data.verification import write_bin
from estimators.from_file import FromFile
from report.sheet import LANDMARKS
from scoring import score_images
from scoring.rows import COLUMNS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "score_photos.md").read_text(
    encoding="utf-8"
)
PAGE = PAGE.partition("\n## Score photos\n")[2].partition("\n## ")[0]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(wanted):
    return [content for language, content in FENCE.findall(PAGE) if language == wanted]


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


def test_commands_run(photos, capsys):
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 3
    for line in commands:
        assert score_images.main([*shlex.split(line)[2:], "--device", "cpu"]) == 0, line
    said = capsys.readouterr().out
    assert said.count("6 rows: 5 scored, 0 without a face, 1 unreadable") == 3
    assert "DEMO: trained on rendered faces" in said
    assert (photos / "scores.html").is_file()


def test_readers_run(photos):
    pandas = pytest.importorskip("pandas")
    for suffix in ("csv", "json", "jsonl"):
        arguments = ["photos", "--model", "demo", "--device", "cpu", "--out", f"scores.{suffix}"]
        assert score_images.main(arguments) == 0
    readers, recipe = blocks("python")
    found = {}
    exec(compile(readers, "block", "exec"), found)
    assert len(found["worst_first"]) == 5
    assert found["worst_first"]["uncertainty"].is_monotonic_decreasing
    assert len(found["one_a_photo"]) == 6
    assert found["header"]["model_sha256"] == found["stored"]["header"]["model_sha256"]
    scored = ["set.bin", "--model", "demo", "--device", "cpu", "--out", "scores.csv", "--restart"]
    assert score_images.main(scored) == 0
    exec(compile(recipe, "block", "exec"), found)
    table = pandas.read_csv("scores.csv", skiprows=1)
    stored = FromFile(path="for_from_file.csv").uncertainty_of(range(6))
    assert stored == pytest.approx(table["uncertainty"].to_numpy())


def test_every_column_is_explained():
    for name in COLUMNS:
        if name in ("top", "right") or re.match("|".join(LANDMARKS), name):
            continue  # in a range
        assert re.search(rf"^\| .*`{name}`.* \|", PAGE, re.MULTILINE), name

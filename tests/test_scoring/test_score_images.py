"""score_images: every kind of input has its rows, in every kind of file, and on the screen."""

import base64
import csv
import json
import os
import re
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from data.images import decode, encode_png
from data.recordio import RecordWriter
from data.synthetic import SyntheticFaces
from data.verification import write_bin
from estimators.base import Batch, Estimate
from evaluation.confidence.calibration import Decision
from evaluation.open_model import LoadedModel
from photos.align import REFERENCE
from photos.decode import Photo
from photos.detectors.base import Detections
from photos.sources import Item
from report.sheet import FaceScore
from report.words import ACCEPTED
from scoring import job, score_images
from scoring.job import ScoreOptions, Summary, add_parts, score_chunks
from scoring.rows import COLUMNS, RowParts, write_rows
from scoring.scorer import Scorer, Scores, load_scorer
from utils.long_work import Progress

FACES = SyntheticFaces(identities=6, images=1, seed=5)
FORMATS = [".csv", ".json", ".jsonl", ".parquet"]


class Marks:
    """Finds a face for every 20 levels of the first pixel, each left of the one before."""

    name = "marks"

    def __call__(self, image):
        count = int(image[0, 0, 0]) // 20
        points = np.stack([REFERENCE + 7 * (count - n) for n in range(count)] or [REFERENCE])
        boxes = np.concatenate([points.min(1), points.max(1)], 1)
        chances = np.linspace(0.9, 0.5, count)
        return Detections(*(a[:count].astype(np.float32) for a in (boxes, points, chances)))


def mean_level(batch):
    images = batch.images
    level = images.reshape(len(images), -1).mean(axis=1, keepdims=True, dtype=np.float64)
    return Estimate(np.zeros((len(images), 0), np.float32), level.astype(np.float32))


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """Let the script score by the mean grey level: accept up to 100, refuse above 140."""

    def load(model, *, detector, batch_size, max_faces, **flags):
        decision = Decision(100.0, 140.0, "as the test says")
        opened = LoadedModel(name=model, estimator=mean_level, decision=decision)
        return Scorer(opened, Marks(), batch_size, max_faces)

    monkeypatch.setattr(job, "load_scorer", load)


def photo(path, faces, size=(160, 140), mode="RGB", **options):
    pixels = np.full((size[1], size[0], 3), 60, np.uint8)
    # the second is the first of a photo turned clockwise
    pixels[0, 0] = pixels[-1, 0] = 20 * faces + 10
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


def score(*arguments):
    return score_images.main([*map(str, arguments), "--model", "fake"])


def read(path):
    """Rows of any of the formats, with None for what is empty."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]
    if path.suffix == ".json":
        return json.loads(path.read_text("utf-8"))["rows"]
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    with path.open(encoding="utf-8", newline="") as file:
        assert file.readline().startswith("# ")
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    """Photos of every kind, named so that their order is that of this function."""
    where = tmp_path / "photos"
    where.mkdir()
    photo(where / "a one.png", 1)
    photo(where / "b three.png", 3)
    photo(where / "c none.png", 0)
    photo(where / "d grey.png", 2, mode="L")
    alpha = Image.open(photo(where / "e alpha.png", 1, mode="RGBA"))
    alpha.putpixel((80, 70), (0, 0, 0, 0))
    alpha.save(where / "e alpha.png")
    deep = np.full((140, 160), 60 * 257, np.uint16)
    deep[0, 0] = 30 * 257
    cv2.imwrite(str(where / "f 16 bit.png"), deep)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    photo(where / "g turned.tif", 0, exif=turned.tobytes())
    photo(where / "h tiny.png", 0, size=(1, 1))
    Image.fromarray(FACES.read(0)).save(where / "i face.png")
    whole = photo(where / "j cut off.png", 1).read_bytes()
    (where / "j cut off.png").write_bytes(whole[: len(whole) // 2])
    (where / "k text.jpg").write_text("no photo")
    (where / "l empty.jpg").touch()
    (where / "notes.txt").write_text("beside")
    return where


def test_every_kind_of_photo_has_its_rows(folder, tmp_path, capsys):
    out = tmp_path / "scores.jsonl"
    assert score(folder, "--out", out) == 0
    said = [
        (row["file"].removeprefix(f"{folder}{os.sep}")[0], row["face"], row["status"], row["note"])
        for row in read(out)
    ]
    assert said[:11] == [
        ("a", 0, "scored", ""),
        *(("b", face, "scored", "") for face in range(3)),
        ("c", -1, "no face", "no face found"),
        *(("d", face, "scored", "grey") for face in range(2)),
        ("e", 0, "scored", said[7][3]),
        ("f", 0, "scored", said[8][3]),
        ("g", -1, "no face", said[9][3]),
        ("h", -1, "no face", "no face found"),
    ]
    assert "transparen" in said[7][3]
    assert "16" in said[8][3]
    assert "rotated" in said[9][3] or "turned" in said[9][3]
    assert said[11] == ("i", 0, "scored", "")
    assert [row[::2] for row in said[12:]] == [(name, "unreadable") for name in "jkl"]
    assert "not an image" in said[13][3]
    assert said[14][3] == "empty file"
    told = capsys.readouterr()
    assert "15 rows: 9 scored, 3 without a face, 3 unreadable" in told.out
    assert f"wrote {out}" in told.out
    assert "skipped 1 file that is not a photo: 1 .txt" in told.err


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_hold_the_same_rows(folder, tmp_path, suffix):
    score(folder, "--out", tmp_path / "reference.jsonl")
    out = tmp_path / "new" / f"scores{suffix}"
    assert score(folder, "--out", out, "--batch_size", 5) == 0
    reference, found = read(tmp_path / "reference.jsonl"), read(out)
    assert len(found) == 15
    if suffix == ".csv":
        reference = [
            {name: "" if value is None else str(value) for name, value in row.items()}
            for row in reference
        ]
    assert found == reference
    assert [*found[0]] == list(COLUMNS)
    assert [entry.name for entry in out.parent.iterdir()] == [out.name]


def test_packs_lists_and_videos(folder, tmp_path):
    write_bin(tmp_path / "set.bin", [FACES.read(row) for row in range(4)], [True, False])
    with RecordWriter(tmp_path / "train") as writer:
        for row in range(3):
            writer.write_image(row, encode_png(FACES.read(row)))
    listed = tmp_path / "list.txt"
    listed.write_text("photos/b three.png\nphotos/not there.png\n")
    inputs = [tmp_path / "set.bin", tmp_path / "train.rec", listed]
    assert score(*inputs, "--out", tmp_path / "out.jsonl") == 0
    rows = read(tmp_path / "out.jsonl")
    found = [(row["file"], row["index"], row["face"], row["status"]) for row in rows]
    photos = tmp_path / "photos"
    assert found == [
        *((str(inputs[0]), row, 0, "scored") for row in range(4)),
        *((str(inputs[1]), row, 0, "scored") for row in range(3)),
        *((str(photos / "b three.png"), None, face, "scored") for face in range(3)),
        (str(photos / "not there.png"), None, -1, "unreadable"),
    ]
    expected = mean_level(Batch(np.stack([FACES.read(row) for row in range(4)]))).sigma_sq[:, 0]
    assert [row["uncertainty"] for row in rows[:4]] == pytest.approx(expected)


def test_every_nth_frame_of_a_video(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (160, 144))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no video")
    for _ in range(7):
        writer.write(np.full((144, 160, 3), 50, np.uint8))
    writer.release()
    assert score(path, "--every", 3, "--out", tmp_path / "out.jsonl") == 0
    rows = read(tmp_path / "out.jsonl")
    assert [(row["index"], row["face"]) for row in rows] == [
        (frame, face) for frame in (0, 3, 6) for face in (0, 1)
    ]


def test_faces_are_the_largest_and_may_be_limited(folder, tmp_path):
    score(folder / "b three.png", "--max_faces", 2, "--out", tmp_path / "out.jsonl")
    rows = read(tmp_path / "out.jsonl")
    assert [row["face"] for row in rows] == [0, 1]
    assert rows[0]["left"] == pytest.approx(REFERENCE[:, 0].min() + 21, abs=0.01)
    assert rows[1]["nose_y"] == pytest.approx(REFERENCE[2, 1] + 14, abs=0.01)
    assert [row["detection"] for row in rows] == [0.9, 0.7]


@pytest.mark.parametrize(("aligned", "status"), [("yes", "scored"), ("no", "no face")])
def test_aligned_may_be_forced(folder, tmp_path, aligned, status):
    files = [folder / "c none.png", folder / "h tiny.png"]
    score(*files, "--aligned", aligned, "--out", tmp_path / "out.jsonl")
    assert [row["status"] for row in read(tmp_path / "out.jsonl")] == [status] * 2


HOSTILE = [
    *(b"new\nline.png", b'"quoted",comma.png', b"carriage\rreturn.png", b"latin \xe9.png"),
    *(b"=SUM(1).png", b"#.png", b" space .png"),
]


@pytest.mark.parametrize("suffix", FORMATS)
def test_hostile_names_go_through_every_format(tmp_path, suffix):
    where = tmp_path / "in"
    where.mkdir()
    for name in HOSTILE:
        Image.fromarray(FACES.read(0)).save(where / os.fsdecode(name))
    out = tmp_path / f"out{suffix}"
    assert score(where, "--out", out) == 0
    names = {row["file"].removeprefix(f"{where}{os.sep}") for row in read(out)}
    plain = {name.decode("utf-8", "surrogateescape") for name in HOSTILE}
    assert names == {name.encode("utf-8", "backslashreplace").decode() for name in plain}


def test_without_out_a_table_is_printed_and_nothing_is_kept(folder, tmp_path, capsys):
    hostile = folder / "m\nn.png"
    photo(hostile, 2)
    before = sorted(tmp_path.rglob("*"))
    assert score(folder) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("# model fake; ")
    assert "accept uncertainty <= 100" in lines[0]
    assert lines[2].split()[1:4] == ["-", "-", "accept"]
    assert float(lines[2].split()[0]) == pytest.approx(60, abs=1)
    assert lines[2].endswith("a one.png  (low contrast; dark)")
    assert "three.png  (" in lines[3]
    assert "three.png face 1  (" in lines[4]
    assert lines[6].split()[3] == "refuse"
    assert lines[6].endswith("c none.png  (no face found)")
    assert "m\\nn.png  (" in lines[-5]
    assert lines[-3] == "17 rows: 11 scored, 3 without a face, 3 unreadable"
    assert lines[-2].startswith("verdicts: ")
    assert lines[-2].endswith(" refuse (6 of them without a usable face)")
    assert lines[-1] == ACCEPTED
    assert sorted(tmp_path.rglob("*")) == before


def pictures(sheet):
    """Name and pixels of the faces on a sheet, in its order."""
    html = sheet.read_text(encoding="utf-8")
    found = re.findall(r'<img[^>]*src="data:image/jpeg;base64,([^"]+)"', html)
    return [decode(base64.b64decode(one)) for one in found]


def test_a_sheet_shows_what_the_model_saw(folder, tmp_path):
    """With `--out` photos are read once more for it: pixels but for the rounding of landmarks."""
    noise = np.random.default_rng(0).integers(0, 255, (35, 40, 3), np.uint8)
    noise = cv2.resize(noise, (160, 140))
    noise[0, 0] = 70
    Image.fromarray(noise).save(folder / "n noise.png")
    score(folder, "--report", tmp_path / "live.html")
    score(folder, "--out", tmp_path / "out.csv", "--report", tmp_path / "folder")
    live, again = tmp_path / "live.html", tmp_path / "folder" / "contact_sheet.html"
    first, second = pictures(live), pictures(again)
    assert len(first) == len(second) == 12
    for one, other in zip(first, second, strict=True):
        apart = np.abs(one.astype(int) - other)
        assert apart.mean() < 0.5
        assert apart.max() <= 8
    plain = [re.sub('base64,[^"]+', "", sheet.read_text("utf-8")) for sheet in (live, again)]
    assert plain[0] == plain[1]
    assert "n noise.png" in plain[0]
    assert ACCEPTED.partition(";")[0].capitalize() in plain[0]


def test_a_sheet_is_written_where_a_photo_has_gone(folder, tmp_path, monkeypatch):
    def gone(out, rows, header):
        write_rows(out, rows, header)
        (folder / "b three.png").unlink()

    monkeypatch.setattr(job, "write_rows", gone)
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in sorted(folder.iterdir())))
    assert score(listed, "--out", tmp_path / "out.csv", "--report", tmp_path / "a.html") == 0
    assert len(pictures(tmp_path / "a.html")) == 9 - 3


def test_a_finished_command_without_its_sheet_says_so(folder, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert score(folder, "--out", out) == 0
    assert score(folder, "--out", out, "--report", tmp_path) == 2
    message = f"{out} is finished, without {tmp_path}/contact_sheet.html: give --restart for both"
    assert message in capsys.readouterr().err
    assert score(folder, "--out", out, "--report", tmp_path, "--restart") == 0
    assert score(folder, "--out", out, "--report", tmp_path) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no such file.png"], "no such input: no such file.png"),
        ([".", "--engine", "ray", "--out", "x.csv"], "--engine ray writes a folder of parts"),
        ([".", "--ray_workers", "2"], "--ray_workers and --ray_address go with --engine ray"),
        ([".", "--out", "scores.xls"], "must end in .csv, .json, .jsonl, .parquet"),
        ([".", "--restart"], "--restart goes with --out"),
        ([".", "--workers", "0"], "'0' is not a whole number above 0"),
        (["empty", "--out", "scores.csv"], "no photos in empty"),
        (["empty"], "no photos in empty"),
        ([".", "--out", "empty.csv"], "names a file, but a folder is there"),
        ([".", "--report", "empty.html"], "names a file, but a folder is there"),
        ([".", "--report", "some.txt"], "names a folder or an .html file, but a file is there"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistakes_are_told_in_one_line(arguments, message, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "empty.csv", "empty.html"):
        (tmp_path / name).mkdir()
    (tmp_path / "some.txt").touch()
    refused(lambda: score(*arguments), message, alone=True)
    assert not (tmp_path / "scores.csv").exists()


def test_progress_knows_the_time_left_when_it_knows_the_total():
    progress = Progress("score", lambda: 100, done=20)
    progress(30)
    progress.add_faces(45)
    assert progress.line(10.0) == "score: 50 images, 45 faces, 3.0 images/s"
    progress.count_total()
    expected = "score: 50 of 100 images (50.0%), 45 faces, 3.0 images/s, 17 s left"
    assert progress.line(10.0) == expected


class Answers:
    """A scorer that costs nothing: one row for each photo."""

    batch_size = 64

    def score_loaded(self, images, aligned):
        sources = tuple(image.source for image in images)
        rows = [FaceScore(image=i, face=0, uncertainty=0.5) for i in range(len(sources))]
        return Scores(tuple(rows), sources)


def resident():
    """Bytes of memory that this process has."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_over_100_000_inputs(tmp_path):
    tiny = Photo(np.zeros((1, 1, 3), np.uint8))
    items = (Item(f"{row}.png", None, None, lambda: tiny) for row in range(100_000))
    parts, options = RowParts(tmp_path / "out.csv", {"a": 1}), ScoreOptions(inputs=[], model="")
    parts.open()
    add_parts(score_chunks(Answers(), islice(items, 5_000), options), parts)
    before = resident()
    add_parts(score_chunks(Answers(), items, options), parts)
    write_rows(parts.out, parts.rows(), {"meaning": "m", "settings": parts.settings})
    grown = resident() - before
    parts.close()
    with parts.out.open("rb") as file:
        assert sum(1 for _ in file) == 100_002
    assert grown < 30e6  # the rows alone are some 200 MB


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "embedding_norm"], "needs a backbone: give backbone_name"),
        (["--model", "demo", "--detector", "mtcn"], "did you mean 'mtcnn'?"),
        (["--model", "demo", "--report", "{file}/sheet.html"], "sheet.html: cannot be written"),
        (["--model", "demo", "--out", "{file}/rows.csv"], "rows.csv: cannot be written there"),
    ],
)
def test_mistakes_in_the_model_or_the_output_come_first(
    flags, message, folder, monkeypatch, refused
):
    monkeypatch.setattr(job, "load_scorer", load_scorer)
    photo = folder / "i face.png"
    code = score_images.main([str(photo), *(flag.format(file=photo) for flag in flags)])
    refused(code, message, alone=True)


def test_one_row_is_one_row():
    summary = Summary()
    summary.add("scored", "")
    assert summary.text() == "1 row: 1 scored, 0 without a face, 0 unreadable\n"

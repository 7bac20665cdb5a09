"""The flat row and its files: order, rounding, hostile names, streaming, whole or not there."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from report.sheet import LANDMARKS, FaceScore, Measures
from scoring import rows as module
from scoring.rows import (
    COLUMNS,
    WORDS,
    arrow_table,
    check_path,
    face_score,
    flat_row,
    plain_text,
    write_rows,
)

FORMATS = [".csv", ".json", ".jsonl", ".parquet"]
HEADER = {"meaning": "model x; larger = less reliable", "settings": "settings 0123", "every": 1}
WHOLE = FaceScore(
    image=7,
    face=1,
    note="grey",
    box=(1.234, 2.0, 30.005, 40.0),
    landmarks=np.arange(10, dtype=np.float32).reshape(5, 2) + np.float32(0.126),
    detection=0.987654321,
    uncertainty=float(np.float32(0.3)),
    quality=42,
    percentile=58.127,
    p_false_non_match=0.0123456789,
    verdict="ask again",
    reasons=("blurred", "small"),
    measures=Measures(sharpness=12.345, brightness=99.0, contrast=20.5, yaw=-3.14159),
)
EMPTY = FaceScore(image=4, status="no face", note="no face found")


def rows(count):
    for number in range(count):
        score = FaceScore(image=number, face=0, uncertainty=number / 8, note='a "b", c\nd')
        yield flat_row(f"{number}.png", number or None, score)


def test_values_of_a_face():
    row = flat_row("a.bin", 3, WHOLE)
    assert tuple(row) == COLUMNS
    assert (row["file"], row["index"], row["face"], row["status"]) == ("a.bin", 3, 1, "scored")
    assert [row["left"], row["bottom"]] == [1.23, 40.0]
    points = [row[f"{name}_{axis}"] for name in LANDMARKS for axis in "xy"]
    assert points == [round(place + 0.13, 2) for place in range(10)]
    assert (row["uncertainty"], row["p_false_non_match"]) == (0.3, 0.0123457)
    assert (row["detection"], row["percentile"]) == (0.9877, 58.13)
    assert (row["verdict"], row["reasons"]) == ("ask again", "blurred; small")
    assert (row["yaw"], row["roll"], row["eye_distance"]) == (-3.14, None, None)


def test_what_is_missing_is_none_and_quality_is_255():
    row = flat_row("a.jpg", None, EMPTY)
    assert tuple(row) == COLUMNS
    assert (row["quality"], row["face"]) == (255, -1)
    assert {name for name in COLUMNS if isinstance(row[name], str)} == set(WORDS)
    assert all(row[name] is None for name in COLUMNS if name not in (*WORDS, "face", "quality"))
    assert flat_row("a", 1, FaceScore(image=0, uncertainty=float("inf")))["uncertainty"] is None


@pytest.mark.parametrize("value", [1e-30, -8.418704, 0.1, 123456.78, 3.4e38])
def test_uncertainty_reads_back_as_the_same_float32(value):
    row = flat_row("a", None, FaceScore(image=0, uncertainty=float(np.float32(value))))
    assert np.float32(row["uncertainty"]) == np.float32(value)


@pytest.mark.parametrize("score", [WHOLE, EMPTY], ids=["face", "no face"])
def test_a_row_turns_back_into_its_face(score):
    row = flat_row("a.jpg", None, score)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    again = face_score(row, 9)
    assert again.image == 9
    assert flat_row("a.jpg", None, again) == row
    assert (again.measures is None) == (score.measures is None)


def test_bytes_that_are_not_text_are_escaped():
    assert plain_text(os.fsdecode(b"caf\xe9 \xc3\xa9.jpg")) == "caf\\udce9 é.jpg"
    assert plain_text('new\nline,"quoted"') == 'new\nline,"quoted"'


def test_without_pyarrow_the_message_has_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        check_path(Path("out.parquet"))


def test_a_table_takes_rows_of_either_kind():
    two = [flat_row("a", 0, WHOLE), flat_row("b", None, EMPTY)]
    table = arrow_table(two, {})
    assert tuple(table.column_names) == COLUMNS
    assert table.to_pylist() == two
    integers = {field.name for field in table.schema if pyarrow.types.is_integer(field.type)}
    assert integers == {"index", "face", "quality"}


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_header_and_rows_are_read_back(tmp_path, suffix, count, monkeypatch):
    monkeypatch.setattr(module, "GROUP", 3)
    path = tmp_path / f"out{suffix}"
    write_rows(path, rows(count), HEADER)
    if suffix == ".json":
        stored = json.loads(path.read_text("utf-8"))
        header, read = stored["header"], stored["rows"]
    elif suffix == ".jsonl":
        first, *others = path.read_text("utf-8").splitlines()
        header, read = json.loads(first)["header"], [json.loads(line) for line in others]
    elif suffix == ".parquet":
        table = parquet.read_table(path)
        assert parquet.ParquetFile(path).num_row_groups == -(-count // 3)
        header = json.loads(table.schema.metadata[b"face-uncertainty"])
        read = table.to_pylist()
    else:
        first = path.read_text("utf-8").splitlines()[:2]
        assert first == [f"# {HEADER['meaning']} [settings 0123]", ",".join(COLUMNS)]
        return
    assert header == HEADER
    assert read == list(rows(count))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failure_leaves_the_old_file(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    path.write_text("old")

    def breaks():
        yield from rows(3)
        raise ValueError("a part is damaged")

    with pytest.raises(ValueError, match="a part is damaged"):
        write_rows(path, breaks(), HEADER)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_header_of_a_csv_is_one_line(tmp_path):
    path = tmp_path / "out.csv"
    write_rows(path, [], {**HEADER, "meaning": "model a\nb; \udcff larger"})
    lines = path.read_text("utf-8").splitlines()
    assert lines == ["# model a b; \\udcff larger [settings 0123]", ",".join(COLUMNS)]


@pytest.mark.parametrize(
    ("name", "message"), [("out.xlsx", "must end in .csv, .json"), ("folder.csv", "a folder is")]
)
def test_other_paths_are_refused(tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=message):
        check_path(tmp_path / name)

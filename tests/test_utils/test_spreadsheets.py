"""Names in CSV files: no spreadsheet runs them, and we read the same names back."""

import csv
import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.extracted import Bad, ShardFolder, bad_images, empty
from report.sheet import FaceScore
from scoring.rows import flat_row, write_rows
from utils.tables import csv_cell, csv_rows, plain_cell, read_table, write_csv, write_table

NAMES = ["=1+1", "+44 1", "-x.jpg", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1", "'=1", "''=1"]
HARMLESS = ["", "-", "=", "-5", "+.5e-3", "-inf", "-3%", "'", "'a", "'-5", "a=1", " x", "3-1"]
LETTERS = st.text(st.sampled_from("'=+-@\t\r\n5.e\uff1d a,\""), max_size=6)


@settings(max_examples=500)
@given(st.lists(LETTERS, min_size=2, max_size=3))
@example([*NAMES, *HARMLESS])
def test_names_come_back_and_none_begins_with_what_acts(tmp_path_factory, names):
    file = tmp_path_factory.getbasetemp() / "names.csv"
    with file.open("w", encoding="utf-8", newline="") as text:
        write_csv(text, [[f"h{place}" for place in range(len(names))], names])
    with file.open(encoding="utf-8", newline="") as text:
        cells = list(csv.reader(text))[1]
    assert list(map(plain_cell, cells)) == names
    assert [row for _, row in csv_rows(file)][1] == names
    for cell in cells:
        assert len(cell) < 2 or cell[0] not in "=@\t\r\n\uff1d"
        assert len(cell) < 2 or cell[0] not in "+-" or float(cell.rstrip("%")) is not None


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_that_parts_cells_elsewhere_meets_no_formula(delimiter):
    text = io.StringIO()
    write_csv(text, [["a;=1+1", 0], ["a\t=1+1", 0]])
    cells = [
        cell
        for row in csv.reader(text.getvalue().splitlines(), delimiter=delimiter)
        for cell in row
    ]
    assert not [cell for cell in cells if cell.startswith("=")]


def test_only_what_could_act_is_changed():
    assert [csv_cell(name) for name in NAMES] == [f"'{name}" for name in NAMES]
    assert [csv_cell(name) for name in HARMLESS] == HARMLESS
    assert [csv_cell(value) for value in (-5, -0.5, None, True)] == [-5, -0.5, None, True]


def test_every_file_of_ours(tmp_path):
    names = [name for name in NAMES if name.strip() == name]
    write_table(tmp_path / "t.csv", {"name": np.array(names), "score": -np.arange(len(names))})
    [chunk] = read_table(tmp_path / "t.csv").chunks(["name", "score"])
    assert chunk["name"].text().to_pylist() == names
    assert chunk["score"].numbers().tolist() == list(range(0, -len(names), -1))

    shards = ShardFolder(tmp_path, "npy", 2, 2, ("x",), "s")
    shard = empty(np.arange(2), 3, 1, "float32")
    bad = [Bad(0, "=1", "@x"), Bad(1, "-1", "-")]
    shards.write(0, shard, bad, {})
    assert bad_images(shards.path(0)) == bad
    shards.join_bad()
    assert [row for _, row in csv_rows(tmp_path / "bad.csv")][1:] == [
        ["0", "=1", "@x"],
        ["1", "-1", "-"],
    ]
    assert "0,'=1,'@x\n1,-1,-\n" in (tmp_path / "bad.csv").read_text()

    header = {"meaning": "m", "settings": "s"}
    rows = [flat_row(name, None, FaceScore(image=0, note="=n")) for name in names]
    write_rows(tmp_path / "s.csv", rows, header)
    [chunk] = read_table(tmp_path / "s.csv").chunks(["file", "note"])
    assert chunk["file"].text().to_pylist() == names
    assert set(chunk["note"].text().to_pylist()) == {"=n"}

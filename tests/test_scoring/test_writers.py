"""Files of rows: whole or not there, streaming, and read by the usual tools."""

import io
import json

import pytest

from evaluation.face_score import FaceScore
from scoring import writers
from scoring.columns import COLUMNS, flat_row
from scoring.writers import check_path, write_rows

FORMATS = [".csv", ".json", ".jsonl", ".parquet"]
HEADER = {"meaning": "model x; larger = less reliable", "settings": "settings 0123", "every": 1}


def needs(suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")


def rows(count):
    for number in range(count):
        score = FaceScore(image=number, face=0, uncertainty=number / 8, note='a "b", c\nd')
        yield flat_row(f"{number}.png", number or None, score)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("count", [0, 1, 7])
def test_header_and_rows_are_read_back(tmp_path, suffix, count, monkeypatch):
    needs(suffix)
    monkeypatch.setattr(writers, "GROUP", 3)
    path = tmp_path / f"out{suffix}"
    write_rows(path, rows(count), HEADER)
    if suffix == ".json":
        stored = json.loads(path.read_text("utf-8"))
        header, found = stored["header"], stored["rows"]
    elif suffix == ".jsonl":
        first, *others = path.read_text("utf-8").splitlines()
        header, found = json.loads(first)["header"], [json.loads(line) for line in others]
    elif suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(path)
        assert parquet.ParquetFile(path).num_row_groups == -(-count // 3)
        header = json.loads(table.schema.metadata[b"face-uncertainty"])
        found = table.to_pylist()
    else:
        first = path.read_text("utf-8").splitlines()[:2]
        assert first[0] == f"# {HEADER['meaning']} [settings 0123]"
        assert first[1] == ",".join(COLUMNS)
        return
    assert header == HEADER
    assert found == list(rows(count))


@pytest.mark.parametrize("suffix", FORMATS)
def test_pandas_reads_them_as_the_page_says(tmp_path, suffix):
    pandas = pytest.importorskip("pandas")
    needs(suffix)
    path = tmp_path / f"out{suffix}"
    write_rows(path, rows(5), HEADER)
    if suffix == ".csv":
        table = pandas.read_csv(path, skiprows=1)
    elif suffix == ".json":
        table = pandas.DataFrame(json.loads(path.read_text("utf-8"))["rows"])
    elif suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            next(file)
            table = pandas.read_json(io.StringIO(file.read()), lines=True)
    else:
        table = pandas.read_parquet(path)
    assert list(table.columns) == list(COLUMNS)
    assert table["uncertainty"].tolist() == [0, 0.125, 0.25, 0.375, 0.5]
    assert table["index"].tolist()[1:] == [1, 2, 3, 4]
    assert table["note"].tolist() == ['a "b", c\nd'] * 5
    assert table["percentile"].isna().all()


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_failure_leaves_the_old_file(tmp_path, suffix):
    needs(suffix)
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
    ("name", "message"),
    [
        ("out.xlsx", r"out.xlsx: must end in .csv, .json, .jsonl, .parquet"),
        ("out", "must end in"),
        ("folder.csv", "names a file, but a folder is there"),
    ],
)
def test_other_paths_are_refused(tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=message):
        check_path(tmp_path / name)

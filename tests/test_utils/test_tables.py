import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from utils import tables
from utils.arrays import npz_names, read_npz
from utils.files import naming
from utils.tables import csv_rows, read_table, write_table

TEXT = 'Name,score \n"a,b",1\n\nü,2.5\n'


def read(table, name="score"):
    return np.concatenate([chunk[name].numbers() for chunk in table.chunks((name,))])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_text_of_any_tool(tmp_path, encoding, separator, end):
    text = TEXT.replace("a,b", "a#b").replace(",", separator).replace("#", ",")
    path = tmp_path / "t.csv"
    path.write_bytes(text.replace("\n", end).encode(encoding))
    table = read_table(path)
    assert table.columns == ["Name", "score"]
    [chunk] = table.chunks(("score", "Name"))
    assert chunk["score"].numbers().tolist() == [1, 2.5]
    assert chunk["Name"].text().to_pylist() == ["a,b", "ü"]
    assert chunk["score"].where(1) == "line 4"
    assert list(csv_rows(path)) == [(1, ["Name", "score "]), (2, ["a,b", "1"]), (4, ["ü", "2.5"])]


def test_a_file_without_heading_and_fields_over_several_lines(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text('c\t 1 \n"a\nb"\t2\n')
    table = read_table(path, is_heading=lambda fields: not fields[1].strip().isdigit())
    assert table.columns == ["field 1", "field 2"]
    assert read(table, "field 2").tolist() == [1, 2]
    assert table.where(1) == "line 3"


@pytest.mark.parametrize("suffix", [".csv", ".npz", ".parquet"])
def test_what_is_written_reads_back(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(tables, "ROWS", 4)
    path = tmp_path / f"t{suffix}"
    score = np.random.default_rng(0).normal(size=10).astype(np.float32)
    columns = {"score": score, "same": score > 0, "key": np.array([f"k{n % 3}" for n in range(10)])}
    metadata = {} if suffix == ".csv" else {"unlisted": 5}
    write_table(path, columns, metadata)
    table = read_table(path)
    assert table.columns == list(columns)
    assert {name: float(table.metadata[name]) for name in metadata} == metadata
    chunks = list(table.chunks(table.columns))
    assert len(chunks) == (1 if suffix == ".npz" else 3)
    for name, values in (
        ("score", [chunk["score"].numbers() for chunk in chunks]),
        ("same", [chunk["same"].flags("") for chunk in chunks]),
        ("key", [chunk["key"].text().to_pylist() for chunk in chunks]),
    ):
        np.testing.assert_array_equal(np.concatenate(values), columns[name])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match=r"t\.csv: CSV cannot hold unlisted"):
        write_table(tmp_path / "t.csv", columns, {"unlisted": 5})
    with pytest.raises(ValueError, match=r"t\.txt: a list ends in \.csv, \.npz or \.parquet"):
        write_table(tmp_path / "t.txt", columns, what="list")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty; its first line must name the columns"),
        ("score\n1\n\nhigh\n", "line 4: score is 'high', which is not a number"),
        ("score\n1\n1_0\n", "line 3: score is '1_0', which is not a number"),
        ("score\n١\n", "line 2: score is '١', which is not a number"),
        ("score,x\n,1\n", "line 2: score is '', which is not a number"),
        ("score\n1\nnan\n", "line 3: score is nan: every row needs a finite number"),
        ("score\n1e60\n", r"line 2: score is 1e\+60: every row needs a finite number"),
        ("score,x\n1,2\n1,2,3\n", "line 3: 3 fields, but the first line has 2"),
        (b"score\n\xff\xfe1\n", "line 2 is not UTF-8"),
        (b"score\n\0\n" + bytes(9), "is not text, or endless|is '.*', which is not a number"),
        ({"score": [0.5, np.nan]}, r"row 1 \(counted from 0\): score is nan"),
        ({"score": [1, 2], "x": [1]}, r"of one length: score \(2,\), x \(1,\)"),
        ({"score": np.ones((3, 2)), "x": [1]}, "arrays must be one-dimensional"),
        ({"score": np.array([1, None], object)}, "array score: it holds pickled objects: refused"),
        ({"x": [1]}, r"no array score \(it has: x\)"),
    ],
)
def test_each_mistake_has_its_place(tmp_path, content, message):
    path = tmp_path / ("t.npz" if isinstance(content, dict) else "t.csv")
    if isinstance(content, dict):
        np.savez(path, **content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def numbers():
        table = read_table(path)
        with naming(path):
            for chunk in table.chunks(("score", *({"x"} & set(table.columns)))):
                chunk["score"].numbers()

    with pytest.raises(ValueError, match=rf"{path.name}.*({message})") as caught:
        numbers()
    assert str(caught.value).count(path.name) == 1


@pytest.mark.parametrize("values", [["0", "TRUE", "2"], np.array([0, 1, 2]), [0.0, 1.0, 0.5]])
def test_flags(tmp_path, values):
    np.savez(tmp_path / "t.npz", same=values)
    [chunk] = read_table(tmp_path / "t.npz").chunks(("same",))
    with pytest.raises(ValueError, match=r"row 2 .*: same is '(2|0\.5)': write 1 or 0"):
        chunk["same"].flags("1 or 0")
    np.savez(tmp_path / "t.npz", same=values[:2])
    [chunk] = read_table(tmp_path / "t.npz").chunks(("same",))
    assert chunk["same"].flags("1 or 0").tolist() == [False, True]


def test_parquet_of_other_tools(tmp_path):
    path = tmp_path / "t.parquet"
    columns = {"score": [0.5, 0.1], "same": [True, False], "key": ["x", "y"]}
    table = pyarrow.table(columns)
    encoded = table.column("key").dictionary_encode()
    pyarrow.parquet.write_table(table.set_column(2, "key", encoded), path)
    [chunk] = read_table(path).chunks(("key", "same"))
    assert chunk["key"].text().to_pylist() == ["x", "y"]
    assert chunk["same"].flags("").tolist() == [True, False]
    pyarrow.parquet.write_table(pyarrow.table({"score": [0.5, None]}), path)
    with pytest.raises(ValueError, match=r"t\.parquet: row 1 \(counted from 0\): score is missing"):
        read(read_table(path))
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ValueError, match=r"t\.parquet: damaged, or not a Parquet file"):
        read_table(path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            lambda: {"score": np.zeros(140_000_000, np.bool_)},
            r"140000000 rows in \d+ bytes: refused",
        ),
        (
            lambda: {"score": pyarrow.DictionaryArray.from_arrays([0] * 1000, ["x" * 1_100_000])},
            r"row 0 .* and on: score has endless text",
        ),
    ],
)
def test_parquet_of_a_few_bytes_that_would_take_gigabytes(tmp_path, columns, message):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns()), path)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ValueError, match=rf"t\.parquet: {message}"):
        read(read_table(path))


def test_arrays_of_any_shape(tmp_path):
    np.savez(tmp_path / "t.npz", mu=np.eye(3), n=5, x=np.array([None]))
    assert npz_names(tmp_path / "t.npz") == ["mu", "n", "x"]
    assert read_npz(tmp_path / "t.npz", ["mu"])["mu"].shape == (3, 3)
    assert read_table(tmp_path / "t.npz").columns == ["mu", "x"]
    (tmp_path / "t.npz").write_text("x")
    with pytest.raises(ValueError, match=r"t\.npz: not an \.npz file"):
        read_table(tmp_path / "t.npz")


def test_no_such_file_or_kind(tmp_path):
    with pytest.raises(ValueError, match=r"no score file .*none\.csv"):
        read_table(tmp_path / "none.csv", "score file")
    (tmp_path / "t.pkl").write_text("x")
    with pytest.raises(ValueError, match=r"t\.pkl: a table ends in .*\.npz or \.parq"):
        read_table(tmp_path / "t.pkl")


def test_without_pyarrow_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "t.parquet").write_text("x")
    for act in (read_table, lambda path: write_table(path, {"x": np.ones(2)})):
        with pytest.raises(ValueError, match=r"t\.parquet: .* pip install pyarrow"):
            act(tmp_path / "t.parquet")

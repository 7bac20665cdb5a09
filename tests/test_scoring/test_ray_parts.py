"""The folder of parts: whole parts, what is missing, and what does not belong together."""

import pytest

from evaluation.face_score import FaceScore
from photos.sources import Item
from scoring._ray_parts import PART_INPUTS, PartFolder
from scoring.columns import flat_row

parquet = pytest.importorskip("pyarrow.parquet")


def inputs(number, prefix="photo"):
    return [Item(f"{prefix}{i}.jpg") for i in range(number)]


def rows_of(items):
    return [
        flat_row(item.file, None, FaceScore(image=0, face=0, uncertainty=i / 8, verdict="accept"))
        for i, item in enumerate(items)
    ]


@pytest.fixture
def folder(tmp_path):
    made = PartFolder(tmp_path / "scores.parquet")
    assert not made.is_finished({"model": "a"})
    return made


def test_parts_that_are_there_are_counted_and_the_others_are_named(folder):
    items = inputs(2 * PART_INPUTS + 3)
    missing = list(folder.missing(iter(items), [].append))
    assert [number for number, _ in missing] == [0, 1, 2]
    assert [item for _, part in missing for item in part] == items
    number, part = missing[1]
    folder.write(number, part, rows_of(part), {"meaning": "m"})
    there = []
    assert [number for number, _ in folder.missing(iter(items), there.append)] == [0, 2]
    assert there == [PART_INPUTS]


def test_a_part_written_twice_is_one_file_of_the_same_bytes(folder):
    items = inputs(5)
    folder.write(0, items, rows_of(items), {"meaning": "m"})
    (file,) = folder.path.glob("part-*")
    before = file.read_bytes()
    folder.write(0, items, rows_of(items), {"meaning": "m"})
    assert [file.read_bytes() for file in folder.path.glob("part-*")] == [before]


def test_readers_take_the_folder_as_one_table(folder):
    items = inputs(4)
    for number in range(2):
        part = items[2 * number :][:2]
        folder.write(number, part, rows_of(part), {"meaning": "m"})
    folder.finish()
    table = parquet.read_table(folder.path)
    assert table["file"].to_pylist() == [item.file for item in items]
    assert table["uncertainty"].to_pylist() == [0, 0.125, 0, 0.125]
    assert list(folder.rows()) == table.to_pylist()
    assert folder.is_finished({"model": "a"})


def test_other_inputs_and_other_settings_are_refused(folder):
    items = inputs(3)
    folder.write(0, items, rows_of(items), {"meaning": "m"})
    with pytest.raises(ValueError, match=r"part-00000000\.parquet: the inputs have changed"):
        list(folder.missing(iter(inputs(3, "other")), [].append))
    with pytest.raises(ValueError, match="begun with another model: give what it was begun with"):
        folder.is_finished({"model": "b"})


def test_a_damaged_part_is_named(folder):
    items = inputs(3)
    folder.write(0, items, rows_of(items), {"meaning": "m"})
    (file,) = folder.path.glob("part-*")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"part-00000000\.parquet is damaged: delete it"):
        list(folder.missing(iter(items), [].append))


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files: name another --out"):
        PartFolder(tmp_path).is_finished({})
    with pytest.raises(ValueError, match=r"notes\.txt is a file; with --engine ray --out names"):
        PartFolder(tmp_path / "notes.txt").is_finished({})


def test_discarding_removes_parts_alone(folder):
    items = inputs(3)
    folder.write(0, items, rows_of(items), {"meaning": "m"})
    folder.finish()
    (folder.path / "notes.txt").write_text("mine")
    folder.discard()
    assert [file.name for file in folder.path.iterdir()] == ["notes.txt"]

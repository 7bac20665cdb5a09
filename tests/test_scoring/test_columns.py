"""The flat row: order, rounding, what is missing, and names of files that are no text."""

import json
import os

import numpy as np
import pytest

from evaluation.face_score import LANDMARKS, FaceScore, Measures
from scoring.columns import (
    COLUMNS,
    COUNTS,
    WORDS,
    arrow_schema,
    face_score,
    flat_row,
    import_pyarrow,
    plain_text,
)


def whole():
    return FaceScore(
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


def test_columns_are_those_of_the_row_in_order():
    assert tuple(flat_row("a.jpg", None, whole())) == COLUMNS
    assert tuple(flat_row("a.jpg", None, FaceScore(image=0))) == COLUMNS


def test_values_of_a_face():
    row = flat_row("a.bin", 3, whole())
    assert (row["file"], row["index"], row["face"], row["status"]) == ("a.bin", 3, 1, "scored")
    assert [row["left"], row["bottom"]] == [1.23, 40.0]
    points = [row[f"{name}_{axis}"] for name in LANDMARKS for axis in "xy"]
    assert points == [round(place + 0.13, 2) for place in range(10)]
    assert row["uncertainty"] == 0.3
    assert np.float32(row["uncertainty"]) == np.float32(0.3)
    assert row["p_false_non_match"] == 0.0123457
    assert (row["detection"], row["percentile"]) == (0.9877, 58.13)
    assert (row["verdict"], row["reasons"]) == ("ask again", "blurred; small")
    assert (row["yaw"], row["roll"], row["eye_distance"]) == (-3.14, None, None)


def test_what_is_missing_is_none_and_quality_is_255():
    row = flat_row("a.jpg", None, FaceScore(image=0, status="no face", note="x"))
    assert row["quality"] == 255
    assert row["face"] == -1
    words = {name for name in COLUMNS if isinstance(row[name], str)}
    assert words == set(WORDS)
    assert all(row[name] is None for name in COLUMNS if name not in (*WORDS, "face", "quality"))


def test_rows_are_plain_json_without_nan():
    for score in (whole(), FaceScore(image=0, uncertainty=float("inf"))):
        row = flat_row("a", 1, score)
        assert json.loads(json.dumps(row, allow_nan=False)) == row


@pytest.mark.parametrize("value", [1e-30, -8.418704, 0.1, 123456.78, 3.4e38])
def test_uncertainty_reads_back_as_the_same_float32(value):
    kept = np.float32(value)
    row = flat_row("a", None, FaceScore(image=0, uncertainty=float(kept)))
    assert np.float32(row["uncertainty"]) == kept


def test_a_row_turns_back_into_its_face():
    for score in (whole(), FaceScore(image=4, status="no face", note="no face found")):
        row = flat_row("a.jpg", None, score)
        again = face_score(row, 9)
        assert again.image == 9
        assert flat_row("a.jpg", None, again) == row
    assert again.landmarks is None
    assert again.measures is None
    assert np.isnan(again.uncertainty)
    assert again.reasons == ()


def test_bytes_that_are_no_text_are_escaped():
    assert plain_text(os.fsdecode(b"caf\xe9 \xc3\xa9.jpg")) == "caf\\udce9 é.jpg"
    assert plain_text("\ud800") == "\\ud800"
    assert plain_text('new\nline,"quoted"') == 'new\nline,"quoted"'


def test_without_pyarrow_the_message_has_the_way_out():
    with pytest.raises(ValueError, match="pip install pyarrow"):
        import_pyarrow("pyarrow.no_such_module")


def test_arrow_schema_takes_rows_of_either_kind():
    pyarrow = pytest.importorskip("pyarrow")
    schema = arrow_schema()
    assert tuple(schema.names) == COLUMNS
    rows = [flat_row("a", 0, whole()), flat_row("b", None, FaceScore(image=1))]
    table = pyarrow.Table.from_pylist(rows, schema=schema)
    assert table.to_pylist() == rows
    integers = {f.name for f in schema if pyarrow.types.is_integer(f.type)}
    assert integers == set(COUNTS)

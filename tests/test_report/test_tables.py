"""Tables of compared methods and of groups of seeds, in every notation."""

import csv
import io
import json
import math

import pytest

from evaluation.comparison import GroupRow, MethodRow, Verdict, ranks
from evaluation.confidence.intervals import Interval
from report.results import group_row_dict, method_row_dict
from report.text import GROUP_HEADER, METHOD_HEADER, aligned, group_table, method_table
from report.words import verdict_sentence

FNMR = (0.05, 0.04, 0.03, 0.02, 0.01)


def method(name, relative, rank, verdict=None, fmr=1e-3):
    return MethodRow(
        set="a_set",
        fmr=fmr,
        method=name,
        realised=(3, 3000),
        fnmr=FNMR,
        relative=relative,
        interval=Interval(relative - 0.1, relative + 0.1),
        rank=rank,
        best_share=0.75,
        verdict=verdict,
    )


def group(name, relatives, rank, verdict=None, fmr=1e-3, orders=1):
    return GroupRow(
        set="a_set",
        fmr=fmr,
        group=name,
        members=tuple(f"{name}-{place}" for place in range(len(relatives))),
        orders=orders,
        fnmr=FNMR,
        relatives=tuple(relatives),
        interval=Interval(0.35, 0.52),
        rank=rank,
        verdict=verdict,
    )


def worse_than_head(name, pairs=0):
    return Verdict(name, "head_1", 0.3, 0.1, Interval(0.05, 0.15), pairs, pairs)


METHODS = [method("head_1", 0.4, 1), method("50% | x", 0.5, 2, worse_than_head("50% | x"))]
GROUPS = [
    group("head_1", (0.4, 0.5, 0.45), 1),
    group("other", (0.6, 0.7), 2, verdict=worse_than_head("other", pairs=6), orders=2),
]
TABLES = pytest.mark.parametrize(
    ("table", "rows", "header", "more", "best"),
    [
        (method_table, METHODS, METHOD_HEADER, method("head_1", 0.3, 1, fmr=1e-4), "0.400"),
        (group_table, GROUPS, GROUP_HEADER, group("head_1", (0.3, 0.4), 1, fmr=1e-4), "0.450"),
    ],
)


def test_ranks_share_the_better_place_and_put_nan_last():
    assert ranks([0.3, 0.1, math.nan, 0.3, 0.2]) == [3, 1, 5, 3, 2]


def test_csv_of_methods_reads_back_with_full_precision():
    line, other = csv.DictReader(io.StringIO(method_table(METHODS, "csv")))
    assert (line["method"], other["method"]) == ("head_1", "50% | x")
    assert (line["false_matches"], line["non_mated"]) == ("3", "3000")
    assert float(line["auerc_relative"]) == 0.4
    assert (float(line["low"]), float(line["high"])) == METHODS[0].interval
    assert [float(line[f"fnmr_at_{share}"]) for share in ("0", "0.1", "0.3")] == [0.05, 0.03, 0.01]
    assert other["verdict"] == verdict_sentence(METHODS[1].verdict)


def test_csv_of_groups_reads_back_with_full_precision():
    line, other = csv.DictReader(io.StringIO(group_table(GROUPS, "csv")))
    assert (line["group"], line["seeds"], line["orders"]) == ("head_1", "3", "1")
    assert line["members"].split() == ["head_1-0", "head_1-1", "head_1-2"]
    assert float(line["mean_auerc_relative"]) == pytest.approx(0.45, abs=1e-15)
    assert float(line["sd"]) == pytest.approx(0.05, abs=1e-15)
    assert [float(line[name]) for name in ("smallest", "largest")] == [0.4, 0.5]
    assert [float(line[name]) for name in ("low", "high")] == [0.35, 0.52]
    assert float(line["mean_fnmr_at_0.05"]) == 0.04
    assert other["verdict"] == verdict_sentence(GROUPS[1].verdict)


def test_text_has_numbers_verdicts_and_what_the_spread_is_of():
    lines = method_table(METHODS, "txt").splitlines()
    assert lines[0] == "a_set, FMR 0.001"
    assert lines[1].index("AUERC30/random") + len("AUERC30/random") == lines[2].index("0.400") + 5
    assert lines[-1] == verdict_sentence(METHODS[1].verdict)
    lines = group_table(GROUPS, "txt").splitlines()
    assert lines[2].split() == (
        ["head_1", "3", "0.0500", "0.0300", "0.0100", "0.450", "[0.350,", "0.520]"]
        + ["0.050", "0.400", "0.500", "1"]
    )
    assert lines[4] == verdict_sentence(GROUPS[1].verdict)
    assert lines[6].startswith("head_1: seeds that share batches and augmentation")
    assert len(lines) == 7
    assert "share batches" not in group_table(GROUPS[1:], "txt")


def test_a_short_row_ends_in_any_text():
    lines = aligned([["name", "a", "bbb"], ["x", "22", "1"], ["longer", "a reason " * 3]])
    assert lines == ["name     a  bbb", "x       22    1", "longer  " + ("a reason " * 3).strip()]


@TABLES
def test_markdown_is_escaped_with_as_many_cells_in_every_line(table, rows, header, more, best):
    lines = [line for line in table(rows, "md").splitlines() if line.startswith("|")]
    assert {len(line.replace("\\|", "").split("|")) for line in lines} == {len(header) + 2}
    assert "head\\_1" in lines[2]


@TABLES
def test_latex_is_escaped_and_marks_the_best(table, rows, header, more, best):
    text = table(rows, "tex")
    assert r"head\_1 & " in text
    assert r"FNMR at 10\%" in text
    assert text.count(rf"\textbf{{{best}}}") == text.count(r"\textbf") == 1
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


@pytest.mark.parametrize("notation", ["txt", "md", "tex"])
@TABLES
def test_each_set_and_fmr_is_a_table_of_its_own(notation, table, rows, header, more, best):
    text = table([*rows, more], notation)
    assert text.count("FMR 0.001") == text.count("FMR 0.0001") == 1


def test_json_has_plain_types_and_no_nan():
    row = method_row_dict(method("a", math.nan, 1))
    assert row["relative"] is None
    assert row["fnmr"]["0.05"] == 0.04
    stored = json.loads(json.dumps(group_row_dict(GROUPS[0]), allow_nan=False))
    assert stored["members"] == ["head_1-0", "head_1-1", "head_1-2"]
    assert (stored["smallest"], stored["largest"]) == (0.4, 0.5)
    nothing = group_row_dict(group("x", (math.nan, math.nan), 1))
    assert nothing["mean"] is nothing["sd"] is nothing["smallest"] is None
    assert nothing["relatives"] == [None, None]

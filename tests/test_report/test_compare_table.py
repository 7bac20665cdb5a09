import csv
import io
import math

import pytest

from evaluation.confidence.intervals import Interval
from report.compare_table import NOTATIONS, Row, ranks


def row(method, relative, rank, verdict="", fmr=1e-3):
    return Row(
        set="a_set",
        fmr=fmr,
        method=method,
        realised=(3, 3000),
        fnmr=(0.05, 0.04, 0.03, 0.02, 0.01),
        relative=relative,
        interval=Interval(relative - 0.1, relative + 0.1),
        rank=rank,
        best_share=0.75,
        verdict=verdict,
    )


ROWS = [row("head_1", 0.4, 1), row("50% | x", 0.5, 2, "head_1 is better than 50% | x")]


def test_ranks_share_the_better_place_and_put_nan_last():
    assert ranks([0.3, 0.1, math.nan, 0.3, 0.2]) == [3, 1, 5, 3, 2]


def test_csv_reads_back_with_full_precision():
    (line, other) = csv.DictReader(io.StringIO(NOTATIONS["csv"](ROWS)))
    assert line["method"] == "head_1"
    assert other["method"] == "50% | x"
    assert (line["false_matches"], line["non_mated"]) == ("3", "3000")
    assert float(line["auerc_relative"]) == 0.4
    assert (float(line["low"]), float(line["high"])) == ROWS[0].interval
    assert [float(line[f"fnmr_at_{share}"]) for share in ("0", "0.1", "0.3")] == [0.05, 0.03, 0.01]
    assert other["verdict"] == ROWS[1].verdict


def test_text_is_aligned_and_ends_with_verdicts():
    lines = NOTATIONS["txt"](ROWS).splitlines()
    assert lines[0] == "a_set, FMR 0.001"
    assert lines[1].index("AUERC30/random") + len("AUERC30/random") == lines[2].index("0.400") + 5
    assert lines[-1] == ROWS[1].verdict


def test_markdown_has_as_many_cells_in_every_line():
    table = [line for line in NOTATIONS["md"](ROWS).splitlines() if line.startswith("|")]
    assert {len(line.replace("\\|", "").split("|")) for line in table} == {12}
    assert "head\\_1" in table[2]


def test_latex_is_escaped_and_marks_the_best():
    text = NOTATIONS["tex"](ROWS)
    assert r"head\_1" in text
    assert r"50\% | x" in text
    assert text.count(r"\textbf{0.400}") == text.count(r"\textbf") == 1
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


@pytest.mark.parametrize("ending", ["txt", "md", "tex"])
def test_each_set_and_fmr_is_a_table_of_its_own(ending):
    text = NOTATIONS[ending]([*ROWS, row("head_1", 0.3, 1, fmr=1e-4)])
    assert text.count("FMR 0.001") == text.count("FMR 0.0001") == 1


def test_json_has_no_nan():
    found = row("a", math.nan, 1).to_dict()
    assert found["relative"] is None
    assert found["fnmr"]["0.05"] == 0.04

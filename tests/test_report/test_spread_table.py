import csv
import io
import json
import math

import pytest

from evaluation.confidence.intervals import Interval
from report.spread_table import HEADER, SPREAD_NOTATIONS, Spread


def spread(group, relatives, rank, *, verdict="", fmr=1e-3, orders=1):
    return Spread(
        set="a_set",
        fmr=fmr,
        group=group,
        members=tuple(f"{group}-{place}" for place in range(len(relatives))),
        orders=orders,
        fnmr=(0.05, 0.04, 0.03, 0.02, 0.01),
        relatives=tuple(relatives),
        interval=Interval(0.35, 0.52),
        rank=rank,
        verdict=verdict,
    )


ROWS = [
    spread("head_1", (0.4, 0.5, 0.45), 1),
    spread("other", (0.6, 0.7), 2, verdict="head_1 is better than other", orders=2),
]


def test_text_has_mean_and_spread_and_says_what_of():
    lines = SPREAD_NOTATIONS["txt"](ROWS).splitlines()
    assert lines[0] == "a_set, FMR 0.001, means over seeds"
    assert lines[2].split() == (
        ["head_1", "3", "0.0500", "0.0300", "0.0100", "0.450", "[0.350,", "0.520]"]
        + ["0.050", "0.400", "0.500", "1"]
    )
    assert lines[1].index(" rank") + len(" rank") == len(lines[2]) == len(lines[3])
    assert lines[4] == "head_1 is better than other"
    assert lines[5].startswith("each row is the mean of its seeds; intervals are over the draws")
    assert lines[6].startswith("head_1: seeds that share batches and augmentation")
    assert len(lines) == 7


def test_independent_runs_are_not_said_to_share_batches():
    text = SPREAD_NOTATIONS["txt"](ROWS[1:])
    assert "share batches" not in text
    some = SPREAD_NOTATIONS["txt"]([spread("some", (0.1, 0.2, 0.3), 1, orders=2)])
    assert "some: seeds that share batches" in some


def test_csv_reads_back_with_full_precision():
    line, other = csv.DictReader(io.StringIO(SPREAD_NOTATIONS["csv"](ROWS)))
    assert (line["group"], line["seeds"], line["orders"]) == ("head_1", "3", "1")
    assert line["members"].split() == ["head_1-0", "head_1-1", "head_1-2"]
    assert float(line["mean_auerc_relative"]) == pytest.approx(0.45, abs=1e-15)
    assert float(line["sd"]) == pytest.approx(0.05, abs=1e-15)
    assert (float(line["smallest"]), float(line["largest"])) == (0.4, 0.5)
    assert (float(line["low"]), float(line["high"])) == (0.35, 0.52)
    assert float(line["mean_fnmr_at_0.05"]) == 0.04
    assert other["verdict"] == ROWS[1].verdict


def test_markdown_and_latex_are_escaped_and_whole():
    table = [line for line in SPREAD_NOTATIONS["md"](ROWS).splitlines() if line.startswith("|")]
    assert {len(line.split("|")) for line in table} == {len(HEADER) + 2}
    assert "head\\_1" in table[2]
    text = SPREAD_NOTATIONS["tex"](ROWS)
    assert r"head\_1 & 3 & " in text
    assert text.count(r"\textbf{0.450}") == text.count(r"\textbf") == 1
    assert r"FNMR at 10\%" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


@pytest.mark.parametrize("ending", ["txt", "md", "tex"])
def test_each_set_and_fmr_is_a_table_of_its_own(ending):
    text = SPREAD_NOTATIONS[ending]([*ROWS, spread("head_1", (0.3, 0.4), 1, fmr=1e-4)])
    assert text.count("FMR 0.001") == text.count("FMR 0.0001") == 1


def test_json_has_plain_types_and_no_nan():
    found = json.loads(json.dumps(ROWS[0].to_dict(), allow_nan=False))
    assert found["fnmr"]["0.05"] == 0.04
    assert found["members"] == ["head_1-0", "head_1-1", "head_1-2"]
    assert (found["smallest"], found["largest"]) == (0.4, 0.5)
    nothing = spread("x", (math.nan, math.nan), 1).to_dict()
    assert nothing["mean"] is nothing["sd"] is nothing["smallest"] is None
    assert nothing["relatives"] == [None, None]

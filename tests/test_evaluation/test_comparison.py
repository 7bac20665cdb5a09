"""Rows of groups of seeds, from draws that are known."""

import csv
import dataclasses
import io
import re

import numpy as np
import pytest

from evaluation.comparison import group_rows, method_rows
from evaluation.confidence.bootstrap import bootstrap
from evaluation.metrics.protocols import find_protocol
from evaluation.run import DISCARDS
from models.seeds import Group
from report.results import group_row_dict, method_row_dict
from report.text import group_table, method_table
from report.words import verdict_sentence
from tests.test_evaluation.factories import doubtful

FMR = 0.05


@pytest.fixture(scope="module")
def draws():
    """Two good seeds, two random ones, and one in between."""
    rng = np.random.default_rng(0)
    comparisons = doubtful(rng)
    noise = {"good-0": 0.02, "bad-0": 9, "good-1": 0.04, "bad-1": 9, "between": 0.3}
    columns = {
        name: (comparisons.uncertainty + amount * rng.normal(size=120)).astype(np.float32)
        for name, amount in noise.items()
    }
    return bootstrap(comparisons, columns, find_protocol("iso29794"), FMR, replicates=60)


GROUPS = (Group("bad", ("bad-0", "bad-1"), 1), Group("good", ("good-0", "good-1"), 2))


def test_means_and_their_interval_are_those_of_the_members(draws):
    first, second = group_rows("made", FMR, draws, GROUPS, None)
    assert (first.group, first.rank, second.group, second.rank) == ("good", 1, "bad", 2)
    rows = {row.method: row for row in method_rows("made", FMR, draws, None)}
    members = [rows["good-0"], rows["good-1"]]
    assert first.relatives == tuple(row.relative for row in members)
    np.testing.assert_allclose(first.fnmr, np.mean([row.fnmr for row in members], axis=0))
    assert first.fnmr[0] == members[0].fnmr[0]  # nothing discarded: one threshold for all
    assert len(first.fnmr) == len(DISCARDS)
    replicates = (draws.relatives["good-0"] + draws.relatives["good-1"]) / 2
    np.testing.assert_allclose(first.interval, np.quantile(replicates, [0.025, 0.975]))
    assert first.interval.low < first.mean < first.interval.high
    assert first.mean == pytest.approx(sum(first.relatives) / 2)
    assert first.deviation == pytest.approx(abs(np.subtract(*first.relatives)) / np.sqrt(2))


@pytest.mark.parametrize("against", [None, "good", "good-1"])
def test_verdicts_are_against_the_best_group_or_the_named_one(draws, against):
    first, second = group_rows("made", FMR, draws, GROUPS, against)
    assert first.verdict is None
    assert verdict_sentence(second.verdict).startswith("good is better than bad at mean AUERC30: -")
    assert verdict_sentence(second.verdict).endswith("; good is ahead in 4 of 4 pairs")
    change = np.mean([draws.areas[one] for one in ("bad-0", "bad-1")], axis=0)
    change = change - np.mean([draws.areas[one] for one in ("good-0", "good-1")], axis=0)
    low = np.quantile(change, 0.025)
    assert low > 0  # as the verdict says


def test_verdicts_against_a_method_without_seeds(draws):
    first, second = group_rows("made", FMR, draws, GROUPS, "between")
    assert verdict_sentence(first.verdict).startswith("good is better than between at mean AUERC30")
    assert verdict_sentence(first.verdict).endswith("; good is ahead in 2 of 2 pairs")
    assert verdict_sentence(second.verdict).endswith("; between is ahead in 2 of 2 pairs")
    (_, second) = group_rows("made", FMR, draws, GROUPS, "bad")
    assert second.verdict is None


def test_pairs_are_those_in_which_the_smaller_mean_is_ahead(draws):
    mixed = (Group("mixed", ("good-0", "bad-0"), 1), Group("between", ("between", "bad-1"), 1))
    first, second = group_rows("made", FMR, draws, mixed, None)
    areas = {one: curve.areas[0.3] for one, curve in draws.curves.items()}
    ahead = sum(areas[a] < areas[b] for a in first.members for b in second.members)
    assert 0 < ahead < 4
    assert verdict_sentence(second.verdict).endswith(
        f"; {first.group} is ahead in {ahead} of 4 pairs"
    )


def test_efficiency_is_in_every_notation_under_nist_alone(draws):
    comparisons = doubtful(np.random.default_rng(0))
    columns = {name: comparisons.uncertainty + np.float32(place) for place, name in enumerate("ab")}
    nist = bootstrap(comparisons, columns, find_protocol("nist"), FMR, replicates=5)
    rows = method_rows("made", FMR, nist, None)
    means = group_rows("made", FMR, nist, [Group("both", ("a", "b"), 1)], None)
    expected = nist.curves["a"].efficiencies(DISCARDS)
    assert rows[0].efficiency == means[0].efficiency == expected
    for table, own in ((method_table, rows), (group_table, means)):
        for notation in ("txt", "md", "tex"):
            cells = re.split(r"[|&\s]+", table(own, notation))
            assert set(cells) >= {f"{value:.2f}" for value in expected.values()}
        (first, *_) = csv.DictReader(io.StringIO(table(own, "csv")))
        for share, value in expected.items():
            assert float(first[f"efficiency_at_{share:g}"]) == pytest.approx(value)
    stored = group_row_dict(means[0])["efficiency"]
    assert stored == method_row_dict(rows[0])["efficiency"]
    assert stored == {f"{share:g}": value for share, value in expected.items()}
    others = method_rows("made", FMR, draws, None)
    assert "efficiency" not in method_table(others, "csv") + method_table(others, "txt")
    assert "efficiency" not in method_row_dict(others[0])


def test_without_any_error_means_are_nan(draws):
    relatives = {name: np.full(4, np.nan) for name in draws.curves}
    curves = {
        name: dataclasses.replace(curve, relative={0.3: float("nan")})
        for name, curve in draws.curves.items()
    }
    none = dataclasses.replace(draws, curves=curves, relatives=relatives)
    (row,) = group_rows("made", FMR, none, GROUPS[:1], None)
    assert np.isnan(row.mean)
    assert np.isnan(row.interval).all()
    assert group_row_dict(row)["mean"] is group_row_dict(row)["interval"][0] is None

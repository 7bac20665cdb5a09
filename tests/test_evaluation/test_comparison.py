"""Rows of groups of seeds, from draws that are known."""

import csv
import dataclasses
import io
import itertools
import re

import numpy as np
import pytest

from evaluation.comparison import (
    Verdict,
    draws_needed,
    group_rows,
    method_rows,
    pairwise_verdicts,
)
from evaluation.confidence.bootstrap import bootstrap, p_value
from evaluation.confidence.intervals import Interval, holm
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
    noise = {"good-0": 0.02, "bad-0": 9, "good-1": 0.04, "bad-1": 9, "between": 0.4}
    columns = {
        name: (comparisons.uncertainty + amount * rng.normal(size=120)).astype(np.float32)
        for name, amount in noise.items()
    }
    return bootstrap(comparisons, columns, find_protocol("iso29794"), FMR, replicates=200)


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


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # by hand: x4, x3, x2, x1
        ([0.2, 0.02, 0.02], [0.2, 0.06, 0.06]),
        ([0.4, 0.9, 0.6], [1, 1, 1]),
        ([0.03], [0.03]),
        ([], []),
    ],
)
def test_holm(p_values, adjusted):
    assert holm(p_values) == pytest.approx(adjusted)


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_what_its_steps_reject(seed):
    p_values = np.random.default_rng(seed).random(12) ** 4
    rejected, left = set(), sorted(range(12), key=p_values.__getitem__)
    while left and p_values[left[0]] * len(left) <= 0.05:  # the rule as Holm states it
        rejected.add(left.pop(0))
    assert {place for place, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


def test_p_values_count_the_draws_on_the_rarer_side():
    assert p_value(np.array([-1, -2, -3, 0.5, np.nan])) == pytest.approx(2 * (1 + 1) / 5)
    assert p_value(np.array([-1.0, -2, -3, 0])) == pytest.approx(2 * (1 + 1) / 5)
    assert p_value(np.zeros(9)) == 1
    assert p_value(-np.ones(99)) == pytest.approx(0.02)


def test_several_verdicts_are_corrected_and_the_table_says_how(draws):
    rows = method_rows("made", FMR, draws, "between")
    verdicts = [row.verdict for row in rows if row.verdict]
    change = {name: draws.areas[name] - draws.areas["between"] for name in draws.curves}
    assert [one.p_value for one in verdicts] == [p_value(change[one.first]) for one in verdicts]
    assert [one.adjusted for one in verdicts] == holm([one.p_value for one in verdicts])
    assert {(one.family, round(one.level, 9)) for one in verdicts} == {(4, 0.05)}
    table = method_table(rows, "txt")
    assert table.count(", by Holm ") == 4
    assert "these are 4 verdicts: " in table
    stored = [method_row_dict(row) for row in rows if row.verdict]
    assert [(one["p_value"], one["p_holm"]) for one in stored] == [one[7:9] for one in verdicts]
    lines = list(csv.DictReader(io.StringIO(method_table(rows, "csv"))))
    assert [line["p_holm"] for line in lines].count("") == 1
    assert float(lines[0]["p_holm"]) == pytest.approx(verdicts[0].adjusted)


def test_holm_only_takes_verdicts_away():
    clear = Verdict("A", "B", 0.3, -0.2, Interval(-0.3, -0.1), p_value=0.02, adjusted=0.06)
    assert verdict_sentence(clear).startswith("A is better than B")  # the only one
    one_of_three = verdict_sentence(clear._replace(family=3))
    assert one_of_three == (
        "A and B cannot be told apart on this set: AUERC30 differs by -.200 [-.300, -.100] "
        "(p 0.02, by Holm 0.06)"
    )
    assert clear._replace(family=3, adjusted=0.05).is_clear
    wide = clear._replace(family=3, adjusted=0.01, interval=Interval(-0.3, 0.1))
    assert not wide.is_clear


def test_all_pairs_share_one_correction_and_need_enough_draws(draws):
    verdicts = pairwise_verdicts(draws)
    assert [one[:2] for one in verdicts] == list(itertools.combinations(draws.curves, 2))
    assert [one.adjusted for one in verdicts] == holm([one.p_value for one in verdicts])
    for count in (2, 9, 190):
        needed = draws_needed(count, 0.95)
        assert 2 * count / (1 + needed) <= 0.05 + 1e-9 < 2 * count / needed + 1e-9
    assert draws_needed(1, 0.95) == 0


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

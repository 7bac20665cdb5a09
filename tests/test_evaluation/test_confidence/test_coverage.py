"""Realised coverage on generated sets; benchmarks/coverage.py has more sets, units and designs."""

import math

import numpy as np
import pytest

from benchmarks.coverage import simulate

SETS = 60
LEVELS = (0.95, 0.8)
# truth()["labelled"] of benchmarks/coverage.py: 200 000 people, 10 M non-mated pairs
TRUE = {
    "FNMR(0)": 0.076848,
    "FNMR(.1)": 0.033557,
    "AUERC30": 0.0085859,
    "AUERC30 / random": 0.37242,
    "difference": -0.0059631,
    "difference / random": -0.25865,
}


@pytest.fixture(scope="module")
def simulated():
    found = {}
    for unit in ("identity", "pair"):
        runs = simulate("labelled", unit, TRUE, SETS, 120, LEVELS)
        held, estimates, widths = zip(*runs, strict=True)
        coverage = {key: np.mean([one[key] for one in held]) for key in held[0]}
        ratio = {
            name: np.mean([one[name] for one in widths])
            / (2 * 1.96 * np.std([one[name] for one in estimates]))
            for name in TRUE
        }
        found[unit] = coverage, ratio
    return found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", TRUE)
def test_intervals_by_identity_hold_the_truth_as_often_as_they_say(simulated, name, level):
    coverage, _ = simulated["identity"]
    error = math.sqrt(level * (1 - level) / SETS)
    assert abs(coverage[name, level] - level) < 3 * error


@pytest.mark.parametrize("name", TRUE)
def test_intervals_by_identity_are_as_wide_as_the_estimates_spread(simulated, name):
    _, ratio = simulated["identity"]
    assert abs(ratio[name] - 1) < 3 / math.sqrt(2 * SETS)


def test_intervals_by_pair_are_too_narrow_where_pairs_share_people(simulated):
    coverage, ratio = simulated["pair"]
    for name in ("FNMR(0)", "FNMR(.1)", "AUERC30"):
        assert coverage[name, 0.8] < 0.8 - 3 * math.sqrt(0.8 * 0.2 / SETS)
        assert ratio[name] < 0.75

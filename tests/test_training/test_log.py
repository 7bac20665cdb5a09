"""The line of the original, and warnings where a head no longer tells images apart."""

import re

import pytest
import torch
from scipy.stats import spearmanr

from training.log import (
    CollapseDetector,
    format_line,
    format_stat,
    rank_correlation,
    stats_as_numbers,
)


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("cos", [0.6, 0.88, 0.26], " cos 0.58 0.88 0.26"),
        ("sigma", [0.001, 0.002, 0.003], " sigma 2.0e-03 3.0e-03 1.0e-03"),
        ("sigma", [0.01, 0.01], " sigma 1.0e-02 1.0e-02 1.0e-02"),
        ("uloss", 0.5616, " uloss 0.562"),
        ("uloss", -1.7366, " uloss -1.737"),
    ],
)
def test_the_original_rounding(name, values, text):
    assert format_stat(name, torch.tensor(values, dtype=torch.float64)) == text


def test_a_line_has_the_form_of_the_original():
    stats = {"cos": torch.tensor([0.55, 1.0, 0.18]), "uloss": torch.tensor(0.535)}
    line = format_line(0, 100, 0.535, 1e-2, stats, 3.14)
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[0-100\] \| loss 0\.535 lr0\.01 "
        r"cos 0\.58 1\.00 0\.18 uloss 0\.535 mem 3\.1 G",
        line,
    )


def test_numbers_are_unrounded():
    numbers = stats_as_numbers({"cos": torch.tensor([0.25, 0.75]), "uloss": torch.tensor(0.125)})
    assert numbers == {"cos": [0.5, 0.75, 0.25], "uloss": 0.125}


def faces(seed=0, classes=4, images=6):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(images)
    mu = torch.nn.functional.normalize(torch.randn(len(labels), 16, generator=generator))
    return mu, labels, torch.rand(len(labels), generator=generator)


def test_rank_correlation_is_spearman_over_genuine_pairs():
    mu, labels, uncertainty = faces()
    pair, hardness = [], []
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            if labels[i] == labels[j]:
                pair.append(max(float(uncertainty[i]), float(uncertainty[j])))
                hardness.append(1 - float(mu[i] @ mu[j]))
    expected = spearmanr(pair, hardness).statistic
    assert rank_correlation(uncertainty, mu, labels) == pytest.approx(expected, abs=1e-12)


def test_all_tied_has_no_rank():
    mu, labels, uncertainty = faces()
    assert rank_correlation(torch.ones_like(uncertainty), mu, labels) == 0.0


def test_a_healthy_head_gives_no_warning():
    detector = CollapseDetector(window=3)
    assert [detector.check(torch.rand(80), 0.3) for _ in range(6)] == [[]] * 6


@pytest.mark.parametrize(
    ("uncertainty", "message"),
    [
        (torch.linspace(1e-9, 1e-7, 80), "100% of the uncertainties are below 1e-06"),
        (torch.full((80,), 0.3), "same uncertainty"),
    ],
)
def test_what_is_wrong_with_one_batch(uncertainty, message):
    (warning,) = CollapseDetector().check(uncertainty, 0.3)
    assert message in warning


def test_lost_ranking_is_judged_over_the_whole_window_only():
    detector = CollapseDetector(window=3)
    *before, (warning,) = [detector.check(torch.rand(80), rank) for rank in (0.0, 0.01, 0.02)]
    assert before == [[], []]
    assert "Spearman 0.01 over the last 3 log lines" in warning

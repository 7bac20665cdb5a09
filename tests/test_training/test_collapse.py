import pytest
import torch
from scipy.stats import spearmanr

from training.log import CollapseDetector, rank_correlation


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

"""IDQ against recorded numbers, a double loop, its optimum, and saturated qualities."""

import math

import numpy as np
import pytest
import torch

from losses.idq import IDQLoss


@pytest.mark.parametrize(
    ("tag", "head", "options"),
    [
        ("idq_soft_s16_m045", "u_prob", {}),
        ("idq_hard_s16_m045", "u_prob", {"target": "hard"}),
        ("idq_soft_s16_m040", "u_prob", {"margin": 0.4}),
        ("idq_soft_4col", "u_prob4", {}),
    ],
)
def test_recorded_numbers(golden, tag, head, options):
    golden.check(IDQLoss(**options), tag, golden.tensor(head), torch.logit)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_double_loop(make_batch, loops, target):
    embedding, raw, labels = make_batch(2, [0, 1, 0, 1, 0, 2], dimension=5, columns=1)
    mu, pairs = loops(embedding, labels)
    quality = 1 / (1 + np.exp(raw.numpy()[:, 0]))
    terms = []
    for i, j in pairs:
        cosine = mu[i] @ mu[j]
        aim = float(cosine > 0.6) if target == "hard" else 1 / (1 + math.exp(-7 * (cosine - 0.6)))
        lower = min(quality[i], quality[j])
        terms.append(-aim * math.log(lower) - (1 - aim) * math.log(1 - lower))
    loss = IDQLoss(scale=7.0, margin=0.6, target=target)(embedding, raw, labels).loss
    assert loss.item() == pytest.approx(np.mean(terms))


def test_hard_target_is_strict():
    loss = IDQLoss(margin=1.0, target="hard")
    result = loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.zeros(2, 1), torch.tensor([0, 0]))
    assert result.stats["t_soft"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "logits"),
    [("idq_saturated_conf_1.0_offdiag_diag", [-200, -200]), ("idq_saturated_conf_0.0", [200, 0])],
)
def test_saturated_quality_is_finite_where_the_original_was_not(golden, name, logits):
    case = golden.numbers["edge_cases"][name]
    assert case["loss"] == "inf"
    rest = torch.logit(torch.tensor(case["head"][2:]))
    raw = torch.cat([torch.tensor(logits)[:, None], rest]).requires_grad_()
    result = IDQLoss()(torch.tensor(case["mu"]), raw, torch.tensor(case["label"]))
    result.loss.backward()
    assert math.isfinite(result.loss.item())
    assert torch.isfinite(raw.grad).all()
    # The image of the other pair keeps the gradient that the original recorded for it.
    uncertainty = case["head"][3][0]
    chain = uncertainty * (1 - uncertainty)
    assert raw.grad[3].item() == pytest.approx(float(case["grad"][3]) * chain, abs=1e-6)


def test_saturated_quality_still_learns():
    embedding = torch.tensor([[1.0, 0.0], [0.9, 0.5]])
    raw = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    IDQLoss()(embedding, raw, torch.tensor([0, 0])).loss.backward()
    assert raw.grad[0].item() == pytest.approx(1.0, abs=1e-2)


def test_equal_qualities_share_the_gradient_as_recorded(golden):
    golden.check_tie(IDQLoss(), "idq_equal_conf_tie_of_min")


def test_optimum_is_the_mean_target_over_the_pairs_of_the_lower_quality_image(minimise):
    angles = torch.tensor([0.0, 0.9, 1.05, 1.3], dtype=torch.float64)
    embedding = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Image 0 always has the lower quality: the others start, and stay, near quality 1.
    raw = torch.tensor([[2.0], [-40.0], [-40.0], [-40.0]])
    quality = 1 - torch.sigmoid(minimise(IDQLoss(), embedding, raw, lr=4.0, steps=400)[0])
    targets = torch.sigmoid(16 * (angles[1:].cos() - 0.45))
    assert 0.1 < targets.mean() < 0.9
    assert quality.item() == pytest.approx(targets.mean().item(), abs=1e-6)

"""IDQ against recorded numbers, a double loop, its optimum, and saturated qualities."""

from __future__ import annotations

import math

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
def test_recorded_numbers(golden, check_golden, tag, head, options):
    check_golden(IDQLoss(**options), tag, golden.tensor(head), torch.logit)


@pytest.mark.parametrize("target", ["soft", "hard"])
def test_double_loop(make_batch, target):
    embedding, raw, labels = make_batch(2, [0, 1, 0, 1, 0, 2], dimension=5, columns=1)
    mu = embedding / embedding.norm(dim=1, keepdim=True)
    quality = [1 / (1 + math.exp(value)) for value in raw[:, 0].tolist()]
    terms = []
    for i in range(6):
        for j in range(6):
            if i != j and labels[i] == labels[j]:
                cosine = float(mu[i] @ mu[j])
                wanted = 1 / (1 + math.exp(-7 * (cosine - 0.6)))
                if target == "hard":
                    wanted = 1.0 if cosine > 0.6 else 0.0
                pair = min(quality[i], quality[j])
                terms.append(-wanted * math.log(pair) - (1 - wanted) * math.log(1 - pair))
    loss = IDQLoss(scale=7.0, margin=0.6, target=target)(embedding, raw, labels).loss
    assert loss.item() == pytest.approx(sum(terms) / len(terms))


def test_hard_target_is_strict():
    same_direction = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    result = IDQLoss(margin=1.0, target="hard")(
        same_direction, torch.zeros(2, 1), torch.tensor([0, 0])
    )
    assert result.stats["t_soft"].tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "logits"),
    [
        ("idq_saturated_conf_1.0_offdiag_diag", [-200.0, -200.0]),
        ("idq_saturated_conf_0.0", [200.0, 0.0]),
    ],
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
    case = golden.numbers["edge_cases"]["idq_equal_conf_tie_of_min"]
    head = torch.tensor(case["head"], dtype=torch.float64, requires_grad=True)
    result = IDQLoss()(
        torch.tensor(case["mu"], dtype=torch.float64),
        torch.logit(head),
        torch.tensor(case["label"]),
    )
    result.loss.backward()
    assert result.loss.item() == pytest.approx(float(case["loss"]), abs=1e-6)
    assert head.grad[:, 0].tolist() == pytest.approx([float(g) for g in case["grad"]], abs=1e-6)


def test_optimum_is_the_mean_target_over_the_pairs_of_the_poorer_image():
    angles = torch.tensor([0.0, 0.9, 1.05, 1.3], dtype=torch.float64)
    embedding = torch.stack([angles.cos(), angles.sin()], dim=1)
    # Image 0 is always the poorer one: the others start, and stay, near quality 1.
    raw = torch.tensor([[2.0], [-40.0], [-40.0], [-40.0]], dtype=torch.float64)
    poor = raw[:1].clone().requires_grad_()
    optimizer = torch.optim.SGD([poor], lr=4.0)
    for _ in range(400):
        optimizer.zero_grad()
        result = IDQLoss()(embedding, torch.cat([poor, raw[1:]]), torch.zeros(4))
        result.loss.backward()
        optimizer.step()
    targets = torch.sigmoid(16 * (angles[1:].cos() - 0.45))
    assert 0.1 < targets.mean() < 0.9
    assert (1 - torch.sigmoid(poor)).item() == pytest.approx(targets.mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scale": 0.0}, "scale = 0.0: must be above 0"),
        ({"scale": math.inf}, "scale = inf: must be above 0"),
        ({"margin": 1.5}, r"margin = 1.5: must be a cosine, in \[-1, 1\]"),
        ({"target": "firm"}, "target = 'firm': must be 'soft' or 'hard'"),
    ],
)
def test_refused_options(options, text):
    with pytest.raises(ValueError, match=f"losses.idq: {text}"):
        IDQLoss(**options)

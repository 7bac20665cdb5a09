"""PCNet against recorded numbers, a double loop, and where its gradient goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from losses.pcnet import PCNetLoss


@pytest.mark.parametrize(("tag", "head"), [("pc_L2", "u_prob"), ("pc_L2_4col", "u_prob4")])
def test_recorded_numbers(golden, check_golden, tag, head):
    check_golden(PCNetLoss(), tag, golden.tensor(head), torch.logit)


def test_double_loop(make_batch):
    embedding, raw, labels = make_batch(1, [0, 0, 0, 1, 2, 2], dimension=6, columns=1)
    mu = embedding.numpy() / np.linalg.norm(embedding.numpy(), axis=1, keepdims=True)
    quality = 1 - 1 / (1 + np.exp(-raw.numpy()[:, 0]))
    terms = [
        (mu[i] @ mu[j] - min(quality[i], quality[j])) ** 2
        for i in range(6) for j in range(6) if i != j and labels[i] == labels[j]
    ]  # fmt: skip
    assert len(terms) == 8
    assert PCNetLoss()(embedding, raw, labels).loss.item() == pytest.approx(np.mean(terms))


def test_equal_qualities_share_the_gradient_as_recorded(golden):
    case = golden.numbers["edge_cases"]["pc_equal_conf_tie_of_min"]
    head = torch.tensor(case["head"], dtype=torch.float64, requires_grad=True)
    result = PCNetLoss()(
        torch.tensor(case["mu"], dtype=torch.float64),
        torch.logit(head),
        torch.tensor(case["label"]),
    )
    result.loss.backward()
    assert result.loss.item() == pytest.approx(float(case["loss"]), abs=1e-6)
    assert head.grad[:, 0].tolist() == pytest.approx([float(g) for g in case["grad"]], abs=1e-6)


def test_one_pair_among_singletons_as_recorded(golden):
    case = golden.numbers["edge_cases"]["pc_singletons_and_one_pair"]
    raw = torch.logit(torch.tensor(case["head"], dtype=torch.float64))
    result = PCNetLoss()(
        torch.tensor(case["mu"], dtype=torch.float64), raw, torch.tensor(case["label"])
    )
    assert result.loss.item() == pytest.approx(float(case["loss"]), abs=1e-6)
    assert result.stats["cos"].shape == (1,)


def test_only_the_poorer_image_gets_a_gradient():
    raw = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    embedding = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    PCNetLoss()(embedding, raw, torch.tensor([7, 7])).loss.backward()
    assert raw.grad[0].item() != 0
    assert raw.grad[1].item() == 0


def test_optimum_is_quality_equal_to_cosine():
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    raw = torch.full((2, 1), -0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([raw], lr=5.0)
    for _ in range(300):
        optimizer.zero_grad()
        PCNetLoss()(embedding, raw, torch.tensor([0, 0])).loss.backward()
        optimizer.step()
    quality = 1 - torch.sigmoid(raw.detach())
    assert quality.min().item() == pytest.approx(0.8, abs=1e-6)

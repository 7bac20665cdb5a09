"""PCNet against recorded numbers, a double loop, and where its gradient goes."""

import numpy as np
import pytest
import torch

from losses.pcnet import PCNetLoss


@pytest.mark.parametrize(("tag", "head"), [("pc_L2", "u_prob"), ("pc_L2_4col", "u_prob4")])
def test_recorded_numbers(golden, tag, head):
    golden.check(PCNetLoss(), tag, golden.tensor(head), torch.logit)


def test_double_loop(make_batch, loops):
    embedding, raw, labels = make_batch(1, [0, 0, 0, 1, 2, 2], dimension=6, columns=1)
    mu, pairs = loops(embedding, labels)
    quality = 1 - 1 / (1 + np.exp(-raw.numpy()[:, 0]))
    terms = [(mu[i] @ mu[j] - min(quality[i], quality[j])) ** 2 for i, j in pairs]
    assert len(terms) == 8
    assert PCNetLoss()(embedding, raw, labels).loss.item() == pytest.approx(np.mean(terms))


def test_equal_qualities_share_the_gradient_as_recorded(golden):
    golden.check_tie(PCNetLoss(), "pc_equal_conf_tie_of_min")


def test_one_pair_among_singletons_as_recorded(golden):
    case = golden.numbers["edge_cases"]["pc_singletons_and_one_pair"]
    raw = torch.logit(torch.tensor(case["head"], dtype=torch.float64))
    mu = torch.tensor(case["mu"], dtype=torch.float64)
    result = PCNetLoss()(mu, raw, torch.tensor(case["label"]))
    assert result.loss.item() == pytest.approx(float(case["loss"]), abs=1e-6)
    assert result.stats["cos"].shape == (1,)


def test_only_the_lower_quality_image_gets_a_gradient():
    raw = torch.tensor([[2.0], [-1.0]], requires_grad=True)
    embedding = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    PCNetLoss()(embedding, raw, torch.tensor([7, 7])).loss.backward()
    assert raw.grad[0].item() != 0
    assert raw.grad[1].item() == 0


def test_optimum_is_quality_equal_to_cosine(minimise):
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    raw = minimise(PCNetLoss(), embedding, torch.full((2, 1), -0.3, dtype=torch.float64), lr=5.0)
    assert (1 - torch.sigmoid(raw)).min().item() == pytest.approx(0.8, abs=1e-6)

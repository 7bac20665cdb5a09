"""Genuine pairs, quality logits, the sum of log variances, and what the base class refuses."""

import math

import pytest
import torch

from losses.base import genuine_pairs, log_variance_sum, quality_logit
from losses.pcnet import PCNetLoss
from utils.config import Method
from utils.methods import build


def test_pairs_are_those_of_a_double_loop():
    labels = [4, 1, 4, 2, 1, 4, 9, 1]
    expected = [
        (i, j) for i in range(len(labels)) for j in range(i + 1, len(labels))
        if labels[i] == labels[j]
    ]  # fmt: skip
    first, second = genuine_pairs(torch.tensor(labels))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


def test_no_genuine_pair_is_an_error_with_the_way_out():
    text = "no genuine pair in a batch of 3 images: no label has two images; give images_per_class"
    with pytest.raises(ValueError, match=text):
        genuine_pairs(torch.tensor([0, 1, 2]))


def test_shapes_that_do_not_belong_together_are_named():
    with pytest.raises(ValueError, match=r"got \(4, 8\), \(3, 1\) and \(4,\)"):
        PCNetLoss()(torch.zeros(4, 8), torch.zeros(3, 1), torch.zeros(4, dtype=torch.int64))


def test_quality_logit_of_several_columns_is_that_of_the_mean_quality():
    raw = torch.tensor([[0.3, -2.0, 1.5], [4.0, 4.0, 4.0]], dtype=torch.float64)
    quality = (1 - torch.sigmoid(raw)).mean(dim=1)
    torch.testing.assert_close(quality_logit(raw), torch.logit(quality))


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_quality_logit_stays_finite_where_the_probability_rounds(columns, extreme):
    raw = torch.full((2, columns), extreme, requires_grad=True)
    logit = quality_logit(raw)
    torch.testing.assert_close(logit, torch.full((2,), -extreme), rtol=1e-3, atol=0)
    logit.sum().backward()
    assert torch.isfinite(raw.grad).all()


def test_log_variance_sum_has_the_floor_and_does_not_overflow():
    first = torch.tensor([0.0, 900.0, -900.0], dtype=torch.float64)
    second = torch.tensor([math.log(3), -900.0, -900.0], dtype=torch.float64)
    expected = [math.log(4 + 1e-10), 900.0, math.log(1e-10)]
    assert log_variance_sum(first, second).tolist() == pytest.approx(expected, rel=1e-12)


def test_copies_of_one_image_are_not_a_pair():
    labels = torch.tensor([0, 0, 0, 1, 1])
    rows = torch.tensor([7, 7, 3, 9, 8])
    first, second = genuine_pairs(labels, rows)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 2), (1, 2), (3, 4)]
    with pytest.raises(ValueError, match="no label has two images"):
        genuine_pairs(torch.tensor([0, 0]), torch.tensor([5, 5]))


@pytest.mark.parametrize("name", ["pcnet", "idq", "fast_mls"])
def test_a_loss_without_copies_is_the_mean_over_the_other_pairs(name):
    generator = torch.Generator().manual_seed(0)
    loss = build("losses", Method(name))
    embedding = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    raw = torch.randn(4, 1, generator=generator, dtype=torch.float64)
    labels, rows = torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 2, 2])
    apart = [(0, 2), (0, 3), (1, 2), (1, 3)]
    pairs = [loss(embedding[list(pair)], raw[list(pair)], labels[:2]).loss for pair in apart]
    expected = torch.stack(pairs).mean()
    torch.testing.assert_close(loss(embedding, raw, labels, rows).loss, expected)

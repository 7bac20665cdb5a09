"""FastMLS against recorded numbers, loops for each of its terms, its optimum and extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from losses.fast_mls import FastMLSLoss


def test_recorded_numbers_on_the_log_variance(golden, check_golden):
    log_sigma = golden.tensor("sigma_1").log()
    check_golden(FastMLSLoss(), "fast_mls_on_log_sigma", log_sigma, lambda raw: raw)


def test_recorded_numbers_of_the_double_exponential(golden, check_golden):
    # The original hands exp(log variance) to a loss that takes the exponential again.
    sigma = golden.tensor("sigma_1")
    check_golden(FastMLSLoss(), "fast_mls_on_head_output", sigma, lambda raw: raw)


def _variance_and_cosine(embedding, raw):
    mu = embedding.numpy() / np.linalg.norm(embedding.numpy(), axis=1, keepdims=True)
    return np.exp(raw.numpy()[:, 0]), mu @ mu.T


def test_double_loop(make_batch):
    embedding, raw, labels = make_batch(3, [0, 0, 1, 1, 1], dimension=7, columns=1)
    variance, cosine = _variance_and_cosine(embedding, raw)
    terms = []
    for i in range(5):
        for j in range(5):
            if i != j and labels[i] == labels[j]:
                total = variance[i] + variance[j]
                terms.append(2 * (1 - cosine[i, j]) / total + math.log(total))
    loss = FastMLSLoss()(embedding, raw, labels).loss
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-9)


@pytest.mark.parametrize(("constraint", "tag"), [("l1", "constraint_L1"), ("l2", "constraint_L2")])
def test_output_constraint_as_recorded(golden, constraint, tag):
    # Recorded for 16 columns, each with its own batch mean; this loss takes one at a time.
    embedding, labels = golden.tensor("mu"), golden.tensor("label")
    plain = FastMLSLoss()
    with_term = FastMLSLoss(output_constraint=1.0, constraint=constraint)
    terms = [
        (with_term(embedding, raw, labels).loss - plain(embedding, raw, labels).loss).item()
        for raw in golden.tensor("sigma_16").log().split(1, dim=1)
    ]
    assert np.mean(terms) == pytest.approx(golden.numbers[tag]["loss"], abs=1e-6)


def test_output_constraint_stops_the_gradient_of_the_mean(make_batch):
    embedding, raw, labels = make_batch(4, [0, 0, 1, 1], dimension=4, columns=1)
    raw.requires_grad_()
    plain, with_term = FastMLSLoss(), FastMLSLoss(output_constraint=0.5)
    difference = with_term(embedding, raw, labels).loss - plain(embedding, raw, labels).loss
    (gradient,) = torch.autograd.grad(difference, raw)
    variance = raw.detach().exp()
    ratio = variance / variance.mean()
    torch.testing.assert_close(gradient, 0.5 * torch.sign(ratio - 1) * ratio / 4)


def test_triplet_term_is_that_of_a_triple_loop(make_batch):
    labels = [0, 0, 0, 1, 1, 2, 2, 3]
    embedding, raw, label = make_batch(5, labels, dimension=3, columns=1)
    variance, cosine = _variance_and_cosine(embedding, raw)
    distance = 2 * (1 - cosine) / (variance[:, None] + variance[None, :])
    hinges = []
    for anchor in range(8):
        for positive in range(8):
            if anchor == positive or labels[anchor] != labels[positive]:
                continue
            for negative in range(8):
                gap = distance[anchor, negative] - distance[anchor, positive]
                if labels[negative] != labels[anchor] and 0 < gap < 0.7:
                    hinges.append(0.7 - gap)
    assert 5 < len(hinges) < 50
    plain = FastMLSLoss()(embedding, raw, label).loss
    total = FastMLSLoss(triplet=0.25, triplet_margin=0.7)(embedding, raw, label).loss
    assert (total - plain).item() == pytest.approx(0.25 * np.mean(hinges), rel=1e-7)


def test_triplet_gradient_is_that_of_finite_differences(make_batch):
    embedding, raw, labels = make_batch(6, [0, 0, 1, 1, 2, 2], dimension=3, columns=1)
    loss = FastMLSLoss(triplet=0.3, output_constraint=0.0)
    assert torch.autograd.gradcheck(
        lambda values: loss(embedding, values, labels).loss, raw.requires_grad_()
    )


def test_without_a_semi_hard_triplet_the_term_is_zero(make_batch):
    embedding, raw, _ = make_batch(7, [0, 0, 0, 0], dimension=3, columns=1)
    one_class = torch.zeros(4, dtype=torch.int64)
    raw.requires_grad_()
    plain = FastMLSLoss()(embedding, raw, one_class).loss
    total = FastMLSLoss(triplet=1.0)(embedding, raw, one_class).loss
    assert total.item() == plain.item()
    total.backward()
    assert torch.isfinite(raw.grad).all()


def test_terms_that_look_across_classes_need_the_whole_batch():
    assert not FastMLSLoss().needs_whole_batch
    assert FastMLSLoss(triplet=1e-3).needs_whole_batch
    assert FastMLSLoss(output_constraint=1e-3).needs_whole_batch


def test_optimum_is_the_squared_distance():
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    raw = torch.tensor([[0.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([raw], lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        FastMLSLoss()(embedding, raw, torch.tensor([3, 3])).loss.backward()
        optimizer.step()
    assert raw.exp().sum().item() == pytest.approx(2 * (1 - 0.8), rel=1e-6)


@pytest.mark.parametrize("extreme", [-500.0, 80.0])
def test_extreme_log_variances_are_finite(extreme):
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    raw = torch.full((2, 1), extreme, requires_grad=True)
    result = FastMLSLoss()(embedding, raw, torch.tensor([0, 0]))
    result.loss.backward()
    assert math.isfinite(result.loss.item())
    assert torch.isfinite(raw.grad).all()


def test_two_copies_of_an_image_do_not_drive_the_loss_below_the_floor():
    embedding = torch.tensor([[0.3, 0.4, 0.1]]).repeat(2, 1)
    loss = FastMLSLoss()(embedding, torch.full((2, 1), -500.0), torch.tensor([0, 0])).loss
    assert loss.item() >= math.log(1e-10) - 1e-4


def test_more_than_one_column_is_refused():
    with pytest.raises(ValueError, match=r"head gives 4: set dim=1 .* use the loss 'mls'"):
        FastMLSLoss()(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"output_constraint": -1.0}, "output_constraint = -1.0: must be at least 0"),
        ({"triplet": math.nan}, "triplet = nan: must be at least 0"),
        ({"constraint": "L1"}, "constraint = 'L1': must be 'l1' or 'l2'"),
        ({"triplet_margin": 0.0}, "triplet_margin = 0.0: must be above 0"),
    ],
)
def test_refused_options(options, text):
    with pytest.raises(ValueError, match=f"losses.fast_mls: {text}"):
        FastMLSLoss(**options)

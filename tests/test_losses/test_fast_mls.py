"""FastMLS against recorded numbers, loops for each of its terms, its optimum and extremes."""

import math

import numpy as np
import pytest
import torch

from losses.fast_mls import FastMLSLoss
from losses.mls import MLSLoss


@pytest.mark.parametrize(
    ("tag", "of_sigma"),
    [
        ("fast_mls_on_log_sigma", torch.log),
        # The original hands exp(log variance) to a loss that takes the exponential again.
        ("fast_mls_on_head_output", lambda sigma: sigma),
    ],
)
def test_recorded_numbers(golden, tag, of_sigma):
    golden.check(FastMLSLoss(), tag, of_sigma(golden.tensor("sigma_1")), lambda raw: raw)


def test_double_loop(make_batch, loops):
    embedding, raw, labels = make_batch(3, [0, 0, 1, 1, 1], dimension=7, columns=1)
    mu, pairs = loops(embedding, labels)
    variance = np.exp(raw.numpy()[:, 0])
    totals = [variance[i] + variance[j] for i, j in pairs]
    terms = [
        2 * (1 - mu[i] @ mu[j]) / total + math.log(total)
        for (i, j), total in zip(pairs, totals, strict=True)
    ]
    loss = FastMLSLoss()(embedding, raw, labels).loss
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-9)


def added(embedding, raw, labels, **options):
    """What the terms with a weight add to the loss."""
    plain = FastMLSLoss()(embedding, raw, labels).loss
    return FastMLSLoss(**options)(embedding, raw, labels).loss - plain


@pytest.mark.parametrize(("constraint", "tag"), [("l1", "constraint_L1"), ("l2", "constraint_L2")])
def test_output_constraint_as_recorded(golden, constraint, tag):
    # Recorded for 16 columns, each with its own batch mean; this loss takes one at a time.
    embedding, labels = golden.tensor("mu"), golden.tensor("label")
    terms = [
        added(embedding, raw, labels, output_constraint=1.0, constraint=constraint).item()
        for raw in golden.tensor("sigma_16").log().split(1, dim=1)
    ]
    assert np.mean(terms) == pytest.approx(golden.numbers[tag]["loss"], abs=1e-6)


def test_output_constraint_stops_the_gradient_of_the_mean(make_batch):
    embedding, raw, labels = make_batch(4, [0, 0, 1, 1], dimension=4, columns=1)
    raw.requires_grad_()
    (gradient,) = torch.autograd.grad(added(embedding, raw, labels, output_constraint=0.5), raw)
    variance = raw.detach().exp()
    ratio = variance / variance.mean()
    torch.testing.assert_close(gradient, 0.5 * torch.sign(ratio - 1) * ratio / 4)


def test_triplet_term_is_that_of_a_triple_loop(make_batch, loops):
    embedding, raw, labels = make_batch(5, [0, 0, 0, 1, 1, 2, 2, 3], dimension=3, columns=1)
    mu, pairs = loops(embedding, labels)
    variance = np.exp(raw.numpy()[:, 0])
    distance = 2 * (1 - mu @ mu.T) / (variance[:, None] + variance[None, :])
    hinges = []
    for anchor, positive in pairs:
        for negative in range(8):
            gap = distance[anchor, negative] - distance[anchor, positive]
            if labels[negative] != labels[anchor] and 0 < gap < 0.7:
                hinges.append(0.7 - gap)
    assert 5 < len(hinges) < 50
    term = added(embedding, raw, labels, triplet=0.25, triplet_margin=0.7)
    assert term.item() == pytest.approx(0.25 * np.mean(hinges), rel=1e-7)


def test_triplet_gradient_is_that_of_finite_differences(make_batch):
    embedding, raw, labels = make_batch(6, [0, 0, 1, 1, 2, 2], dimension=3, columns=1)
    loss = FastMLSLoss(triplet=0.3)
    assert torch.autograd.gradcheck(
        lambda values: loss(embedding, values, labels).loss, raw.requires_grad_()
    )


def test_without_a_semi_hard_triplet_the_term_is_zero(make_batch):
    embedding, raw, labels = make_batch(7, [0, 0, 0, 0], dimension=3, columns=1)
    term = added(embedding, raw.requires_grad_(), labels, triplet=1.0)
    assert term.item() == 0
    term.backward()
    assert torch.isfinite(raw.grad).all()


def test_terms_that_look_across_classes_need_the_whole_batch():
    assert not FastMLSLoss().needs_whole_batch
    assert FastMLSLoss(triplet=1e-3).needs_whole_batch
    assert FastMLSLoss(output_constraint=1e-3).needs_whole_batch


def test_optimum_is_the_squared_distance(minimise):
    embedding = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    raw = minimise(FastMLSLoss(), embedding, torch.tensor([[0.0], [-1.0]]), lr=0.5)
    assert raw.exp().sum().item() == pytest.approx(2 * (1 - 0.8), rel=1e-6)


@pytest.mark.parametrize(("loss", "columns"), [(FastMLSLoss(), 1), (MLSLoss(), 3)])
@pytest.mark.parametrize("extreme", [-500.0, 80.0])
def test_extreme_log_variances_are_finite(loss, columns, extreme):
    raw = torch.full((2, columns), extreme, requires_grad=True)
    result = loss(torch.eye(3)[:2], raw, torch.tensor([0, 0]))
    result.loss.backward()
    assert math.isfinite(result.loss.item())
    assert torch.isfinite(raw.grad).all()


def test_two_copies_of_an_image_do_not_drive_the_loss_below_the_floor():
    embedding = torch.tensor([[0.3, 0.4, 0.1]]).repeat(2, 1)
    loss = FastMLSLoss()(embedding, torch.full((2, 1), -500.0), torch.tensor([0, 0])).loss
    assert loss.item() >= math.log(1e-10) - 1e-4

"""Distillation against a double loop over its terms, one by one, and what a teacher may be."""

import math

import pytest
import torch

from losses.distill import DistillLoss
from losses.idq import IDQLoss

LABELS = [0, 1, 0, 1, 0, 2]
TEACHER = [0.4, -2.0, 1.5, 0.0, -0.3, 3.0]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def divergence(teacher, student, temperature):
    p, q = sigmoid(teacher / temperature), sigmoid(student / temperature)
    return temperature**2 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))


@pytest.fixture
def batch(make_batch):
    return make_batch(2, LABELS, dimension=5, columns=1)


@pytest.mark.parametrize(("weight", "temperature"), [(10.0, 1.0), (3.0, 2.5)])
def test_double_loop(batch, loops, weight, temperature):
    embedding, raw, labels = batch
    mu, pairs = loops(embedding, labels)
    student = raw[:, 0].tolist()
    kl = [divergence(*both, temperature) for both in zip(TEACHER, student, strict=True)]
    own = []
    for i, j in pairs:
        target = sigmoid(7 * (mu[i] @ mu[j] - 0.6))
        quality = min(sigmoid(-student[i]), sigmoid(-student[j]))
        own.append(-target * math.log(quality) - (1 - target) * math.log(1 - quality))
    of_pairs = [kl[image] for pair in pairs for image in pair]
    loss = DistillLoss(weight=weight, temperature=temperature, scale=7.0, margin=0.6)
    result = loss(embedding, raw, labels, teacher=torch.tensor(TEACHER, dtype=torch.float64))
    expected = sum(own) / len(own) + weight * sum(of_pairs) / len(of_pairs)
    assert result.loss.item() == pytest.approx(expected)
    assert result.stats["kl"][:, 0].tolist() == pytest.approx(kl)


def test_no_gradient_reaches_the_teacher(batch):
    embedding, raw, labels = batch
    teacher = torch.tensor(TEACHER, dtype=torch.float64, requires_grad=True)
    raw.requires_grad_()
    DistillLoss()(embedding, raw, labels, teacher=teacher).loss.backward()
    assert teacher.grad is None
    assert raw.grad.abs().sum() > 0


def test_an_image_without_a_teachers_value_adds_idq_alone(batch):
    embedding, raw, labels = batch
    raw.requires_grad_()
    silent = torch.full((6,), math.nan, dtype=torch.float64)
    loss = DistillLoss()(embedding, raw, labels, teacher=silent).loss
    assert loss.item() == pytest.approx(IDQLoss()(embedding, raw, labels).loss.item())
    loss.backward()
    assert torch.isfinite(raw.grad).all()
    silent[2] = 1.5
    kl = DistillLoss()(embedding, raw, labels, teacher=silent).stats["kl"][:, 0]
    assert kl.nonzero().tolist() == [[2]]


def test_a_student_that_agrees_has_no_divergence_however_certain_both_are(batch):
    embedding, _, labels = batch
    raw = torch.tensor([[-90.0], [90.0], [0.0], [-3.0], [40.0], [-200.0]])
    result = DistillLoss()(embedding.float(), raw, labels, teacher=raw[:, 0])
    assert result.stats["kl"].abs().max() < 1e-6
    assert torch.isfinite(result.loss)

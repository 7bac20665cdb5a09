"""Distillation against a double loop over its terms, one by one, and what a teacher may be."""

from __future__ import annotations

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
def test_double_loop(batch, weight, temperature):
    embedding, raw, labels = batch
    mu = (embedding / embedding.norm(dim=1, keepdim=True)).tolist()
    student = raw[:, 0].tolist()
    own, kl = [], []
    for i in range(6):
        for j in range(6):
            if i == j or LABELS[i] != LABELS[j]:
                continue
            cosine = sum(a * b for a, b in zip(mu[i], mu[j], strict=True))
            wanted = sigmoid(7 * (cosine - 0.6))
            quality = min(sigmoid(-student[i]), sigmoid(-student[j]))
            own.append(-wanted * math.log(quality) - (1 - wanted) * math.log(1 - quality))
            kl += [divergence(TEACHER[one], student[one], temperature) for one in (i, j)]
    loss = DistillLoss(weight=weight, temperature=temperature, scale=7.0, margin=0.6)
    found = loss(embedding, raw, labels, teacher=torch.tensor(TEACHER, dtype=torch.float64))
    assert found.loss.item() == pytest.approx(sum(own) / len(own) + weight * sum(kl) / len(kl))
    logged = [divergence(*both, temperature) for both in zip(TEACHER, student, strict=True)]
    assert found.stats["kl"][:, 0].tolist() == pytest.approx(logged)


def test_the_teachers_own_loss_and_the_students_do_not_touch_each_other(batch):
    embedding, raw, labels = batch
    teacher = torch.tensor(TEACHER, dtype=torch.float64, requires_grad=True)
    alone = IDQLoss()(embedding, teacher[:, None], labels).loss
    (wanted,) = torch.autograd.grad(alone, teacher)
    raw.requires_grad_()
    together = (
        IDQLoss()(embedding, teacher[:, None], labels).loss
        + DistillLoss()(embedding, raw, labels, teacher=teacher).loss
    )
    together.backward()
    assert torch.equal(teacher.grad, wanted)
    assert raw.grad.abs().sum() > 0


def test_an_image_of_which_the_teacher_says_nothing_adds_idq_alone(batch):
    embedding, raw, labels = batch
    raw.requires_grad_()
    silent = torch.full((6,), math.nan, dtype=torch.float64)
    loss = DistillLoss()(embedding, raw, labels, teacher=silent).loss
    assert loss.item() == pytest.approx(IDQLoss()(embedding, raw, labels).loss.item())
    loss.backward()
    assert torch.isfinite(raw.grad).all()
    silent[2] = 1.5
    found = DistillLoss()(embedding, raw, labels, teacher=silent).stats["kl"][:, 0]
    assert found.nonzero().tolist() == [[2]]


def test_a_student_that_agrees_has_no_divergence_however_sure_both_are(batch):
    embedding, _, labels = batch
    raw = torch.tensor([[-90.0], [90.0], [0.0], [-3.0], [40.0], [-200.0]])
    found = DistillLoss()(embedding.float(), raw, labels, teacher=raw[:, 0])
    assert found.stats["kl"].abs().max() < 1e-6
    assert torch.isfinite(found.loss)


def test_refusals(batch):
    embedding, raw, labels = batch
    with pytest.raises(ValueError, match=r"weight = 0: must be above 0"):
        DistillLoss(weight=0)
    with pytest.raises(ValueError, match=r"temperature = -1\.0: must be above 0"):
        DistillLoss(temperature=-1.0)
    with pytest.raises(ValueError, match=r"takes a teacher's logit of each image, \(B,\)"):
        DistillLoss()(embedding, raw, labels)
    with pytest.raises(ValueError, match="one logit per image, the head gives 2"):
        DistillLoss()(embedding, raw.repeat(1, 2), labels, teacher=torch.zeros(6))

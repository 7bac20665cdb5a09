"""Losses with a target for each image: slow references, optima in closed form, gradients."""

import numpy as np
import pytest
import torch
from scipy.special import ive
from scipy.stats import wasserstein_distance

from losses.base import Centres
from losses.scf import log_bessel_less_power
from losses.sdd_fiqa import wasserstein
from utils.config import Method
from utils.methods import build

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3]
D = 12


@pytest.fixture
def batch(make_batch):
    """Embeddings, columns of a head, labels, and centres of four identities and one more."""
    embedding, raw, labels = make_batch(5, LABELS, dimension=D, columns=D)
    every = torch.nn.functional.normalize(make_batch(6, range(5), D, 1)[0])
    return embedding, raw, labels, Centres(every[labels], every)


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def huber(gap, beta=0.5):
    return gap**2 / (2 * beta) if abs(gap) < beta else abs(gap) - beta / 2


def cr_fiqa(i, mu, raw, labels, centres):
    cosines = centres @ mu[i]
    others = [cosines[label] for label in range(len(centres)) if label != labels[i]]
    ratio = cosines[labels[i]] / (1 + max(others))
    return huber(1 - sigmoid(raw[i, 0]) - min(max(ratio, 0), 1))


def sdd_fiqa(i, mu, raw, labels, centres):
    genuine = [mu[i] @ mu[j] for j in range(len(mu)) if labels[j] == labels[i] and j != i]
    impostor = [mu[i] @ mu[j] for j in range(len(mu)) if labels[j] != labels[i]]
    distance = wasserstein_distance(genuine, impostor)
    return huber(1 - sigmoid(raw[i, 0]) - min(distance, 1))


def dul(i, mu, raw, labels, centres):
    gap = (centres[labels[i]] - mu[i]) ** 2
    return np.mean([gap[k] / np.exp(raw[i, k]) + raw[i, k] for k in range(D)])


def scf(i, mu, raw, labels, centres):
    kappa = D * np.exp(-raw[i, 0])
    log_bessel = np.log(ive(D / 2 - 1, kappa)) + kappa
    cosine = centres[labels[i]] @ mu[i]
    return (log_bessel - (D / 2 - 1) * np.log(kappa) - kappa * cosine) / D


@pytest.mark.parametrize("formula", [cr_fiqa, sdd_fiqa, dul, scf], ids=lambda each: each.__name__)
def test_it_is_the_formula_over_pairs(formula, batch, loops):
    embedding, raw, labels, centres = batch
    raw = raw if formula is dul else raw[:, :1]
    mu, pairs = loops(embedding, labels.tolist())
    given = (mu, raw.numpy(), labels.tolist(), centres.every.numpy())
    expected = np.mean([(formula(i, *given) + formula(j, *given)) / 2 for i, j in pairs])
    loss = build("losses", Method(formula.__name__))
    found = loss(embedding, raw, labels, centres=centres).loss
    assert found.item() == pytest.approx(expected, rel=1e-4 if formula is scf else 1e-9)
    assert torch.autograd.gradcheck(
        lambda raw: loss(embedding, raw, labels, centres=centres).loss, raw.requires_grad_()
    )


@pytest.mark.parametrize("columns", [1, D])
def test_the_optimum_of_dul_is_the_squared_distance(columns, batch, minimise):
    embedding, _, labels, centres = batch
    own = torch.nn.functional.normalize(embedding)[:3]
    gap = (centres.own[:3] - own).square()
    loss = build("losses", Method("dul"))
    raw = minimise(
        lambda embedding, raw, _: loss(embedding, raw, labels[:3], centres=centres_of(centres, 3)),
        embedding[:3],
        torch.full((3, columns), -2.0),
        lr=0.5 * columns,
        steps=2000,
    )
    expected = gap if columns > 1 else gap.mean(1, keepdim=True)
    torch.testing.assert_close(raw.exp(), expected, rtol=1e-4, atol=1e-9)


def centres_of(centres, images):
    return centres._replace(own=centres.own[:images])


@pytest.mark.parametrize("size", [16, 128, 512])
def test_the_optimum_of_scf_has_the_cosine_as_mean_length(size, minimise):
    """Three images of one identity at three cosines to its centre; I of scipy where it is not 0."""
    cosines = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    centre = torch.eye(size, dtype=torch.float64)[:1]
    mu = torch.zeros(3, size, dtype=torch.float64)
    mu[:, 0], mu[:, 1] = cosines, (1 - cosines.square()).sqrt()
    loss, centres = build("losses", Method("scf")), Centres(centre.expand(3, -1), centre)
    raw = minimise(
        lambda embedding, raw, labels: loss(embedding, raw, labels.long(), centres=centres),
        mu,
        torch.zeros(3, 1),
        lr=1.0,
        steps=1000,
    )
    kappa = size * np.exp(-raw[:, 0].numpy())
    mean_length = ive(size / 2, kappa) / ive(size / 2 - 1, kappa)
    np.testing.assert_allclose(mean_length, cosines, rtol=1e-4)


@pytest.mark.parametrize(("order", "within"), [(7, 1e-5), (63, 1e-8), (255, 1e-9)])
def test_the_logarithm_of_bessel_functions(order, within):
    at = np.concatenate([np.linspace(order / 2, 20 * order, 200), [1e4, 1e5]])
    expected = np.log(ive(order, at)) + at - order * np.log(at)
    found = log_bessel_less_power(order, torch.from_numpy(at))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=within)
    assert log_bessel_less_power(order, torch.zeros(1)).isfinite()
    assert log_bessel_less_power(order, torch.tensor([1e30])).isfinite()


def test_the_distance_of_distributions_of_any_sizes():
    generator = np.random.default_rng(2)
    values = generator.normal(size=(6, 15))
    values[3] = np.round(values[3])  # ties
    first = generator.random((6, 15)) < [[0.2], [0.5], [0.5], [0.5], [0.9], [0.4]]
    first[:, 0], first[:, 1] = True, False
    second = ~first & (generator.random((6, 15)) < 0.8)
    second[:, 1] = True
    found = wasserstein(*(torch.from_numpy(each.astype(float)) for each in (values, first, second)))
    rows = zip(values, first, second, strict=True)
    expected = [wasserstein_distance(row[own], row[other]) for row, own, other in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-12)

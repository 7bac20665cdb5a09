import pytest
import torch

from mc_dropout import closed_form
from mc_dropout.closed_form import SquareNorm, merge_parallel

CPU = torch.device("cpu")


def brute(weight, squares):
    return torch.stack(
        [torch.linalg.matrix_norm(weight @ torch.diag(row) @ weight.T) ** 2 for row in squares]
    )


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def heavy(count, size):
    """Rows of which a few features hold the most."""
    squares = normal(count, size, seed=5).abs().pow(5)
    return squares / squares.sum(1, keepdim=True)


def grouped(size, groups, each):
    columns, factors = normal(size, groups), normal(groups, each, seed=1)
    return (columns[:, :, None] * factors).flatten(1)


@pytest.mark.parametrize("unused", [[], [8, 9, 10, 11, 16]], ids=["all", "some without weight"])
def test_parallel_columns_are_merged(unused):
    weight = grouped(5, 7, 4)
    weight[:, unused] = 0
    factors, columns = merge_parallel(weight)
    assert (columns.shape, factors.shape) == ((5, 7), (28,))
    torch.testing.assert_close(columns.repeat_interleave(4, dim=1) * factors, weight)


def test_groups_of_unequal_size_are_merged_by_their_common_divisor():
    columns = normal(5, 3)
    weight = columns[:, [0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2]]
    factors, found = merge_parallel(weight)
    torch.testing.assert_close(found, columns[:, [0, 0, 1, 2, 2, 2]])
    torch.testing.assert_close(factors, torch.ones(12))


@pytest.mark.parametrize("change", ["none in common", "nearly parallel", "hidden by a zero"])
def test_columns_that_are_not_parallel_stay(change):
    weight = grouped(5, 7, 4)
    if change == "none in common":
        weight = normal(5, 28)
    elif change == "nearly parallel":
        weight[:, 1] += 1e-4 * normal(5, seed=9)
    else:
        weight[:, 1], weight[:, 2] = 0, normal(5, seed=9)
    factors, columns = merge_parallel(weight)
    assert factors is None
    assert columns is weight


@pytest.mark.parametrize("limit", [0, 2048])
def test_exact_norm_is_that_of_the_covariance(monkeypatch, limit):
    weight, squares = normal(5, 30), heavy(3, 30)
    monkeypatch.setattr(closed_form, "_GRAM_COLUMNS", limit)
    norm = SquareNorm(weight, None, 0, CPU)
    torch.testing.assert_close(norm(squares), brute(weight, squares))
    monkeypatch.setattr(closed_form, "_EXACT_BYTES", 1)
    torch.testing.assert_close(norm(squares), brute(weight, squares))


def estimate(monkeypatch, weight, squares, probes, seed=0):
    monkeypatch.setattr(closed_form, "_GRAM_COLUMNS", 0)
    return SquareNorm(weight, probes, seed, CPU)(squares) / brute(weight, squares) - 1


@pytest.mark.parametrize("kind", ["random", "few directions", "groups", "some features unused"])
def test_estimate_is_close_where_a_few_features_hold_the_most(monkeypatch, kind):
    weight = normal(32, 900)
    if kind == "few directions":
        weight = torch.linspace(2, 0.01, 32)[:, None] * weight
    elif kind == "groups":
        weight = grouped(32, 150, 6) * (1 + 0.1 * normal(900, seed=3))
    elif kind == "some features unused":
        weight[:, ::3] = 0
    error = estimate(monkeypatch, weight / weight.square().sum(0).mean().sqrt(), heavy(20, 900), 64)
    assert error.abs().max() < 0.1
    assert error.mean().abs() < 0.05


def test_estimate_is_exact_with_as_many_directions_as_there_are(monkeypatch):
    weight = normal(6, 400) / 6**0.5
    error = estimate(monkeypatch, weight, heavy(10, 400), 6 * 7 // 2)
    assert error.abs().max() < 1e-4


def test_features_to_look_at_are_a_sample(monkeypatch):
    """With fewer sampled features than there are, the seed picks them; the result moves little."""
    monkeypatch.setattr(closed_form, "_SAMPLE", 150)
    weight, squares = normal(16, 600) / 4, heavy(10, 600)
    errors = [estimate(monkeypatch, weight, squares, 32, seed) for seed in (0, 0, 1)]
    assert torch.equal(errors[0], errors[1])
    assert not torch.equal(errors[0], errors[2])
    assert torch.stack(errors).abs().max() < 0.1

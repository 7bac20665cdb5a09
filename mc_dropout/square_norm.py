"""What the closed form needs of a weight's columns: which are parallel, and |W diag(s) W'|^2.

`mc_dropout.closed_form` uses both, once per layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GRAM_COLUMNS = 2048  # up to so many columns, their Gram matrix is cheaper than any estimate
_SAMPLE = 2048  # columns among which the estimate looks for its directions
_EXACT_BYTES = 2**28  # of the scaled weights that the exact norm holds at a time


def merge_parallel(weight: Tensor) -> tuple[Tensor | None, Tensor]:
    """Write W as one column per group of neighbouring features, times a factor per feature.

    A depthwise layer before a linear one makes the columns of a channel's features parallel:
    25088 features then come down to 512 groups.

    Returns:
        factors (F,) and columns (D, F / k), so that W_f = factor_f * column of group f // k; for
        k = 1 (nothing in common) None and the weight (D, F).
    """
    features = weight.shape[1]
    wide = weight.double()
    lengths = wide.norm(dim=0)
    along = (wide[:, :-1] * wide[:, 1:]).sum(0).abs()
    breaks = torch.nonzero(along < (1 - 1e-9) * lengths[:-1] * lengths[1:])[:, 0] + 1
    size = math.gcd(features, *breaks.tolist())
    if size == 1:
        return None, weight
    groups = wide.unflatten(1, (-1, size))
    longest = lengths.unflatten(0, (-1, size)).argmax(1)
    columns = groups[:, torch.arange(len(longest)), longest]
    square = columns.square().sum(0)
    factors = (groups * columns[:, :, None]).sum(0) / torch.where(square == 0, 1.0, square)[:, None]
    missed = (groups - columns[:, :, None] * factors).square().sum(0)
    if torch.any(missed > 1e-12 * square[:, None]):  # a zero column can hide a change of direction
        return None, weight
    return factors.flatten().to(weight), columns.to(weight)


class SquareNorm:
    """|W diag(s) W'|^2 (Frobenius) for rows s >= 0; it is s' K s with K_fg = (W_f . W_g)^2.

    Up to 2048 columns K itself is held, and the result is exact. Beyond, K = V V' + R: the columns
    of V are what the matrices A_k see of a feature, W_f' A_k W_f. A_1 is W W'; the others are the
    leading directions that 2048 random features (drawn by |W_f|^2) have besides. Of R the diagonal
    r is kept, in the form sum_f r_f (s_f - m)^2, m being the mean of s weighted by r: R is almost
    blind to a constant s. What is left out, R off its diagonal, adds up to little since its signs
    are mixed.

    Args:
        weight: (D, F), on the CPU, its columns about 1 long.
        probes: number of columns of V; None for the exact norm, at D^2 F products a row where
            there are more than 2048 columns.
        seed: of the random features.
        device: where the rows will be.
    """

    def __init__(self, weight: Tensor, probes: int | None, seed: int, device: torch.device) -> None:
        self._weight = self._gram = self._columns = self._diagonal = None
        if weight.shape[1] <= _GRAM_COLUMNS:
            self._gram = (weight.T @ weight).square_().to(device)
        elif probes is None:
            self._weight = weight.to(device)
        else:
            columns, diagonal = _seen(weight, probes, seed)
            self._columns, self._diagonal = columns.to(device), diagonal.to(device)

    def __call__(self, squares: Tensor) -> Tensor:
        """Return (B,) squared norms of rows (B, F)."""
        if self._gram is not None:
            return (squares @ self._gram).mul_(squares).sum(1)
        if self._weight is not None:
            return _exact(squares, self._weight)
        assert self._columns is not None
        assert self._diagonal is not None
        entries = (squares @ self._columns).square_()
        return entries[:, 1:].sum(1) - entries[:, 0] + squares.square() @ self._diagonal


def _seen(weight: Tensor, probes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return [r / sqrt(sum r), V], (F, 1 + probes), and r, (F,)."""
    generator = torch.Generator().manual_seed(seed)
    squares = weight.square().sum(0)
    covariance = weight @ weight.T
    first = (weight * (covariance @ weight)).sum(0) / covariance.norm()
    count = min(_SAMPLE, int(torch.count_nonzero(squares)))
    sample = torch.multinomial(squares.double(), count, generator=generator)
    kernel = (weight.T @ weight[:, sample]).square_().addr_(first, first[sample], alpha=-1)
    values, vectors = _leading(kernel[sample], probes - 1, generator)
    floor = 1e-6 * squares[sample].square().sum()  # below, it is rounding
    vectors *= torch.where(values > floor, values, torch.inf).rsqrt()
    columns = torch.cat([first[:, None], kernel @ vectors], 1)
    diagonal = (squares.square() - columns.square().sum(1)).clamp_min(0)
    mean = diagonal / diagonal.sum().clamp_min(1e-30).sqrt()
    return torch.cat([mean[:, None], columns], 1), diagonal


def _leading(matrix: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return about the `count` largest eigenvalues, (count,), and eigenvectors, (n, count).

    Subspace iteration from random vectors: a tenth of the time of all eigenvectors.
    """
    size = min(len(matrix), count + count // 4 + 1)
    basis = torch.randn(len(matrix), size, generator=generator)
    for _ in range(3):
        basis = torch.linalg.qr(matrix @ basis).Q
    values, vectors = torch.linalg.eigh(basis.T @ (matrix @ basis))
    count = min(count, size)
    return values[size - count :], basis @ vectors[:, size - count :]


def _exact(squares: Tensor, weight: Tensor) -> Tensor:
    """Return |W diag(s) W'|^2 with a D x D matrix per row."""
    block = max(1, _EXACT_BYTES // (weight.numel() * weight.element_size()))
    norms = [
        ((part[:, None] * weight) @ weight.T).square().sum((1, 2)) for part in squares.split(block)
    ]
    return torch.cat(norms)

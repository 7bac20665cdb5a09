"""MC-dropout without the passes: the spread of the embedding's direction as a formula.

One affine layer, dropout before it: the moments of its output are known, so nothing need be drawn.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EXACT_BYTES = 2**28  # of the scaled weights that the exact trace holds at a time


class DropoutSpread:
    r"""Standard deviation of cos(pass, mean direction) over dropout passes, in closed form.

    A pass is y = W (x * k) / (1 - p) + b, where each k is 0 with probability p and 1 otherwise.
    Write it as y = v + W (x * e) with v = W x + b; the noise e = k / (1 - p) - 1 has mean 0 and
    cumulants

        q  = p / (1 - p)                  second
        k3 = p (q^2 - 1)                  third, 0 at p = 1/2
        k4 = (1 - p) q^4 + p - 3 q^2      fourth, -2 at p = 1/2

    Split y along u = v / n, n = |v|: the noise along u is a = u.(y - v), the squared length of the
    rest is r, and the cosine with u is (n + a) / sqrt((n + a)^2 + r). W_f being the column of
    feature f and g_f = |W_f|^2 - (u.W_f)^2 its part across u, these moments are exact:

        var a    = q  sum_f x_f^2 (u.W_f)^2
        t = E r  = q  sum_f x_f^2 g_f
        var r    = 2 tr(T^2) + k4 sum_f x_f^4 g_f^2
        cov(a,r) = k3 sum_f x_f^3 (u.W_f) g_f

    where T is the noise covariance S = q W diag(x^2) W' restricted to the space across u. To first
    order around (0, t), with c = (n^2 + t)^(3/2), the cosine moves by (t / c) a - (n / 2c) (r - t),
    so its variance is

        (t / c)^2 var a + (n / 2c)^2 var r - (t n / c^2) cov(a, r).

    The k4 and k3 terms are what dropout's bounded noise differs from a Gaussian by. At p = 1/2 k4
    lowers the result by 6 to 8 % on a real tail of 128 x 25088 and by 15 to 25 % on random layers
    of 512 x 64. What is approximate: the first order, and u in place of the normalised mean of the
    normalised passes. Together they cost 0.4 % on that real tail, 1 to 3 % on layers of some tens
    by some hundreds, and a third or more where two or three features carry the noise (the cosine
    then takes a handful of values).

    tr(T^2) = |S|^2 - 2 |S u|^2 + (u' S u)^2, and |S|^2 (Frobenius) is the dear part. Exactly, it
    takes D x D numbers for every image. As an estimate, S is seen in the eigenvectors of W W': its
    diagonal there, which holds most of it, is exact and costs D columns; the rest is the mean over
    random sign vectors z, z' of (z' (S - diag) z)^2, one column each. These columns are fixed by W
    and the seed, so the result is a function of the features alone, whatever the batch.

    Args:
        weight: (D, F).
        bias: (D,).
        rate: p, the share of features that a pass drops, in (0, 1).
        probes: number of random pairs; None for the exact |S|^2. 512 pairs leave an error of 1 to
            2 % of |S|^2, about half that of the result; memory is (D + probes) x F floats.
        seed: of the random pairs.

    Raises:
        ValueError: a rate outside (0, 1), fewer than 1 probe, or shapes that do not fit.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        rate: float = 0.5,
        *,
        probes: int | None = 512,
        seed: int = 0,
    ) -> None:
        check_rate(rate)
        if probes is not None and probes < 1:
            raise ValueError(f"probes = {probes}: must be at least 1, or None for the exact trace")
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
            raise ValueError(f"weight and bias have shapes {shapes}; expected (D, F) and (D,)")
        self.rate = rate
        self.weight = weight.detach().float()
        self.bias = bias.detach().float()
        self._norms = self.weight.square().sum(0)
        self._columns = None if probes is None else _columns(self.weight, probes, seed)

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Return (B,) standard deviations, of the sampled statistic's population form.

        An image with W x + b = 0 has no direction to spread around: 1, the largest possible value.

        Args:
            features: (B, F), before dropout, on the weight's device.

        Raises:
            ValueError: features of another length than the weight's.
        """
        if features.ndim != 2 or features.shape[1] != self.weight.shape[1]:
            raise ValueError(
                f"features have shape {tuple(features.shape)}; "
                f"expected (B, {self.weight.shape[1]}), as the weight has it"
            )
        features = features.float()
        mean = features @ self.weight.T + self.bias
        length = mean.norm(dim=1)
        direction = mean / torch.where(length == 0, 1.0, length)[:, None]
        along = direction @ self.weight
        across = (self._norms - along.square()).clamp_min(0)
        q = _cumulants(self.rate)[0]
        size = (length.square() + q * (features.square() * across).sum(1)).sqrt()
        size = torch.where(size == 0, 1.0, size)
        std = self._std(features / size[:, None], length / size, along, across)
        return torch.where(length == 0, 1.0, std)

    def _std(self, features: Tensor, length: Tensor, along: Tensor, across: Tensor) -> Tensor:
        """Apply the formula in units in which c = 1: fourth powers stay inside float32's range."""
        q, third, fourth = _cumulants(self.rate)
        squares = features.square()
        var_along = q * (squares * along.square()).sum(1)
        across_mean = q * (squares * across).sum(1)
        pulled = q * (squares * along) @ self.weight.T
        norm = q**2 * self._square_norm(squares)
        trace = norm - 2 * pulled.square().sum(1) + var_along.square()
        kurtosis = fourth * (squares * across).square().sum(1)
        var_across = (2 * trace + kurtosis).clamp_min(0)
        covariance = third * (squares * features * along * across).sum(1)
        variance = (
            across_mean.square() * var_along
            + (length / 2).square() * var_across
            - across_mean * length * covariance
        )
        return variance.clamp_min(0).sqrt().clamp_max(1)

    def _square_norm(self, squares: Tensor) -> Tensor:
        """Return |W diag(x^2) W'|^2, (B,), exactly or by the fixed columns."""
        if self._columns is None:
            return _exact_square_norm(squares, self.weight)
        size = len(self.weight)
        entries = squares @ self._columns
        return entries[:, :size].square().sum(1) + entries[:, size:].square().mean(1)


def dropout_cosine_std(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    rate: float = 0.5,
    *,
    probes: int | None = 512,
    seed: int = 0,
) -> Tensor:
    """Return `DropoutSpread(weight, bias, rate, ...)(features)`, (B,), for a single use."""
    return DropoutSpread(weight, bias, rate, probes=probes, seed=seed)(features)


def check_rate(rate: float) -> None:
    """Refuse a share of dropped features outside (0, 1).

    Raises:
        ValueError: see above.
    """
    if not 0 < rate < 1:
        raise ValueError(f"rate = {rate}: the share of dropped features must lie inside (0, 1)")


def _cumulants(rate: float) -> tuple[float, float, float]:
    q = rate / (1 - rate)
    return q, rate * (q * q - 1), (1 - rate) * q**4 + rate - 3 * q * q


def _columns(weight: Tensor, probes: int, seed: int) -> Tensor:
    """Return (F, D + probes): x^2 times it gives diagonal entries, then random sums of the rest."""
    wide = weight.cpu().double()
    _, basis = torch.linalg.eigh(wide @ wide.T)  # on the CPU: some devices have no eigh
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (2, probes, len(weight)), generator=generator) * 2.0 - 1
    left, right = signs.to(weight)
    turned = basis.T.to(weight) @ weight
    diagonal = turned.square()
    rest = (left @ turned).mul_(right @ turned).sub_((left * right) @ diagonal)
    return torch.cat([diagonal, rest]).T.contiguous()


def _exact_square_norm(squares: Tensor, weight: Tensor) -> Tensor:
    """Return |W diag(x^2) W'|^2 with a D x D matrix per image: D^2 F products each."""
    block = max(1, _EXACT_BYTES // (weight.numel() * weight.element_size()))
    norms = [
        ((part[:, None] * weight) @ weight.T).square().sum((1, 2)) for part in squares.split(block)
    ]
    return torch.cat(norms) if norms else squares.new_zeros(0)

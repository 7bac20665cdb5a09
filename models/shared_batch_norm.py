"""BatchNorm over the rows of all processes, so that a head learns as it would in one process.

For training with several ranks; any device, unlike `torch.nn.SyncBatchNorm`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from utils.distributed import World


def share_batch_norms(head: nn.Module, world: World) -> None:
    """Make every BatchNorm of a head take its statistics over all ranks' rows.

    Parameters and buffers are the very same tensors under the same names, so that optimizers and
    checkpoints do not notice. Ranks may have batches of different sizes. In eval mode nothing
    changes, and with one rank nothing at all.
    """
    if world.size == 1:
        return
    for parent in list(head.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, _SharedBatchNorm):
                setattr(parent, name, _SharedBatchNorm(child, world))


class _SharedBatchNorm(_BatchNorm):
    """A BatchNorm of another one's parameters, buffers and mode, over the rows of all ranks."""

    def __init__(self, other: _BatchNorm, world: World) -> None:
        super().__init__(
            other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats
        )
        self._parameters = other._parameters
        self._buffers = other._buffers
        self.world = world
        self.train(other.training)

    def _check_input_dim(self, _: Tensor) -> None:
        """Take (B, C) and (B, C, ...)."""

    def forward(self, batch: Tensor) -> Tensor:
        """Normalise (B, C) or (B, C, ...) as the joined batch of all ranks would be."""
        if not self.training and self.running_mean is not None:
            return super().forward(batch)
        rows = batch.movedim(1, -1)
        flat, mean, variance, count = _Normalise.apply(
            rows.reshape(-1, self.num_features), self.eps, self.world
        )
        if self.training and self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        if self.affine:
            flat = flat * self.weight + self.bias
        joined: Tensor = flat.view(rows.shape).movedim(-1, 1)
        return joined

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # a plain average over all batches
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) over all ranks' rows, in two passes over the data."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (B, C) normalised rows; (C,) mean and biased variance; the number of all rows."""
        totals = torch.cat([rows.sum(0), rows.new_full((1,), len(rows))])
        world.sum_(totals)
        count = totals[-1]
        mean = totals[:-1] / count
        centred = rows - mean
        squares = centred.square().sum(0)
        world.sum_(squares)
        variance = squares / count
        inverse = (variance + eps).rsqrt()
        normalised = centred * inverse
        ctx.world = world
        ctx.save_for_backward(normalised, inverse, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        """Give each row the gradient of all ranks' losses together."""
        normalised, inverse, count = ctx.saved_tensors
        sums = torch.stack([gradient.sum(0), (gradient * normalised).sum(0)])
        ctx.world.sum_(sums)
        straight, slope = sums / count
        return inverse * (gradient - straight - normalised * slope), None, None

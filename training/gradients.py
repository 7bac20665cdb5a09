"""Gradients of a batch that several processes share: one sum over all of them, in one transfer.

Used by training.trainer alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.distributed import World


def scaled_loss(loss: Tensor, num_pairs: int, world: World) -> Tensor:
    """Return what a process has to differentiate so that `share` gives the global gradient.

    The loss is a mean over pairs, and processes may have different numbers of them: each
    differentiates its sum. One process differentiates the loss itself.
    """
    return loss if world.size == 1 else loss * num_pairs


def share(parameters: Sequence[nn.Parameter], num_pairs: int, stop: bool, world: World) -> Tensor:
    """Make every process's gradients those of the whole batch.

    All gradients go in one flat buffer, with the number of pairs and the wish to stop at its end;
    nothing is changed before it has arrived, so a process that is lost here leaves a whole state.

    Args:
        parameters: with gradients of `scaled_loss`.
        num_pairs: of this process.
        stop: whether somebody asked this process to stop.
        world: the processes.

    Returns:
        A scalar on the device, above 0 where any process was asked to stop.
    """
    if world.size == 1:
        return torch.tensor(float(stop))
    grads = [parameter.grad for parameter in parameters]
    assert all(grad is not None for grad in grads)
    device = parameters[0].device
    tail = torch.tensor([float(num_pairs), float(stop)])
    tail = tail.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tail
    flat = torch.cat([*(grad.flatten() for grad in grads if grad is not None), tail])
    world.sum_(flat)
    count, asked = flat[-2], flat[-1]
    flat = flat[:-2] / count
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, part in zip(parameters, flat.split(sizes), strict=True):
        parameter.grad = part.view_as(parameter)
    return asked

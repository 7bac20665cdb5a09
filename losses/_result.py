"""What every loss returns."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LossResult(NamedTuple):
    """A loss and what is logged about it.

    Attributes:
        loss: scalar to minimise.
        stats: detached tensors under the names of the log line, in its order (`cos`, `pconf` or
            `sigma`, `t_soft`, `uloss`); the log prints a tensor as mean, max and min and a
            scalar as itself.
    """

    loss: Tensor
    stats: dict[str, Tensor]

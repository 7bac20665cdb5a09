"""The text of a training log line, in the original's format."""

from __future__ import annotations

import time
from collections.abc import Mapping

from torch import Tensor


def format_stat(name: str, values: Tensor) -> str:
    """Return ` name mean max min` of a tensor, or ` name value` of a scalar.

    Two decimals, or two significant digits in scientific form where the mean is at most 0.01;
    scalars have three decimals.
    """
    if values.ndim == 0:
        return f" {name} {float(values):2.3f}"
    mean, largest, smallest = float(values.mean()), float(values.max()), float(values.min())
    form = ".1e" if abs(mean) <= 1e-2 else ".2f"
    return f" {name} {mean:{form}} {largest:{form}} {smallest:{form}}"


def format_line(
    epoch: int,
    step: int,
    loss: float,
    lr: float,
    stats: Mapping[str, Tensor],
    memory_gib: float,
    label: str = "",
) -> str:
    """Return one log line.

    Args:
        epoch: counted from 0.
        step: steps done in this epoch, from 1.
        loss: of the last batch.
        lr: learning rate of the last step.
        stats: `LossResult.stats` of the last batch.
        memory_gib: peak memory.
        label: which of several heads it is about.
    """
    head = f"[{epoch}-{step}] {label}".rstrip()
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = "".join(format_stat(name, values) for name, values in stats.items())
    return f"{now} {head} | loss {loss:.3f} lr{lr:g}{text} mem {memory_gib:.1f} G"


def stats_as_numbers(stats: Mapping[str, Tensor]) -> dict[str, float | list[float]]:
    """Return the same statistics unrounded, for `metrics.jsonl`: [mean, max, min] or a number."""
    return {
        name: float(values)
        if values.ndim == 0
        else [float(values.mean()), float(values.max()), float(values.min())]
        for name, values in stats.items()
    }

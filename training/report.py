"""What the log says of a step: the numbers of every process joined, as if there were one.

Used by training.trainer at log lines alone; it waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from losses._result import LossResult
from models.uncertainty import to_scalar, to_sigma_sq
from training.branch import TrainedBranch
from training.collapse import rank_correlation
from training.heads_step import HeadsStep
from training.step_input import StepInput
from training.train_log import TrainLog
from utils.device import peak_memory_gib
from utils.distributed import World


def report_step(
    step: int,
    branches: Sequence[TrainedBranch],
    done: HeadsStep,
    one: StepInput,
    logs: list[TrainLog],
    world: World,
) -> None:
    """Write the line of every head.

    Args:
        step: steps done.
        branches: the heads.
        done: their step, with statistics.
        one: this process's images.
        logs: one per head; empty where another process writes them.
        world: the processes; all of them must call.
    """
    mu = F.normalize(one.output.embedding).cpu().numpy()
    mine: list[Any] = [(mu, one.rows, one.labels)]
    mine += [_arrays(raw, result) for raw, result in zip(done.raws, done.results, strict=True)]
    joined = list(zip(*world.gather(mine), strict=True))
    if not logs:
        return
    mu_all, rows_all, labels_all = map(np.concatenate, zip(*joined[0], strict=True))
    _, images = np.unique(rows_all, return_index=True)  # copies of one image are no pair
    known = torch.from_numpy(mu_all[images]), torch.from_numpy(labels_all[images])
    for branch, rate, log, parts in zip(branches, done.rates, logs, joined[1:], strict=True):
        loss, stats, raw = _joined(parts)
        uncertainty = to_scalar(to_sigma_sq(raw, branch.head.output))
        log.step(
            step,
            rate,
            loss,
            stats,
            peak_memory_gib(one.output.embedding.device),
            rank_correlation(uncertainty[images], *known),
            uncertainty,
        )


def _arrays(raw: Tensor, result: LossResult) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
    stats = {name: value.cpu().numpy() for name, value in result.stats.items()}
    return float(result.loss.detach()), stats, raw.cpu().numpy()


def _joined(
    parts: tuple[tuple[float, dict[str, np.ndarray], np.ndarray], ...],
) -> tuple[float, dict[str, Tensor], Tensor]:
    """Return the loss, the statistics and the raw output of the whole batch."""
    weights = [len(stats["cos"]) for _, stats, _ in parts]
    stats = {}
    for name, value in parts[0][1].items():
        values = [other[name] for _, other, _ in parts]
        whole = np.average(values, weights=weights) if value.ndim == 0 else np.concatenate(values)
        stats[name] = torch.from_numpy(np.asarray(whole, dtype=value.dtype))
    loss = float(np.average([loss for loss, _, _ in parts], weights=weights))
    return loss, stats, torch.from_numpy(np.concatenate([raw for _, _, raw in parts]))

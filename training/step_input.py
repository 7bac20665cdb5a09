"""What one optimizer step works on, cut out of a forward pass that may serve several steps.

Used by training.trainer and training.report.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.loader import Batch
from losses._pairs import genuine_pairs
from models.output import BackboneOutput
from utils.device import to_device


@dataclass(frozen=True)
class StepInput:
    """The images of one step in this process.

    Attributes:
        rows: (B,) which image each is, on the host.
        labels: (B,) on the host.
        output: of the backbone, on its device.
        device_labels: (B,) on the device.
        pairs: indices (P,), (P,) of the genuine pairs, on the device.
        num_pairs: P, known to the host without waiting for the device.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    output: BackboneOutput
    device_labels: Tensor
    pairs: tuple[Tensor, Tensor]
    num_pairs: int


def step_inputs(batch: Batch, output: BackboneOutput) -> Iterator[StepInput]:
    """Cut a batch and what the backbone gave for it into its steps, in order."""
    device = output.embedding.device
    rows, labels = (np.split(values, len(batch.steps)) for values in (batch.rows, batch.labels))
    parts = zip(*(values.chunk(len(batch.steps)) for values in output), strict=True)
    for of_step, ids, part in zip(rows, labels, parts, strict=True):
        first, second = genuine_pairs(torch.from_numpy(ids), torch.from_numpy(of_step))
        pairs = to_device(first.numpy(), device), to_device(second.numpy(), device)
        here = to_device(ids, device)
        yield StepInput(of_step, ids, BackboneOutput(*part), here, pairs, len(first))

"""What one optimizer step works on, cut out of a forward pass that may serve several steps.

Used by training.trainer and training.report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.loader import Batch
from losses.base import genuine_pairs
from models.output import BackboneOutput
from training.teachers import Teacher, taught
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
        taught: (B,) logits on the device, by the name of the teacher that gave them.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    output: BackboneOutput
    device_labels: Tensor
    pairs: tuple[Tensor, Tensor]
    num_pairs: int
    taught: dict[str, Tensor] = field(default_factory=dict)


def step_inputs(
    batch: Batch, output: BackboneOutput, teachers: Mapping[str, Teacher] | None = None
) -> Iterator[StepInput]:
    """Cut a batch and what the backbone gave for it into its steps, in order.

    Args:
        batch: the images.
        output: of the backbone.
        teachers: those outside the run, by name.
    """
    device = output.embedding.device
    rows, labels = (np.split(values, len(batch.steps)) for values in (batch.rows, batch.labels))
    size = len(batch.rows) // len(batch.steps)
    for place, (step, of_step, ids) in enumerate(zip(batch.steps, rows, labels, strict=True)):
        part = output.map(lambda values, at=place * size: values[at : at + size])  # type: ignore[misc]
        first, second = genuine_pairs(torch.from_numpy(ids), torch.from_numpy(of_step))
        pairs = to_device(first.numpy(), device), to_device(second.numpy(), device)
        here = to_device(ids, device)
        logits = taught(teachers or {}, step, of_step, part)
        yield StepInput(of_step, ids, part, here, pairs, len(first), logits)

"""Runs batches on the device ahead of their results, so that a GPU does not wait for the host.

For extraction/extract.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from estimators.base import Batch, Estimate, EstimatorGroup, harmonic_mean
from estimators.embedding_norm import EmbeddingNorm
from estimators.trained_head import TrainedHead
from evaluation.embed import average_of_flip, estimate_batch
from models.output import to_sigma_sq

Result = Callable[[], Estimate]


class Ahead:
    """Several methods over one backbone, as `EstimatorGroup` gives them, to the last bit.

    Trained heads and embedding norms are queued on the device and fetched when the result is asked
    for; with any other method among them `submit` waits.

    Args:
        estimator: the methods.
        flip: average with the mirror image, as `evaluation.embed.embed_pairs` does.
    """

    def __init__(self, estimator: EstimatorGroup, *, flip: bool) -> None:
        self.estimator, self.flip = estimator, flip
        members = estimator.members.values()
        queueing = [m for m in members if isinstance(m, TrainedHead | EmbeddingNorm)]
        self.queues = len(queueing) == len(members)
        self._frozen = queueing[0].frozen if queueing else None
        self._heads = [member.head.eval() for member in members if isinstance(member, TrainedHead)]

    def submit(self, images: Tensor, rows: Sequence[int], names: Sequence[str] | None) -> Result:
        """Start on a batch.

        Args:
            images: (B, 112, 112, 3) uint8 RGB on the CPU; pinned memory is copied without waiting
                and must stay as it is until the result is there.
            rows: their numbers in the source.
            names: of the images; None where nothing reads them.

        Returns:
            A call that waits for the estimate of the batch.
        """
        if not self.queues or self._frozen is None:
            batch = Batch(images.numpy(), rows, names)
            found = estimate_batch(self.estimator, batch, flip=self.flip)
            return lambda: found
        images = images.to(self._frozen.device, non_blocking=True)
        plain = self._queue(images)
        if not self.flip:
            return plain
        mirrored = self._queue(images.flip(2))
        return lambda: average_of_flip(plain(), mirrored())

    @torch.no_grad()
    def _queue(self, images: Tensor) -> Result:
        assert self._frozen is not None
        output = self._frozen(images)
        values = [to_sigma_sq(head(output).float(), head.output) for head in self._heads]
        fetched = _fetch([output.embedding, *values])
        return lambda: self._columns(*fetched())

    def _columns(self, mu: NDArray[np.float32], *values: NDArray[np.float32]) -> Estimate:
        of_heads = iter(values)
        columns = []
        for member in self.estimator.members.values():
            if isinstance(member, EmbeddingNorm):
                columns.append(-np.linalg.norm(mu, axis=1, keepdims=True))
                continue
            found = next(of_heads)
            columns.append(found if found.shape[1] == 1 else harmonic_mean(found)[:, None])
        return Estimate(mu, np.concatenate(columns, axis=1))


def _fetch(tensors: Sequence[Tensor]) -> Callable[[], list[NDArray[Any]]]:
    """Start copies to the host; the returned call waits for them."""
    device = tensors[0].device
    if device.type != "cuda":
        arrays = [tensor.cpu().numpy() for tensor in tensors]
        return lambda: arrays
    copies = [
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
            tensor, non_blocking=True
        )
        for tensor in tensors
    ]
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(device))

    def wait() -> list[NDArray[Any]]:
        copied.synchronize()
        return [copy.numpy() for copy in copies]

    return wait

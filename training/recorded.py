"""Optimizer steps that are recorded once and then repeated by the GPU as one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from models.frozen import Graphs
from training.branch import StepInput, TrainedBranch

MOST_RECORDINGS = 8  # one for each number of pairs; classes with few images make it vary


class _Recording(NamedTuple):
    images: StepInput
    replay: Callable[[], None]
    losses: Tensor


class RecordedSteps:
    """Steps of all heads as one launch, for a host that cannot keep up with a hundred kernels each.

    A recording holds for one number of pairs and one set of learning rates. Heads with dropout, and
    batches that several processes share, cannot be recorded.

    Args:
        branches: the heads; each has taken a step before, so that its optimizer has its state.
        do_step: does one step of all heads and returns their losses (H,).
        graphs: records, without doing it.
    """

    def __init__(
        self,
        branches: Sequence[TrainedBranch],
        do_step: Callable[[int, StepInput], Tensor],
        graphs: Graphs,
    ) -> None:
        self._branches, self._do_step, self._graphs = branches, do_step, graphs
        self._rates: list[float] = []
        self._recordings: dict[int, _Recording] = {}

    def __call__(self, step: int, images: StepInput) -> Tensor | None:
        """Do a step; return the losses (H,), good until the next one, or None where it cannot."""
        rates = [branch.config.schedule.lr_at(step) for branch in self._branches]
        if rates != self._rates:
            self._rates, self._recordings = rates, {}
        if images.num_pairs not in self._recordings:
            if len(self._recordings) == MOST_RECORDINGS:
                return None
            self._recordings[images.num_pairs] = self._record(step, images)
        recording = self._recordings[images.num_pairs]
        for recorded, new in zip(recording.images.tensors, images.tensors, strict=True):
            recorded.copy_(new, non_blocking=True)
        recording.replay()
        return recording.losses

    def _record(self, step: int, images: StepInput) -> _Recording:
        own = images.clone()
        return _Recording(own, *self._graphs.capture(lambda: self._do_step(step, own), 0))

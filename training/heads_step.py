"""One optimizer step of every head: as it is, or recorded once and then repeated by the GPU.

Used by training.trainer alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from losses._result import LossResult
from models.execution import Graphs
from training.branch import TrainedBranch
from training.gradients import scaled_loss, share
from training.step_input import StepInput
from training.teachers import logit_of
from utils.distributed import World

MOST_RECORDINGS = 8  # one for each number of pairs; classes with few images make it vary


class HeadsStep(NamedTuple):
    """What a step left.

    Attributes:
        rates: learning rate of each head.
        raws: what each head gave, (B, d).
        results: of each loss.
        asked: above 0 where any process was asked to stop, on the device.
    """

    rates: list[float]
    raws: list[Tensor]
    results: list[LossResult]
    asked: Tensor

    @property
    def losses(self) -> Tensor:
        """(H,) of the heads."""
        return torch.stack([result.loss.detach() for result in self.results])


def heads_step(
    branches: Sequence[TrainedBranch],
    step: int,
    one: StepInput,
    world: World,
    *,
    with_stats: bool = False,
    stop: bool = False,
) -> HeadsStep:
    """Do a step of every head; all gradients are there before any weight moves."""
    found = _forward(branches, step, one, with_stats)
    for _, result in found:
        scaled_loss(result.loss, one.num_pairs, world).backward()
    parameters = [each for branch in branches for each in branch.parameters]
    asked = share(parameters, one.num_pairs, stop, world)
    rates = [branch.update(step) for branch in branches]
    raws, results = zip(*found, strict=True)
    return HeadsStep(rates, [raw.detach() for raw in raws], list(results), asked)


def _forward(
    branches: Sequence[TrainedBranch], step: int, one: StepInput, with_stats: bool
) -> list[tuple[Tensor, LossResult]]:
    """Return raw output and loss of every head; a branch comes after the one that teaches it."""
    wanted = {branch.config.teacher for branch in branches}
    taught, found = dict(one.taught), []
    for branch in branches:
        teacher = branch.config.teacher
        raw, result = branch.forward(
            step, one, with_stats, None if teacher is None else taught[teacher]
        )
        if branch.name in wanted:
            taught[branch.name] = logit_of(raw, branch.head.output)
        found.append((raw, result))
    return found


class RecordedSteps:
    """Steps of all heads as one launch, for a host that cannot keep up with a hundred kernels each.

    A recording holds for one number of pairs and one set of learning rates. Heads with dropout, and
    batches that several processes share, cannot be recorded.

    Args:
        branches: the heads; each has taken a step before, so that its optimizer has its state.
        world: of one process.
        graphs: records, without doing it.
    """

    def __init__(self, branches: Sequence[TrainedBranch], world: World, graphs: Graphs) -> None:
        self._branches, self._world, self._graphs = branches, world, graphs
        self._rates: list[float] = []
        self._recorded: dict[int, _Recording] = {}

    def __call__(self, step: int, one: StepInput) -> Tensor | None:
        """Do a step; return the losses (H,), good until the next one, or None where it cannot."""
        rates = [branch.config.schedule.lr_at(step) for branch in self._branches]
        if rates != self._rates:
            self._rates, self._recorded = rates, {}
        if one.num_pairs not in self._recorded:
            if len(self._recorded) == MOST_RECORDINGS:
                return None
            self._recorded[one.num_pairs] = self._record(step, one)
        recording = self._recorded[one.num_pairs]
        for there, new in zip(_tensors(recording.one), _tensors(one), strict=True):
            there.copy_(new, non_blocking=True)
        recording.replay()
        return recording.losses

    def _record(self, step: int, one: StepInput) -> _Recording:
        own = dataclasses.replace(
            one,
            output=one.output.map(Tensor.clone),
            taught={name: logits.clone() for name, logits in one.taught.items()},
            device_labels=one.device_labels.clone(),
            pairs=(one.pairs[0].clone(), one.pairs[1].clone()),
        )

        def work() -> Tensor:
            return heads_step(self._branches, step, own, self._world).losses

        return _Recording(own, *self._graphs.capture(work, 0))


@dataclass(frozen=True)
class _Recording:
    one: StepInput
    replay: Callable[[], None]
    losses: Tensor


def _tensors(one: StepInput) -> list[Tensor]:
    return [*one.output.tensors, one.device_labels, *one.pairs, *one.taught.values()]

"""Training steps of the product with a clock on their parts: for benchmarks/step.py."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._common import synchronise
from data.augment import AugmentParameters, BatchAugment
from data.faces import Faces
from data.loader import Batch, BatchLoader, ClassBalancedBatches
from models.frozen import FrozenBackbone
from training.branch import StepInput, TrainedBranch
from training.trainer import RecordedSteps, step_heads, step_inputs
from utils.config import Augment, Branch, Method, Schedule, TrainConfig
from utils.distributed import ALONE

PARTS = ("wait for data", "copy", "augment", "backbone", "head and loss", "optimizer")
IMAGES_PER_CLASS = 8


class Clock:
    """Adds up the seconds of parts that follow each other without a gap.

    On CUDA the marks are events on its stream, which nobody waits for until the end: a part has the
    time that the device spent on it or idled in it. Elsewhere they are looks at the clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[str, float | torch.cuda.Event]] = []

    def mark(self, part: str) -> None:
        """End what came since the last mark; it was this part, "" for none that counts."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._marks.append((part, event))
        else:
            self._marks.append((part, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Return the sum of each part; waits for the device."""
        synchronise(self._device)
        found = dict.fromkeys(PARTS, 0.0)
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            if part:
                found[part] += _between(before, now)
        return found


class NoClock(Clock):
    """Marks nothing."""

    def mark(self, part: str) -> None:
        """Do nothing."""


def _between(before: float | torch.cuda.Event, now: float | torch.cuda.Event) -> float:
    if isinstance(before, float) and isinstance(now, float):
        return now - before
    assert not isinstance(before, float)
    assert not isinstance(now, float)
    return before.elapsed_time(now) / 1e3


@dataclass
class Work:
    """What steps are made of.

    Attributes:
        frozen: the backbone.
        faces: a pack.
        batch: images of one optimizer step.
        steps_per_batch: S, steps whose images go through the backbone together.
        heads: number of branches.
        workers: threads that decode.
        recorded: whether steps without a clock on their parts are recorded, as the trainer does
            under "cuda_graph".
        hidden: units of every head's inner layer; None for 256 and 512.
        dropout: of every head.
        clock: in seconds, for steps without a clock on their parts.
    """

    frozen: FrozenBackbone
    faces: Faces
    batch: int
    steps_per_batch: int
    heads: int
    workers: int
    recorded: bool = False
    hidden: int | None = None
    dropout: float = 0.0
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        self.augment = BatchAugment(Augment(), 0)
        size = self.frozen.embedding_size
        heads = _config(self.heads, size, self.hidden, self.dropout).heads.items()
        self.branches = [TrainedBranch(name, one, self.frozen, ALONE) for name, one in heads]
        self._recorded = None
        if self.recorded:
            self._recorded = RecordedSteps(self.branches, self.frozen.device)
        self._started = False

    def timed(self, batches: int, clock: Clock) -> float:
        """Return the seconds of `batches` forward passes and all their steps."""
        warm_up = 2
        loader = self._loader((warm_up + batches) * self.steps_per_batch)
        with closing(iter(loader)) as found:
            for _ in range(warm_up):
                self._forward_and_steps(found, NoClock(self.frozen.device))
            synchronise(self.frozen.device)
            start = self.clock()
            clock.mark("")
            for _ in range(batches):
                self._forward_and_steps(found, clock)
            synchronise(self.frozen.device)
            return self.clock() - start

    def _loader(self, steps: int) -> BatchLoader:
        classes = self.batch // IMAGES_PER_CLASS
        return BatchLoader(
            self.faces,
            ClassBalancedBatches(self.faces.labels, classes, IMAGES_PER_CLASS, 0),
            range(steps),
            workers=self.workers,
            max_bad_share=0,
            on_bad=print,
            steps_per_batch=self.steps_per_batch,
            pin=self.frozen.device.type == "cuda",
        )

    def _forward_and_steps(self, found: Iterator[Batch], clock: Clock) -> None:
        batch = next(found)
        clock.mark("wait for data")
        images = batch.images.to(self.frozen.device, non_blocking=True)
        clock.mark("copy")
        rows = batch.rows.reshape(len(batch.steps), -1)
        parameters = AugmentParameters.concatenate(
            [self.augment.parameters(*one) for one in zip(batch.steps, rows, strict=True)]
        )
        images = self.augment(images, parameters)
        clock.mark("augment")
        output = self.frozen(images)
        clock.mark("backbone")
        for number, one in zip(batch.steps, step_inputs(batch, output), strict=True):
            if isinstance(clock, NoClock):
                self._step(number, one)
            else:
                self._clocked_step(number, one, clock)

    def _step(self, number: int, one: StepInput) -> None:
        record = self._recorded if self._started else None
        if record is None or record(number, one) is None:
            step_heads(self.branches, number, one, ALONE)
            self._started = True

    def _clocked_step(self, number: int, one: StepInput, clock: Clock) -> None:
        for branch in self.branches:
            _, result = branch.forward(number, one, with_stats=False)
            result.loss.backward()
        clock.mark("head and loss")
        for branch in self.branches:
            branch.update(number)
        clock.mark("optimizer")


def measure(works: Sequence[Work], images: int, repeats: int) -> list[dict[str, Any]]:
    """Time several kinds of steps in turn, so that all meet the same disturbances.

    Args:
        works: the kinds.
        images: that one timing has at least, after two forward passes that warm up.
        repeats: timings without a clock on the parts, and as many with one.

    Returns:
        For each, median `seconds_per_image`, and those of its `parts`.
    """
    whole: list[list[float]] = [[] for _ in works]
    parts: list[list[dict[str, float]]] = [[] for _ in works]
    for _ in range(repeats):
        for place, work in enumerate(works):
            size = work.steps_per_batch * work.batch
            batches = -(-images // size)
            whole[place].append(work.timed(batches, NoClock(work.frozen.device)) / (batches * size))
            clock = Clock(work.frozen.device)
            work.timed(batches, clock)
            found = clock.seconds()
            parts[place].append({part: found[part] / (batches * size) for part in PARTS})
    return [
        {
            "seconds_per_image": statistics.median(seconds),
            "parts": {part: statistics.median(one[part] for one in found) for part in PARTS},
        }
        for seconds, found in zip(whole, parts, strict=True)
    ]


def _config(heads: int, embedding_size: int, hidden: int | None, dropout: float) -> TrainConfig:
    """Return the config of that many branches, of the product's four losses in turn."""
    narrow, wide = ({"hidden": hidden or size, "dropout": dropout} for size in (256, 512))
    quality = Method("fc2", output="probability", **narrow)
    kinds = (
        (quality, Method("idq", scale=16.0, margin=0.45)),
        (quality, Method("pcnet")),
        (Method("fc2", output="variance", **wide), Method("fast_mls")),
        (Method("fc2", output="variance", dim=embedding_size, **wide), Method("mls")),
    )
    branches = tuple(
        Branch(f"head-{number}", head=head, loss=loss, seed=number)
        for number in range(heads)
        for head, loss in [kinds[number % len(kinds)]]
    )
    return TrainConfig(
        name="step",
        backbone=Method("iresnet"),
        backbone_weights="none",
        train_images="none",
        schedule=Schedule(epochs=1, steps_per_epoch=10_000, lr=1e-3),
        branches=branches,
    )

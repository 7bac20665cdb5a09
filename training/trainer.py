"""The loop: batches through the frozen backbone, then a step of every head on what it gave.

Used by network.py. One process or many: each takes whole identities of every batch.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data.augment.batch import AugmentParameters, BatchAugment
from data.faces import open_faces
from data.loader import Batch, BatchLoader
from data.sampler import ClassBalancedBatches, RankShare
from data.verification import open_verification
from models.execution import CudaGraphs
from models.output import BackboneOutput
from models.run import backbone_record, check_backbone, load_frozen
from training.branch import TrainedBranch
from training.files import RunFiles
from training.heads_step import HeadsStep, RecordedSteps, heads_step
from training.report import report_step
from training.step_input import StepInput, step_inputs
from training.teachers import open_teachers
from training.train_log import TrainLog, log_start
from training.verify import in_short, mean_area, verify
from utils.config import TrainConfig
from utils.distributed import ALONE, World
from utils.run import LOGGER
from utils.stop import StopRequest

SECONDS_BETWEEN_SAVES = 60.0
IMAGES_PER_FORWARD = 512  # on an accelerator, unless the config says how many steps go together


class SharedError(ValueError):
    """A mistake that all processes of a job raise together, so that one of them may tell it."""


class Trainer:
    """One run: what is trained, on what, and how far it has come.

    Everything that the config names is opened here, so that a mistake shows before any work.

    Args:
        config: of the run.
        checkpoint: what `last.pt` holds, to go on from there; it may come from another number of
            processes.
        world: the processes that share each batch.
        device: of this process; None for the config's.

    Raises:
        ValueError: a name, option or file of the config that does not exist or does not fit.
    """

    def __init__(
        self,
        config: TrainConfig,
        checkpoint: dict[str, Any] | None = None,
        world: World = ALONE,
        device: torch.device | None = None,
    ) -> None:
        self.config, self.world = config, world
        self.frozen = load_frozen(
            config, str(device or config.device), config.precision, execution=config.execution
        )
        self.backbone = backbone_record(self.frozen, config.backbone_weights)
        if checkpoint is not None:
            check_backbone(checkpoint, self.frozen, config.backbone_weights)
        self.branches = [
            TrainedBranch(name, alone, self.frozen, world, _state(checkpoint, name))
            for name, alone in config.heads.items()
        ]
        self.augment = BatchAugment(config.augment, config.seed)
        self.verification = [
            open_verification(target, config.verification.dataset_path)
            for target in config.verification.targets
        ]
        self.faces = open_faces(config.train_images)
        self.teachers = open_teachers(config, self.frozen, self.faces, self.augment)
        self.sampler = ClassBalancedBatches(
            self.faces.labels, config.classes_per_batch, config.images_per_class, config.seed
        )
        self.rank_share = RankShare(self.sampler, world.rank, world.size)
        self.step = 0 if checkpoint is None else int(checkpoint["step"])
        self.stop = StopRequest(second_interrupts=world.size == 1)
        self._bad: list[str] = []
        self._unchecked = torch.zeros(len(self.branches), device=self.frozen.device)
        self._saved_at = time.monotonic()
        self._steps_here = 0
        self._recorded: RecordedSteps | None = None

    @property
    def batch_size(self) -> int:
        """Images of one step in this process."""
        return self.config.classes_per_batch // self.world.size * self.config.images_per_class

    @property
    def steps_per_forward(self) -> int:
        """Steps whose images go through the backbone together."""
        if self.config.steps_per_forward is not None:
            return self.config.steps_per_forward
        if self.frozen.device.type == "cpu":
            return 1
        return max(1, IMAGES_PER_FORWARD // self.batch_size)

    def run(self, folder: Path) -> None:
        """Train from the current step to the end, or until a stop is asked for.

        Args:
            folder: the run folder, which exists; log, metrics and checkpoints are written there, by
                the first process alone.
        """
        self.files = RunFiles(folder, self.config, self.backbone, self.branches)
        loader = BatchLoader(
            self.faces,
            self.rank_share,
            range(self.step, self.config.schedule.total_steps),
            workers=self.config.workers,
            max_bad_share=self.config.max_bad_share,
            on_bad=self._on_bad,
            steps_per_batch=self.steps_per_forward,
            pin=self.frozen.device.type == "cuda",
        )
        with ExitStack() as stack:
            logs = self._start_logs(stack) if self.world.is_main else []
            stack.enter_context(self.stop)
            batches = stack.enter_context(closing(iter(loader)))
            bar = stack.enter_context(self._progress())
            self._loop(batches, logs, bar)
        self._save()
        if self.world.is_main:
            self.files.save_branches(self.step)

    def _loop(self, batches: Iterator[Batch], logs: list[TrainLog], bar: tqdm[Any]) -> None:
        if self.step == 0:
            self._save()
        for branch in self.branches:
            branch.head.train()
        for batch in batches:
            for one in step_inputs(batch, self.forward(batch), self.teachers):
                asked = self.train_step(one, logs)
                bar.update()
                if self._stops(asked):
                    self._check_finite()
                    self._tell_bad_images()
                    return

    def forward(self, batch: Batch) -> BackboneOutput:
        """Augment the images of one or several steps and embed them; keep them if a head reads."""
        steps = zip(batch.steps, np.split(batch.rows, len(batch.steps)), strict=True)
        parameters = [self.augment.parameters(*one) for one in steps]
        images = batch.images.to(self.frozen.device, non_blocking=True)
        output = self.frozen(self.augment(images, AugmentParameters.concatenate(parameters)))
        kept = any(branch.head.reads == "images" for branch in self.branches)
        return output if kept else output._replace(images=None)

    def train_step(self, one: StepInput, logs: list[TrainLog]) -> Tensor | None:
        """Do one optimizer step of every head, and what is due after it.

        Args:
            one: the step's images.
            logs: one per branch; empty where another process writes them.

        Returns:
            Above 0 where any process was asked to stop; read it only where waiting is cheap. None
            where there is one process, which knows by itself.
        """
        at_log = (self.step + 1) % self.config.log_every == 0
        losses = None if at_log else self._recorded_step(one)
        done = None
        if losses is None:
            done = heads_step(
                self.branches,
                self.step,
                one,
                self.world,
                with_stats=at_log,
                stop=self.stop.is_requested,
            )
            losses = done.losses
        self._unchecked += losses
        self._steps_here += 1
        self.step += 1
        self._after_step(done, one, logs)
        return None if done is None else done.asked

    def _recorded_step(self, one: StepInput) -> Tensor | None:
        """Do a step as a recording of an earlier one, where that is wanted and can be done."""
        wanted = self.config.execution == "cuda_graph" and self.world.size == 1
        if not wanted or self._steps_here == 0 or any(branch.draws for branch in self.branches):
            return None
        if self._recorded is None:
            graphs = CudaGraphs(self.frozen.device)
            self._recorded = RecordedSteps(self.branches, self.world, graphs)
        return self._recorded(self.step, one)

    def _after_step(self, done: HeadsStep | None, one: StepInput, logs: list[TrainLog]) -> None:
        at_log = self.step % self.config.log_every == 0
        at_epoch = self.step % self.config.schedule.steps_per_epoch == 0
        if at_log or at_epoch:
            self._check_finite()
            self._tell_bad_images()
        if at_log and done is not None:
            report_step(self.step, self.branches, done, one, logs, self.world)
        if at_epoch:
            self._finish_epoch(logs)
        if at_epoch or (at_log and time.monotonic() - self._saved_at > SECONDS_BETWEEN_SAVES):
            self._save()

    def _stops(self, asked: Tensor | None) -> bool:
        """Whether all processes stop here; on a GPU several look only where they wait anyway."""
        if asked is None or self.world.size == 1:
            return self.stop.is_requested
        waits = self.step % self.config.log_every == 0 or self.frozen.device.type == "cpu"
        return waits and float(asked) > 0

    def _save(self) -> None:
        if self.world.is_main:
            self.files.save(self.step)
        self._saved_at = time.monotonic()

    def _start_logs(self, stack: ExitStack) -> list[TrainLog]:
        log_start(
            self.config,
            {branch.name: branch.loss.summary for branch in self.branches},
            num_images=len(self.faces),
            num_classes=self.faces.num_classes,
            left_out=self.sampler.num_left_out_classes,
            resume_at=self.step,
        )
        return self.files.open_logs(self.step, stack)

    def _progress(self) -> tqdm[Any]:
        hidden = not (self.world.is_main and sys.stderr.isatty())
        total = self.config.schedule.total_steps
        return tqdm(total=total, initial=self.step, unit="step", disable=hidden, dynamic_ncols=True)

    def _check_finite(self) -> None:
        self.world.barrier()  # on the host, where a process that is lost shows at once
        self.world.sum_(self._unchecked)
        finite = torch.isfinite(self._unchecked).tolist()
        self._unchecked.zero_()
        for branch, is_finite in zip(self.branches, finite, strict=True):
            if not is_finite:
                first = max(0, self.step - self.config.log_every) + 1
                whose = f" of branch {branch.name}" if branch.name else ""
                raise SharedError(
                    f"the loss{whose} is not finite at some step in {first}..{self.step}; "
                    f"lower schedule.lr ({branch.config.schedule.lr:g})"
                )

    def _on_bad(self, text: str) -> None:
        if self.world.is_main:
            LOGGER.warning("skipped: %s", text)
        else:
            self._bad.append(text)

    def _tell_bad_images(self) -> None:
        """Log the images that other processes could not read since the last time."""
        told, self._bad = self._bad, []
        for texts in self.world.gather(told):
            for text in texts:
                LOGGER.warning("skipped: %s", text)

    def _finish_epoch(self, logs: list[TrainLog]) -> None:
        found = verify(
            self.branches, self.frozen, self.verification, self.config.verification, self.world
        )
        if not self.world.is_main:
            return
        for branch, results, log in zip(self.branches, found, logs, strict=True):
            for result in results:
                short = in_short(result)
                log.evaluation(self.step, result.name, result.text, short, result.to_dict())
            score = mean_area(results)
            if score is None or branch.best is None or score < branch.best:
                branch.best = score
                self.files.save_best(branch, self.step)
        self.files.save_branches(self.step)


def _state(checkpoint: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    if checkpoint is None or not name:
        return checkpoint
    states: dict[str, dict[str, Any]] = checkpoint["branches"]
    if name not in states:
        raise ValueError(f"no branch {name!r} in the checkpoint (there: {', '.join(states)})")
    return states[name]

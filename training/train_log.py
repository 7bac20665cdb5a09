"""What a training run tells: the original's log lines for people, `metrics.jsonl` for programs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from training.collapse import CollapseDetector
from training.log_line import format_line, stats_as_numbers
from utils.config import TrainConfig
from utils.run import LOGGER, MetricsFile


def log_start(
    config: TrainConfig,
    summaries: Mapping[str, str],
    *,
    num_images: int,
    num_classes: int,
    left_out: int,
    resume_at: int,
) -> None:
    """Say what is about to be trained, and which identities cannot take part.

    Args:
        config: of the run.
        summaries: each loss in one line, by the name of its branch.
        num_images: of the faces to train on.
        num_classes: identities among them.
        left_out: identities with a single image.
        resume_at: the step that the run goes on from.
    """
    batch_size = config.classes_per_batch * config.images_per_class
    LOGGER.info("Start Training")
    if resume_at:
        LOGGER.info("resumed at step: %d", resume_at)
    LOGGER.info("name: %s", config.name)
    LOGGER.info("num_epochs: %d", config.schedule.epochs)
    LOGGER.info("epoch_size: %d", config.schedule.steps_per_epoch)
    LOGGER.info("batch_size: %d", batch_size)
    per_class = batch_size / config.classes_per_batch
    LOGGER.info("num_c_in_batch %d num_img_each_c %s", config.classes_per_batch, per_class)
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        LOGGER.info(f"{name:{width}} {summary}".strip())
    LOGGER.info("faces: %d of %d identities", num_images, num_classes)
    if left_out:
        LOGGER.info("left out: %d identities with a single image (no genuine pair)", left_out)


class TrainLog:
    """Log of one head; a context manager that closes its file.

    Args:
        folder: where its `metrics.jsonl` is.
        config: that trains this head.
        resume_at: the step that the run goes on from; later lines of an earlier try are dropped.
        label: which of several heads it is, as its lines say.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, resume_at: int = 0, label: str = ""
    ) -> None:
        self._config = config
        self._label = label
        self._tables = folder / "log.txt"
        self._metrics = MetricsFile(folder / "metrics.jsonl", resume_at)
        self._collapse = CollapseDetector()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._metrics.close()

    def step(
        self,
        global_step: int,
        lr: float,
        loss: float,
        stats: Mapping[str, Tensor],
        memory_gib: float,
        rank_correlation: float,
        uncertainty: Tensor,
    ) -> None:
        """Write the line of one batch, and a warning when its head is collapsing.

        Args:
            global_step: steps done, from 1.
            lr: of that step.
            loss: of that batch.
            stats: `LossResult.stats`.
            memory_gib: peak memory.
            rank_correlation: of uncertainty with pair hardness (`training.collapse`).
            uncertainty: (B,) of the batch.
        """
        steps = self._config.schedule.steps_per_epoch
        epoch, step = (global_step - 1) // steps, (global_step - 1) % steps + 1
        LOGGER.info(format_line(epoch, step, loss, lr, stats, memory_gib, self._label))
        for warning in self._collapse.check(uncertainty, rank_correlation):
            LOGGER.warning(f"{self._label} {warning}".lstrip())
        self._metrics.write(
            time=time.time(),
            epoch=epoch,
            step=step,
            global_step=global_step,
            loss=loss,
            lr=lr,
            rank_correlation=rank_correlation,
            memory_gib=memory_gib,
            **stats_as_numbers(stats),
        )

    def evaluation(
        self, global_step: int, name: str, text: str, short: str, numbers: dict[str, Any]
    ) -> None:
        """Write what one verification set says of the head.

        Args:
            global_step: steps done.
            name: of the set.
            text: the whole table. One of several heads has it in its own `log.txt` alone.
            short: one line that stands for the table in the log of several heads.
            numbers: all of it, for `metrics.jsonl`.
        """
        table = f"---{name}\n{text.rstrip()}"
        if not self._label:
            LOGGER.info(table)
        else:
            LOGGER.info("---%s %s %s", name, self._label, short)
            with self._tables.open("a", encoding="utf-8") as file:
                file.write(f"step {global_step}\n{table}\n")
        self._metrics.write(global_step=global_step, evaluation=numbers)

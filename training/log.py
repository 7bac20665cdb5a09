"""What a training run logs: lines in the original's format, `metrics.jsonl`, and warnings.

A head that has stopped telling faces apart is noticed while there is still time to stop the run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import spearmanr
from torch import Tensor

from data.faces import Faces
from evaluation.original import FMR_TARGETS, OriginalTable
from losses.base import genuine_pairs
from report.results import original_dict
from report.text import original_text
from utils.config import TrainConfig
from utils.files import DAMAGE
from utils.run import LOGGER, MetricsFile

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLOOR = 1e-6
FLOOR_SHARE = 0.95
LEAST_RANK = 0.05


def log_start(
    config: TrainConfig,
    summaries: Mapping[str, str],
    faces: Faces,
    left_out: int,
    resume_at: int,
) -> None:
    """Say what is about to be trained, and how many identities are left out.

    `summaries` are each loss in one line, by the name of its branch.
    """
    LOGGER.info("Start Training")
    if resume_at:
        LOGGER.info("resumed at step: %d", resume_at)
    LOGGER.info("name: %s", config.name)
    LOGGER.info("num_epochs: %d", config.schedule.epochs)
    LOGGER.info("epoch_size: %d", config.schedule.steps_per_epoch)
    classes, per_class = config.classes_per_batch, config.images_per_class
    LOGGER.info("batch_size: %d", classes * per_class)
    LOGGER.info("num_c_in_batch %d num_img_each_c %.1f", classes, per_class)
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        LOGGER.info(f"{name:{width}} {summary}".strip())
    LOGGER.info("faces: %d of %d identities", len(faces), faces.num_classes)
    if left_out:
        LOGGER.info("left out: %d identities with a single image (no genuine pair)", left_out)


def open_tensorboard(folder: Path) -> SummaryWriter:
    """Open TensorBoard's file in a folder; ValueError where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "log_to = 'tensorboard' needs a package that is not installed: pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder))


class TrainLog:
    """Log of one head; a context manager that closes its files.

    Args:
        folder: where its `metrics.jsonl` is.
        config: of this head.
        resume_at: the step that the run resumes from; later lines of an earlier try are dropped.
        label: which of several heads it is, as its lines say.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, resume_at: int = 0, label: str = ""
    ) -> None:
        self._config = config
        self._label = label
        self._tables = folder / "log.txt"
        self._tensorboard = open_tensorboard(folder) if config.log_to == "tensorboard" else None
        self._metrics = MetricsFile(folder / "metrics.jsonl", resume_at)
        self._collapse = CollapseDetector()

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

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

        Steps count from 1; stats are `LossResult.stats`, the correlation that of the uncertainty
        (B,) with the hardness of pairs.
        """
        steps = self._config.schedule.steps_per_epoch
        epoch, step = (global_step - 1) // steps, (global_step - 1) % steps + 1
        LOGGER.info(format_line(epoch, step, loss, lr, stats, memory_gib, self._label))
        for warning in self._collapse.check(uncertainty, rank_correlation):
            LOGGER.warning(f"{self._label} {warning}".lstrip())
        numbers = {
            "loss": loss,
            "lr": lr,
            "rank_correlation": rank_correlation,
            "memory_gib": memory_gib,
            **stats_as_numbers(stats),
        }
        self._metrics.write(
            time=time.time(), epoch=epoch, step=step, global_step=global_step, **numbers
        )
        if self._tensorboard is not None:
            for name, value in numbers.items():
                mean = value[0] if isinstance(value, list) else value
                self._tensorboard.add_scalar(name, mean, global_step)

    def evaluation(self, global_step: int, table: OriginalTable) -> None:
        """Write what one verification set says of the head.

        One of several heads has the table in its own `log.txt`, and a line in that of the run.
        """
        text = f"---{table.name}\n{original_text(table).rstrip()}"
        if not self._label:
            LOGGER.info(text)
        else:
            LOGGER.info("---%s %s %s", table.name, self._label, summary_line(table))
            with self._tables.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"step {global_step}\n{text}\n")
        self._metrics.write(global_step=global_step, evaluation=original_dict(table))
        if self._tensorboard is not None:
            area = table.blocks[0].areas.auerc30
            self._tensorboard.add_scalar(f"auerc30/{table.name}", area, global_step)

    def sync(self) -> None:
        """Have the metrics on the disk."""
        self._metrics.sync()

    def draw(self) -> None:
        """Draw `curves.png` from everything that was logged so far."""
        from report.figures import draw_training_curves  # matplotlib is slow to import

        try:
            draw_training_curves(
                self._metrics.path,
                self._metrics.path.with_name("curves.png"),
                f"{self._config.name} {self._label}".strip(),
                self._config.schedule.steps_per_epoch,
            )
        except (ValueError, *DAMAGE) as error:
            LOGGER.warning("%s is damaged: no curves.png (%s)", self._metrics.path, error)


def summary_line(table: OriginalTable) -> str:
    """Return the FNMR at FMR 1e-3 with nothing and with 30 % discarded, and the area between."""
    block = table.blocks[0]
    fnmr = block.curves[FMR_TARGETS.index(1e-3)].fnmr
    area = f"AUERC30 {block.areas.auerc30:.4f}"
    return f"fmr1000 {fnmr[0]:.6f}, of the best 70 % {fnmr[30]:.6f}, {area}"


def format_stat(name: str, values: Tensor) -> str:
    """Return ` name mean max min` of a tensor, or ` name value` of a scalar.

    Two decimals, or two significant digits in scientific form where the mean is at most 0.01;
    scalars have three decimals.
    """
    numbers = _numbers(values)
    if isinstance(numbers, float):
        return f" {name} {numbers:2.3f}"
    form = ".1e" if abs(numbers[0]) <= 1e-2 else ".2f"
    return f" {name} {' '.join(f'{number:{form}}' for number in numbers)}"


def format_line(
    epoch: int,
    step: int,
    loss: float,
    lr: float,
    stats: Mapping[str, Tensor],
    memory_gib: float,
    label: str = "",
) -> str:
    """Return one log line; see `TrainLog`. Epochs count from 0, the steps of one from 1."""
    head = f"[{epoch}-{step}] {label}".rstrip()
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    text = "".join(format_stat(name, values) for name, values in stats.items())
    return f"{now} {head} | loss {loss:.3f} lr{lr:g}{text} mem {memory_gib:.1f} G"


def stats_as_numbers(stats: Mapping[str, Tensor]) -> dict[str, float | list[float]]:
    """Return the same statistics unrounded, for `metrics.jsonl`: [mean, max, min] or a number."""
    return {name: _numbers(values) for name, values in stats.items()}


def _numbers(values: Tensor) -> float | list[float]:
    if values.ndim == 0:
        return float(values)
    return [float(values.mean()), float(values.max()), float(values.min())]


def rank_correlation(uncertainty: Tensor, mu: Tensor, labels: Tensor) -> float:
    """Return Spearman's correlation of uncertainty and hardness over the genuine pairs of a batch.

    Args:
        uncertainty: (B,), larger = less reliable; a pair has the larger of its two.
        mu: (B, D) L2-normalised embeddings; hardness is 1 - cos.
        labels: (B,).

    It is 0 where all pairs are tied.
    """
    first, second = (index.numpy() for index in genuine_pairs(labels.cpu()))
    values = uncertainty.detach().float().cpu().numpy()
    similarity = (mu @ mu.T).detach().float().cpu().numpy()
    pair = np.maximum(values[first], values[second])
    hardness = 1 - similarity[first, second]
    if np.ptp(pair) == 0 or np.ptp(hardness) == 0:
        return 0.0
    return float(spearmanr(pair, hardness).statistic)


class CollapseDetector:
    """Warns when uncertainties sit at their floor or no longer rank the pairs by hardness.

    A good uncertainty is high for the pairs of one person that look unlike each other.

    Args:
        window: log lines over which the correlation is averaged before it is judged.
    """

    def __init__(self, window: int = 5) -> None:
        self._ranks: deque[float] = deque(maxlen=window)

    def check(self, uncertainty: Tensor, rank: float) -> list[str]:
        """Take one batch into account and return what is wrong, in words; usually nothing."""
        values = uncertainty.detach().float()
        warnings = []
        at_floor = float((values < FLOOR).float().mean())
        if at_floor > FLOOR_SHARE:
            warnings.append(
                f"collapse: {at_floor:.0%} of the uncertainties are below {FLOOR:g}; "
                "lower the learning rate"
            )
        if len(values) > 1 and float(values.std() / values.mean().clamp_min(1e-12)) < 1e-4:
            warnings.append("collapse: every face of the batch gets the same uncertainty")
        self._ranks.append(rank)
        mean = float(np.mean(self._ranks))
        if len(self._ranks) == self._ranks.maxlen and mean < LEAST_RANK:
            warnings.append(
                f"collapse: uncertainty no longer ranks the hard pairs (Spearman {mean:.2f} over "
                f"the last {len(self._ranks)} log lines)"
            )
        return warnings

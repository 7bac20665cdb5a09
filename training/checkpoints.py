"""The checkpoints of a run and the folder of each branch, and what may change where one resumes.

The first process writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from models.load import Checkpoint, save_checkpoint
from training.branch import TrainedBranch
from training.log import TrainLog
from utils.config import TrainConfig, from_json, to_json
from utils.files import require_folder, write_text


def check_resumable(config: TrainConfig, checkpoint: Checkpoint) -> None:
    """Refuse to resume with what the state of a checkpoint does not fit; see docs/train.md.

    Raises:
        ValueError: another network, loss or optimizer, or a schedule that ends before the
            checkpoint; names what differs.
    """
    before, now = _state_of(from_json(checkpoint["config"])), _state_of(config)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if names:
        differences = ", ".join(f"{x} = {now.get(x)!r} (was {before.get(x)!r})" for x in names)
        raise ValueError(
            f"cannot resume with {differences}: the run's saved state does not fit; resume without "
            "this change, or start a new run with --config_file"
        )
    step, schedule = int(checkpoint["step"]), config.schedule
    if schedule.total_steps < step:
        raise ValueError(
            f"cannot resume with a schedule of {schedule.epochs} x {schedule.steps_per_epoch} "
            f"steps: the run has done {step}; set schedule.epochs to "
            f"{-(-step // schedule.steps_per_epoch)} or more, or leave the schedule as it was"
        )


def is_judged_alike(config: TrainConfig, checkpoint: Checkpoint) -> bool:
    """Whether a config's evaluations compare with the best one of a checkpoint."""
    settings = [each.verification for each in (config, from_json(checkpoint["config"]))]
    now, before = ((each.targets, each.flip, each.protocol) for each in settings)
    return now == before


def _state_of(config: TrainConfig) -> dict[str, object]:
    """The fields that a run's state is of, by their names."""
    fields: dict[str, object] = {"backbone": config.backbone}
    for name, head in config.heads.items():
        assert head.loss is not None
        of_head = {
            "head": head.head,
            "head_weights": head.head_weights,
            "loss": head.loss.name,
            "schedule.optimizer": head.schedule.optimizer,
        }
        prefix = f"branches.{name}." if name else ""
        fields |= {f"{prefix}{field}": value for field, value in of_head.items()}
    return fields


class RunFiles:
    """The files of a run; `backbone` is that of `models.run.backbone_record`.

    With branches, each has a folder of its own that is a run folder too, as if that head had been
    trained by itself; the run's own `last.pt` holds all of them.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        backbone: Checkpoint,
        branches: Sequence[TrainedBranch],
    ) -> None:
        self.folder, self.config, self.branches = folder, config, branches
        self._backbone = backbone
        self._logs: list[TrainLog] = []

    def open_logs(self, step: int, stack: ExitStack) -> list[TrainLog]:
        """Make each branch's folder and open its log, to resume from a step."""
        width = max(len(branch.name) for branch in self.branches)
        self._logs = []
        for branch in self.branches:
            folder = self.folder / branch.name
            if branch.name:
                folder.mkdir(exist_ok=True)
                write_text(folder / "config.json", to_json(branch.config) + "\n")
            log = TrainLog(folder, branch.config, step, branch.name.ljust(width))
            self._logs.append(stack.enter_context(log))
        return self._logs

    def save(self, step: int) -> None:
        """Write `last.pt` with everything that resuming needs, once its metrics are on the disk."""
        for log in self._logs:
            log.sync()
        states = {branch.name: branch.state() for branch in self.branches}
        run = {"branches": states} if self.config.branches else states[""]
        self._write(self.folder / "last.pt", self.config, step, run)

    def save_best(self, branch: TrainedBranch, step: int) -> None:
        """Write a head's `best.pt`."""
        self._write(self.folder / branch.name / "best.pt", branch.config, step, branch.state())

    def save_branches(self, step: int) -> None:
        """Write the `last.pt` of each branch's folder; nothing where there are no branches."""
        for branch in self.branches if self.config.branches else ():
            self._write(self.folder / branch.name / "last.pt", branch.config, step, branch.state())

    def _write(self, path: Path, config: TrainConfig, step: int, state: Checkpoint) -> None:
        require_folder(self.folder)
        shared = {"config": to_json(config), "backbone": self._backbone, "step": step}
        save_checkpoint(path, {**shared, **state})

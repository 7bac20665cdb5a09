"""The checkpoints of a run and the folder of each branch; the first process writes them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from models.load import save_checkpoint
from training.branch import TrainedBranch
from training.log import TrainLog
from utils.config import TrainConfig, to_json
from utils.files import write_text


class RunFiles:
    """The files of a run; `backbone` is that of `models.run.backbone_record`.

    With branches, each has a folder of its own that is a run folder too, as if that head had been
    trained by itself; the run's own `last.pt` holds all of them.
    """

    def __init__(
        self,
        folder: Path,
        config: TrainConfig,
        backbone: dict[str, Any],
        branches: Sequence[TrainedBranch],
    ) -> None:
        self.folder, self.config, self.branches = folder, config, branches
        self._backbone = backbone

    def open_logs(self, step: int, stack: ExitStack) -> list[TrainLog]:
        """Make each branch's folder and open its log, to resume from a step."""
        width = max(len(branch.name) for branch in self.branches)
        logs = []
        for branch in self.branches:
            folder = self.folder / branch.name
            if branch.name:
                folder.mkdir(exist_ok=True)
                write_text(folder / "config.json", to_json(branch.config) + "\n")
            log = TrainLog(folder, branch.config, step, branch.name.ljust(width))
            logs.append(stack.enter_context(log))
        return logs

    def save(self, step: int) -> None:
        """Write `last.pt` with everything that resuming needs."""
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

    def _write(self, path: Path, config: TrainConfig, step: int, state: dict[str, Any]) -> None:
        shared = {"config": to_json(config), "backbone": self._backbone, "step": step}
        save_checkpoint(path, {**shared, **state})

"""Configs are data: frozen dataclasses that a Python file fills in and that JSON can carry.

A config file defines one name, `config = TrainConfig(...)`. It is code, run only when the user
names it; run folders and checkpoints carry the same config as JSON, which is never executed.
"""

from __future__ import annotations

import dataclasses
import runpy
import traceback
import typing
from dataclasses import dataclass
from pathlib import Path

from utils._config_parts import (
    Augment,
    Branch,
    Execution,
    Method,
    Precision,
    Schedule,
    Verification,
    require,
)

__all__ = [
    "Augment",
    "Branch",
    "Execution",
    "Method",
    "Precision",
    "Schedule",
    "TrainConfig",
    "Verification",
    "load_config",
]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run: a frozen backbone, a head, a loss, and the faces to train on.

    Attributes:
        name: of the run; its folder is `<log_dir>/<name>` unless `--model_dir` says otherwise.
        backbone: Method of `models.backbones`.
        backbone_weights: file with the backbone's tensors.
        head: Method of `models.heads`.
        head_weights: file with a head's tensors to start from, such as one of the original.
        head_seed: of the head's initial weights and dropout; None for `seed`.
        loss: Method of `losses`.
        teacher: see `Branch`.
        branches: several heads with losses of their own, instead of `head` and `loss`.
        train_images: where faces are: a folder with one folder per identity, a list file, a `.rec`
            pack or `synthetic:...`; several are joined (identities are kept apart).
        schedule: see `Schedule`.
        classes_per_batch: identities in a batch.
        images_per_class: images of each identity in a batch.
        steps_per_forward: optimizer steps whose images go through the backbone together; the steps
            themselves, and what is learned, stay the same. None: 1 on a CPU, and on an accelerator
            as many as make 512 images.
        augment: see `Augment`.
        verification: evaluated after each epoch; no targets, no evaluation.
        log_every: steps between log lines.
        log_dir: parent of run folders.
        seed: fixes batches and augmentation, and initial weights unless `head_seed` does.
        workers: threads that read and decode.
        max_bad_share: the run stops when more than this share of the images read is unreadable.
        precision: of the frozen backbone; "auto" is bf16 or fp16 on an accelerator, fp32 on a CPU.
        execution: of the frozen backbone: "eager"; "cuda_graph" replays its kernels without the
            host's work for each; "compile" is torch.compile, whose first batches take long.
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
    """

    name: str
    backbone: Method
    backbone_weights: str
    train_images: str | tuple[str, ...]
    schedule: Schedule
    head: Method | None = None
    head_weights: str | None = None
    head_seed: int | None = None
    loss: Method | None = None
    teacher: str | None = None
    branches: tuple[Branch, ...] = ()
    classes_per_batch: int = 10
    images_per_class: int = 8
    steps_per_forward: int | None = None
    augment: Augment = Augment()
    verification: Verification = Verification()
    log_every: int = 100
    log_dir: str = "runs"
    seed: int = 0
    workers: int = 4
    max_bad_share: float = 0.01
    precision: Precision = "auto"
    execution: Execution = "eager"
    device: str = "auto"

    def __post_init__(self) -> None:
        require(bool(self.name), "name", self.name, "not empty")
        self._check_heads()
        require(self.classes_per_batch >= 1, "classes_per_batch", self.classes_per_batch, ">= 1")
        require(
            self.images_per_class >= 2,
            "images_per_class",
            self.images_per_class,
            "at least 2: a loss needs genuine pairs",
        )
        require(self.log_every >= 1, "log_every", self.log_every, "at least 1")
        require(self.workers >= 1, "workers", self.workers, "at least 1")
        require(0 <= self.max_bad_share <= 1, "max_bad_share", self.max_bad_share, "in [0, 1]")
        require(
            self.steps_per_forward is None or self.steps_per_forward >= 1,
            "steps_per_forward",
            self.steps_per_forward,
            "at least 1, or None",
        )
        for field, kind in (("precision", Precision), ("execution", Execution)):
            allowed = typing.get_args(kind)
            require(
                getattr(self, field) in allowed, field, getattr(self, field), f"one of {allowed}"
            )

    def _check_heads(self) -> None:
        if not self.branches:
            for field in ("head", "loss"):
                given = getattr(self, field)
                require(given is not None, field, given, "given, unless branches are")
            return
        for field in ("head", "loss", "teacher", "head_weights", "head_seed"):
            given = getattr(self, field)
            require(given is None, field, given, "left out: each of the branches has its own")
        names = [branch.name for branch in self.branches]
        folders = {name.casefold() for name in names}
        require(len(folders) == len(names), "branches", names, "of different names, in any case")
        for place, branch in enumerate(self.branches):
            later = branch.teacher in names[place:]
            rule = f"a branch before {branch.name!r}, or a path"
            require(not later, f"branches.{branch.name}.teacher", branch.teacher, rule)
            own = branch.schedule or self.schedule
            same = (own.epochs, own.steps_per_epoch) == (
                self.schedule.epochs,
                self.schedule.steps_per_epoch,
            )
            steps = f"{own.epochs} x {own.steps_per_epoch} steps"
            require(same, f"branches.{branch.name}.schedule", steps, "as long as the run's")

    @property
    def sources(self) -> tuple[str, ...]:
        """`train_images` as a tuple."""
        return (self.train_images,) if isinstance(self.train_images, str) else self.train_images

    def alone(self, branch: Branch) -> TrainConfig:
        """Return the config that trains one of the branches by itself.

        To the same weights, unless its teacher is another branch.
        """
        return dataclasses.replace(
            self,
            name=f"{self.name}-{branch.name}",
            branches=(),
            head=branch.head,
            loss=branch.loss,
            teacher=branch.teacher,
            head_seed=branch.seed,
            head_weights=branch.head_weights,
            schedule=branch.schedule or self.schedule,
        )

    @property
    def heads(self) -> dict[str, TrainConfig]:
        """The config of each head by itself, by its branch's name; "" where there are none."""
        if not self.branches:
            return {"": self}
        return {branch.name: self.alone(branch) for branch in self.branches}


def load_config(path: str | Path) -> TrainConfig:
    """Run a config file and return its `config`.

    Raises:
        ValueError: no such file, it does not define `config = TrainConfig(...)`, or it fails; the
            message has the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no config file {path}")
    try:
        config = runpy.run_path(str(path)).get("config")
    except ValueError:
        raise
    except Exception as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == str(path)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else "?"
        raise ValueError(f"{path}:{line}: {type(error).__name__}: {error}") from error
    if not isinstance(config, TrainConfig):
        raise ValueError(
            f"{path} does not define `config = TrainConfig(...)`; "
            "docs/migrating.md maps the original's flat config files"
        )
    return config

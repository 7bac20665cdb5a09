"""What the command line of network.py asks for, done: a config, a run folder, a trainer."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from evaluation.metrics.protocols import PROTOCOLS, find_protocol
from models.load import Checkpoint, load_checkpoint
from training.trainer import SharedError, Trainer
from utils.cli import explain, say_last
from utils.config import TrainConfig, from_json, load_config, override
from utils.device import resolve_device
from utils.distributed import RankLost, World
from utils.files import remove_leftovers, sole_writer
from utils.long_work import StopRequest
from utils.run import (
    LOGGER,
    environment,
    keep_quiet,
    new_run_folder,
    record_run,
    start_logging,
    stop_logging,
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainingJob:
    """A run to start or, with the content of its `last.pt` as checkpoint, to resume.

    `settings` are `KEY=VALUE` texts that changed the config; without a folder the run gets
    `<log_dir>/<name>`.
    """

    config: TrainConfig
    checkpoint: Checkpoint | None = None
    folder: Path | None = None
    config_file: Path | None = None
    settings: Sequence[str] = ()


def new_job(config_file: Path, settings: Sequence[str], folder: Path | None) -> TrainingJob:
    """Read a config; ValueError for a file, field or protocol that does not exist or fit."""
    config = _checked(override(load_config(config_file), settings))
    return TrainingJob(config, None, folder, config_file, settings)


def resumed_job(folder: Path, settings: Sequence[str]) -> TrainingJob:
    """Read a run that stopped; ValueError where there is none."""
    if not (folder / "last.pt").is_file():
        raise ValueError(
            f"nothing to resume in {folder}: no last.pt, so it is not a run folder or the run "
            "stopped before its first save; start with --config_file"
        )
    checkpoint = load_checkpoint(folder / "last.pt")
    config = _checked(override(from_json(checkpoint["config"]), settings))
    return TrainingJob(config, checkpoint, folder, None, settings)


def train(job: TrainingJob, world: World, device: str) -> int:
    """Train; 0 when the run is complete, 130 when it was stopped.

    Raises:
        SharedError: whatever is wrong in any process.
        SystemExit: another process is gone; it was said how to resume.
    """
    start_logging() if world.is_main else keep_quiet()
    with ExitStack() as claims:
        claims.callback(stop_logging)
        trainer, folder = _prepare(job, world, resolve_device(device), claims)
        # torchrun sends SIGTERM as soon as a process is lost: here it waits for that message
        with nullcontext() if world.size == 1 else StopRequest(second_interrupts=False):
            try:
                trainer.run(folder)
            except RankLost as error:
                say_last(world, f"{error}; {resume_hint(folder)}")
                raise SystemExit(1) from error
        is_complete = trainer.step == trainer.config.schedule.total_steps
        outcome = "complete" if is_complete else "stopped"
        hint = "run folder:" if is_complete else "resume with --resume"
        if world.is_main:
            sys.stdout.write(f"{outcome} at step {trainer.step}; {hint} {folder}\n")
        return 0 if is_complete else 130


def resume_hint(folder: Path) -> str:
    """Say how a run that ended early is resumed."""
    saved = folder / "last.pt"
    if not saved.is_file():
        return "nothing was saved yet: start again"
    return f"resume from step {load_checkpoint(saved)['step']} with --resume {folder}"


def _checked(config: TrainConfig) -> TrainConfig:
    protocol = config.verification.protocol
    if not find_protocol(protocol).prints_original:
        known = ", ".join(known.name for known in PROTOCOLS.values() if known.prints_original)
        raise ValueError(
            f"verification.protocol = {protocol!r}: training prints the original's table, which "
            f"only {known} have; evaluation/verification_risk_fnmr.py has every protocol"
        )
    return config


def _prepare(
    job: TrainingJob, world: World, device: torch.device, claims: ExitStack
) -> tuple[Trainer, Path]:
    """Build the trainer, make and claim its run folder and start its log."""
    trainer = _together(world, lambda: Trainer(job.config, job.checkpoint, world, device))
    own = _together(world, lambda: _claim_folder(job, claims) if world.is_main else None)
    folder = world.gather(own)[0]
    assert folder is not None
    if world.is_main:
        start_logging(folder / "log.txt")
        facts = {**environment(trainer.frozen.device), "processes": world.size}
        record_run(folder, job.config, job.config_file, **facts)
        if found := trainer.frozen.backbone.description:
            LOGGER.info("backbone: %s", found)
        if job.checkpoint is not None and job.settings:
            LOGGER.info("changed for what follows: %s", " ".join(job.settings))
    return trainer, folder


def _together(world: World, work: Callable[[], Result]) -> Result:
    """Do work in all processes; a mistake in any of them is raised in all."""
    result, mistake = [], None
    try:
        result.append(work())
    except (ValueError, OSError) as error:
        mistake = explain(error)
    mistakes = [text for text in world.gather(mistake) if text is not None]
    if mistakes:
        raise SharedError("; ".join(dict.fromkeys(mistakes)))
    return result[0]


def _claim_folder(job: TrainingJob, claims: ExitStack) -> Path:
    """Make a run's folder, or take up that of a stopped run; another process may not write it."""
    folder = job.folder or new_run_folder(job.config, None)
    for each in (folder, *(folder / branch.name for branch in job.config.branches)):
        claims.enter_context(sole_writer(each))
        remove_leftovers(each)
    if job.checkpoint is None:
        return new_run_folder(job.config, folder)
    if load_checkpoint(folder / "last.pt")["step"] != job.checkpoint["step"]:
        raise ValueError(f"{folder}: another process went on with this run: give the command again")
    return folder

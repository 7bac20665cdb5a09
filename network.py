"""Train an uncertainty head on a frozen face-recognition backbone.

    python network.py --config_file config/config_ir50_idq_loss_glint360k.py
    python network.py --config_file config/config_demo.py --set schedule.lr=3e-3 seed=1
    python network.py --resume runs/glint_ir50_idq

Writes a run folder: log.txt, metrics.jsonl, best.pt and last.pt, the config as given and as JSON,
and the environment. Stop it with Ctrl-C at any time; --resume goes on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from evaluation.metrics.protocols import PROTOCOLS, find_protocol
from training.trainer import SharedError, Trainer
from utils.checkpoint import load_checkpoint
from utils.config import TrainConfig, load_config
from utils.config_json import from_json, override
from utils.distributed import ALONE, PeerFailed, RankLost, World, is_main_process, start, stop
from utils.run import (
    LOGGER,
    environment,
    keep_quiet,
    new_run_folder,
    record_run,
    start_logging,
    stop_logging,
)
from utils.stop import StopRequest


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train an uncertainty head on a frozen backbone.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config_file", type=Path, help="a file of config/")
    source.add_argument("--resume", type=Path, metavar="RUN_DIR", help="go on with this run")
    parser.add_argument("--model_dir", type=Path, help="run folder (default <log_dir>/<name>)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override any field of the config: schedule.lr=3e-3 train_images=faces.rec",
    )
    args = parser.parse_args(argv)
    if args.resume and args.model_dir:
        parser.error("--resume names the run folder; --model_dir does not go with it")
    return args


class Job(NamedTuple):
    """What the command line asks for: a config, and the run that it goes on with, if any."""

    config: TrainConfig
    checkpoint: dict[str, Any] | None


def read_job(args: argparse.Namespace) -> Job:
    """Read config and checkpoint.

    Raises:
        ValueError: a file, field or protocol that does not exist or does not fit.
    """
    checkpoint = None
    if args.resume:
        if not (args.resume / "last.pt").is_file():
            raise ValueError(
                f"nothing to resume in {args.resume}: no last.pt, so it is no run folder or the "
                "run stopped before its first save; start with --config_file"
            )
        checkpoint = load_checkpoint(args.resume / "last.pt")
        config = override(from_json(checkpoint["config"]), args.set)
    else:
        config = override(load_config(args.config_file), args.set)
    if not find_protocol(config.verification.protocol).prints_original:
        known = ", ".join(one.name for one in PROTOCOLS.values() if one.prints_original)
        raise ValueError(
            f"verification.protocol = {config.verification.protocol!r}: training prints the "
            f"original's table, which only {known} have; evaluation/verification_risk_fnmr.py has "
            "every protocol"
        )
    return Job(config, checkpoint)


def prepare(
    args: argparse.Namespace, job: Job, world: World, device: torch.device
) -> tuple[Trainer, Path]:
    """Build the trainer, make its run folder and start its log.

    Raises:
        SharedError: whatever is wrong in any process.
    """
    trainer, mistake = None, None
    try:
        trainer = Trainer(job.config, job.checkpoint, world, device)
    except (ValueError, OSError) as error:
        mistake = str(error)
    mistakes = [one for one in world.gather(mistake) if one is not None]
    if mistakes or trainer is None:
        raise SharedError("; ".join(dict.fromkeys(mistakes)))
    folder = args.resume
    if folder is None:
        folder = new_run_folder(job.config, args.model_dir) if world.is_main else None
        folder = world.gather(folder)[0]
    if world.is_main:
        start_logging(folder / "log.txt")
        facts = {**environment(trainer.frozen.device), "processes": world.size}
        record_run(folder, job.config, args.config_file, **facts)
        if args.resume and args.set:
            LOGGER.info("changed for what follows: %s", " ".join(args.set))
    return trainer, folder


def train(args: argparse.Namespace, world: World, device: torch.device, job: Job) -> int:
    """Train; 0 when the run is complete, 130 when it was stopped, 1 when a process was lost."""
    trainer, folder = prepare(args, job, world, device)
    # torchrun sends SIGTERM as soon as a process is lost: here it waits until that has been told
    with nullcontext() if world.size == 1 else StopRequest(second_interrupts=False):
        try:
            trainer.run(folder)
        except RankLost as error:
            return _fail(f"{error}; {_way_on(folder)}", shown=world.is_main, code=1)
    finished = trainer.step == trainer.config.schedule.total_steps
    if world.is_main:
        print(
            f"complete at step {trainer.step}; run folder: {folder}"
            if finished
            else f"stopped at step {trainer.step}; go on with --resume {folder}"
        )
    return 0 if finished else 130


def _way_on(folder: Path) -> str:
    saved = folder / "last.pt"
    if not saved.is_file():
        return "nothing was saved yet: start again"
    return f"go on from step {load_checkpoint(saved)['step']} with --resume {folder}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; 0 when complete, 2 for a mistake of the user."""
    args = parse_arguments(argv)
    try:
        job = read_job(args)
    except (ValueError, OSError) as error:
        return _fail(str(error), shown=is_main_process(), code=2)
    world, ended_well = ALONE, False
    try:
        world, device = start(job.config.device)
        if world.is_main:
            start_logging()
        else:
            keep_quiet()
        code = train(args, world, device, job)
        ended_well = code != 1
    except (SharedError, PeerFailed) as error:
        return _fail(str(error), shown=world.is_main, code=2)
    except RankLost as error:
        return _fail(str(error), shown=world.is_main, code=1)
    except (ValueError, OSError) as error:
        rank = f"process {world.rank}: " if world.rank else ""
        return _fail(f"{rank}{error}", shown=True, code=2)
    finally:
        stop_logging()
        stop(world, failed=not ended_well)
    return code


def _fail(message: str, *, shown: bool, code: int) -> int:
    if shown:
        print(f"network.py: {message}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())

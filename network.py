"""Train an uncertainty head on a frozen face-recognition backbone.

    python network.py --config_file config/config_ir50_idq_loss_glint360k.py
    python network.py --config_file config/config_demo.py --set schedule.lr=3e-3 seed=1
    python network.py --resume runs/glint_ir50_idq

Writes a run folder: log.txt, metrics.jsonl, best.pt and last.pt, the config as given and as JSON,
and the environment. Stop it with Ctrl-C at any time; --resume goes on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from data.augment import BatchAugment
from data.faces import open_faces
from data.loader import Batch, BatchLoader
from data.sampler import ClassBalancedBatches
from data.verification import VerificationSet, open_verification
from evaluation.embed import embed
from evaluation.estimators.trained_head import TrainedHead
from evaluation.metrics.protocols import PROTOCOLS, find_protocol
from evaluation.pipeline import Result, evaluate
from losses._result import LossResult
from models.run import backbone_record, build_head, check_backbone, load_frozen
from models.uncertainty import to_scalar, to_sigma_sq
from utils.checkpoint import load_checkpoint, save_checkpoint
from utils.collapse import rank_correlation
from utils.config import TrainConfig, load_config
from utils.config_json import from_json, override, to_json
from utils.device import peak_memory_gib
from utils.methods import build
from utils.run import (
    LOGGER,
    environment,
    new_run_folder,
    record_run,
    start_logging,
    stop_logging,
)
from utils.stop import StopRequest
from utils.train_log import TrainLog

SECONDS_BETWEEN_SAVES = 60.0


class Step(NamedTuple):
    """One optimizer step: its rate, its loss, the head's output (B, d) and mu (B, D)."""

    lr: float
    result: LossResult
    raw: Tensor
    mu: Tensor


def _check_protocol(name: str) -> None:
    if not find_protocol(name).prints_original:
        known = ", ".join(one.name for one in PROTOCOLS.values() if one.prints_original)
        raise ValueError(
            f"verification.protocol = {name!r}: training prints the original's table, which only "
            f"{known} have; evaluation/verification_risk_fnmr.py has every protocol"
        )


class Trainer:
    """One run: what is trained, on what, and how far it has come.

    Everything that the config names is opened here, what is quickest to check first, so that a
    mistake shows before any work.

    Args:
        config: of the run.
        checkpoint: what `last.pt` holds, to go on from there.

    Raises:
        ValueError: a name, option or file of the config that does not exist or does not fit.
    """

    def __init__(self, config: TrainConfig, checkpoint: dict[str, Any] | None = None) -> None:
        _check_protocol(config.verification.protocol)
        self.config = config
        self.frozen = load_frozen(config, config.device, config.precision)
        self.backbone = backbone_record(self.frozen, config.backbone_weights)
        torch.manual_seed(config.seed)
        start = config if checkpoint is None else dataclasses.replace(config, head_weights=None)
        self.head = build_head(start, self.frozen)
        self.loss = build("losses", config.loss, embedding_size=self.frozen.embedding_size)
        if self.head.output not in self.loss.accepts:
            raise ValueError(
                f"loss {config.loss.name!r} trains a head with output "
                f"{' or '.join(sorted(self.loss.accepts))}; head {config.head.name!r} gives "
                f"{self.head.output!r}"
            )
        self.optimizer = torch.optim.SGD(
            self.head.parameters(),
            lr=config.schedule.lr,
            momentum=config.schedule.momentum,
            weight_decay=config.schedule.weight_decay,
        )
        self.augment = BatchAugment(config.augment, config.seed)
        self.verification = [
            open_verification(target, config.verification.dataset_path)
            for target in config.verification.targets
        ]
        self.faces = open_faces(config.train_images)
        self.sampler = ClassBalancedBatches(
            self.faces.labels, config.classes_per_batch, config.images_per_class, config.seed
        )
        self.step = 0
        self.best: float | None = None
        self.stop = StopRequest()
        if checkpoint is not None:
            self._restore(checkpoint)

    def run(self, folder: Path) -> None:
        """Train from the current step to the end, or until a stop is asked for.

        Args:
            folder: the run folder, which exists; log, metrics and checkpoints are written there.
        """
        self.folder = folder
        loader = BatchLoader(
            self.faces,
            self.sampler,
            range(self.step, self.config.schedule.total_steps),
            workers=self.config.workers,
            max_bad_share=self.config.max_bad_share,
            on_bad=lambda text: LOGGER.warning("skipped: %s", text),
        )
        with TrainLog(folder, self.config, resume_at=self.step) as log:
            left_out = self.sampler.num_left_out_classes
            log.start(self.loss.summary, len(self.faces), self.faces.num_classes, left_out)
            with self.stop, closing(iter(loader)) as batches, self._progress() as bar:
                self._loop(batches, log, bar)
        self.save("last.pt")

    def _loop(self, batches: Iterator[Batch], log: TrainLog, bar: tqdm[Any]) -> None:
        saved_at = time.monotonic()
        unchecked = torch.zeros((), device=self.frozen.device)
        self.head.train()
        for batch in batches:
            done = self.train_step(batch)
            unchecked += done.result.loss.detach()
            bar.update()
            at_log = self.step % self.config.log_every == 0
            at_epoch = self.step % self.config.schedule.steps_per_epoch == 0
            if at_log or at_epoch:
                self._check_finite(unchecked)
                unchecked.zero_()
            if at_log:
                self._log(log, batch, done)
            if at_epoch:
                self._finish_epoch(log)
            if at_epoch or (at_log and time.monotonic() - saved_at > SECONDS_BETWEEN_SAVES):
                self.save("last.pt")
                saved_at = time.monotonic()
            if self.stop.asked:
                self._check_finite(unchecked)
                return

    def train_step(self, batch: Batch) -> Step:
        """Do one optimizer step."""
        device = self.frozen.device
        images = torch.from_numpy(batch.images).to(device, non_blocking=True)
        labels = torch.from_numpy(batch.labels).to(device, non_blocking=True)
        rows = torch.from_numpy(batch.rows).to(device, non_blocking=True)
        images = self.augment(images, self.augment.parameters(batch.step, batch.rows))
        output = self.frozen(images)
        raw = self.head(output)
        result: LossResult = self.loss(output.embedding, raw, labels, rows)
        lr = self.config.schedule.lr_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        result.loss.backward()
        self.optimizer.step()
        self.step += 1
        return Step(lr, result, raw.detach(), F.normalize(output.embedding))

    def save(self, name: str) -> None:
        """Write a checkpoint with everything that going on from here needs."""
        payload: dict[str, Any] = {
            "config": to_json(self.config),
            "backbone": self.backbone,
            "head": self.head.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "best": self.best,
            "rng": torch.get_rng_state(),
        }
        if self.frozen.device.type == "cuda":
            payload["rng_cuda"] = torch.cuda.get_rng_state(self.frozen.device)
        save_checkpoint(self.folder / name, payload)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        check_backbone(checkpoint, self.frozen, self.config.backbone_weights)
        self.head.load_state_dict(checkpoint["head"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.step = checkpoint["step"]
        self.best = checkpoint["best"]
        torch.set_rng_state(checkpoint["rng"])
        if self.frozen.device.type == "cuda" and "rng_cuda" in checkpoint:
            torch.cuda.set_rng_state(checkpoint["rng_cuda"], self.frozen.device)

    def _progress(self) -> tqdm[Any]:
        return tqdm(
            total=self.config.schedule.total_steps,
            initial=self.step,
            unit="step",
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def _check_finite(self, losses: Tensor) -> None:
        if not bool(torch.isfinite(losses)):
            first = max(0, self.step - self.config.log_every) + 1
            raise ValueError(
                f"the loss is not finite at some step in {first}..{self.step}; "
                f"lower schedule.lr ({self.config.schedule.lr:g})"
            )

    def _log(self, log: TrainLog, batch: Batch, done: Step) -> None:
        uncertainty = to_scalar(to_sigma_sq(done.raw, self.head.output))
        _, images = np.unique(batch.rows, return_index=True)  # copies of one image are no pair
        labels = torch.from_numpy(batch.labels[images])
        log.step(
            self.step,
            done.lr,
            float(done.result.loss.detach()),
            done.result.stats,
            peak_memory_gib(self.frozen.device),
            rank_correlation(uncertainty[images], done.mu[images], labels),
            uncertainty,
        )

    def _finish_epoch(self, log: TrainLog) -> None:
        results = [self._evaluate(verification) for verification in self.verification]
        for result in results:
            log.evaluation(self.step, result.name, result.text, result.to_dict())
        areas = [result.blocks[0].areas.auerc30 for result in results]
        score = sum(areas) / len(areas) if areas else None
        if score is None or self.best is None or score < self.best:
            self.best = score
            self.save("best.pt")

    def _evaluate(self, verification: VerificationSet) -> Result:
        options = self.config.verification
        estimator = TrainedHead(frozen=self.frozen, head=self.head)
        features = embed(estimator, verification, options.batch_size, flip=options.flip)
        return evaluate(features, options.protocol, name=verification.name)


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


def prepare(args: argparse.Namespace) -> tuple[Trainer, Path]:
    """Build the trainer, make its run folder and start its log."""
    if args.resume:
        if not (args.resume / "last.pt").is_file():
            raise ValueError(
                f"nothing to resume in {args.resume}: no last.pt, so it is no run folder or the "
                "run stopped before its first save; start with --config_file"
            )
        checkpoint = load_checkpoint(args.resume / "last.pt")
        config = override(from_json(checkpoint["config"]), args.set)
        trainer, folder = Trainer(config, checkpoint), args.resume
    else:
        config = override(load_config(args.config_file), args.set)
        trainer = Trainer(config)
        folder = new_run_folder(config, args.model_dir)
    start_logging(folder / "log.txt")
    record_run(folder, config, args.config_file, **environment(trainer.frozen.device))
    return trainer, folder


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; 0 when the run is complete, 2 for a mistake of the user."""
    args = parse_arguments(argv)
    try:
        trainer, folder = prepare(args)
        trainer.run(folder)
    except (ValueError, OSError) as error:
        print(f"network.py: {error}", file=sys.stderr)
        return 2
    finally:
        stop_logging()
    if trainer.step < trainer.config.schedule.total_steps:
        print(f"stopped at step {trainer.step}; go on with --resume {folder}")
        return 130
    print(f"complete at step {trainer.step}; run folder: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train an uncertainty head on a frozen face-recognition backbone.

    python network.py --config_file config/config_ir50_idq_loss_glint360k.py
    python network.py --config_file config/config_demo.py --set schedule.lr=3e-3 seed=1
    python network.py --config_file config/config_demo.py --steps 20
    python network.py --resume runs/glint_ir50_idq

Writes a run folder: log.txt, metrics.jsonl, curves.png, best.pt and last.pt, the config as given
and as JSON, and the environment. Stop it with Ctrl-C at any time; --resume continues as if nothing
had happened.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.cli import Parser, positive, run_command, run_on_ranks


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; 0 when complete, 130 when stopped, 2 for a user's mistake."""
    parser = Parser("Train an uncertainty head on a frozen backbone.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--config_file", type=Path, help="a file of config/")
    source.add_argument("--resume", type=Path, metavar="RUN_DIR", help="resume this run")
    parser.add_argument("--model_dir", type=Path, help="run folder (default <log_dir>/<name>)")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override any field of the config: schedule.lr=3e-3 train_images=faces.rec",
    )
    parser.add_argument("--steps", type=positive, help="a short run: one epoch of so many steps")
    args = parser.parse_args(argv)
    if args.steps:
        args.set += ["schedule.epochs=1", f"schedule.steps_per_epoch={args.steps}"]
    if args.resume and args.model_dir:
        parser.error("--resume names the run folder; --model_dir does not go with it")
    return run_command(lambda: _train(args.config_file, args.resume, args.model_dir, args.set))


def _train(
    config_file: Path | None, resume: Path | None, folder: Path | None, settings: Sequence[str]
) -> int:
    from training.job import new_job, resumed_job, train  # PyTorch is slow to import

    if resume is not None:
        job = resumed_job(resume, settings)
    else:
        assert config_file is not None
        job = new_job(config_file, settings, folder)
    return run_on_ranks(job.config.device, lambda world, device: train(job, world, device))


if __name__ == "__main__":
    sys.exit(main())

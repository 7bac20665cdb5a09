"""FNMR, EER and their curves against the share of discarded pairs, for a trained run.

python evaluation/verification_risk_fnmr.py --model_dir runs/NAME --dataset_path DIR --target lfw
python evaluation/verification_risk_fnmr.py --features FILE.npz

Prints the original's block for each set in a few seconds per thousand images (stored features: well
under a second); `--report DIR` adds the curve as a picture.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence

from evaluation import cli
from utils.config_json import parse_method
from utils.methods import build


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run (or stored features); the exit code is 0, or 2 when no result can be given."""
    parser = argparse.ArgumentParser(
        description="Risk-controlled FNMR of a trained uncertainty head."
    )
    parser.add_argument("--model_dir", help="folder of a run of network.py")
    parser.add_argument(
        "--estimator",
        default="trained_head",
        help="uncertainty to use: trained_head, embedding_norm, from_file:path=SCORES.csv, ...",
    )
    parser.add_argument("--checkpoint", default="best", help="best or last")
    parser.add_argument("--backbone_weights", help="the backbone's file, where it has moved")
    cli.add_common_arguments(parser)
    args = parser.parse_args(argv)
    return cli.guarded(lambda: _body(args))


def _body(args: argparse.Namespace) -> int:
    if args.features:
        cli.fill_defaults(args)
        return cli.run(None, args)
    if not args.model_dir:
        raise ValueError("give --model_dir RUN_DIR (a trained run) or --features FILE.npz")
    from models.run import load_run

    run = load_run(
        args.model_dir,
        checkpoint=args.checkpoint,
        device=args.device,
        precision=args.precision,
        backbone_weights=args.backbone_weights,
    )
    cli.fill_defaults(args, run.config.verification)
    method = parse_method(args.estimator)
    return cli.run(build("evaluation.estimators", method, frozen=run.frozen, head=run.head), args)


if __name__ == "__main__":
    sys.exit(main())

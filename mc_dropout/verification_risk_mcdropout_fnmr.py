"""Evaluate MC-dropout on verification sets, through the pipeline that trained heads go through.

python mc_dropout/verification_risk_mcdropout_fnmr.py --backbone_name iresnet50 \
    --resume_backbone backbone.pth --dataset_path DIR --target lfw,cfp_fp

Or, on the backbone of a trained run: --model_dir RUN_DIR instead of the first two.
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
from collections.abc import Sequence
from typing import get_args

from estimators.mc_dropout import Form, MCDropout
from evaluation.cli import add_common_arguments, fill_defaults, run
from models.frozen import FrozenBackbone
from models.run import load_run, open_backbone
from utils.cli import PARTS_HINT, Parser, run_on_ranks
from utils.config import Verification
from utils.distributed import World


def main(argv: Sequence[str] | None = None) -> int:
    """Parse flags, build the estimator, evaluate; return the exit code."""
    args = _parser().parse_args(argv)
    return run_on_ranks(
        "cpu" if args.features else args.device,
        lambda world, device: _evaluate(args, world, device),
        resume_hint=PARTS_HINT,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        description=__doc__,
        epilog="The default protocol fixes the threshold on all pairs, so that AUERC compares with "
        "trained heads.\n--protocol original-mcdropout finds it again in each kept subset, as the "
        "original's\nMC-dropout script does; with --no_batch_norm, that script's numbers.",
    )
    add = parser.add_argument
    add(
        "--backbone_name",
        help="iresnet18 ... iresnet200, mobilefacenet, mbf, or name:option=value,...",
    )
    add("--resume_backbone", help="file with the backbone's weights")
    add("--model_dir", help="take the backbone of this run folder")
    add("--passes", type=int, default=100, help="dropout passes (100)")
    add("--rate", type=float, default=0.5, help="share of features dropped (0.5)")
    add(
        "--form",
        choices=get_args(Form),
        default="sampled",
        help="draw passes (sampled), or their limit",
    )
    add("--no_batch_norm", action="store_true", help="leave out the last BatchNorm in the passes")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="of the backbone: auto, fp32, bf16, fp16")
    add_common_arguments(parser)
    add("--log_dir", dest="report", help="the original's name of --report")
    return parser


def _evaluate(args: argparse.Namespace, world: World, device: str) -> int:
    args.device = device
    if args.features:
        fill_defaults(args)
        return run(None, args, world=world)
    frozen, verification = _backbone(args)
    fill_defaults(args, verification)
    estimator = MCDropout(
        frozen, args.passes, args.rate, args.seed, not args.no_batch_norm, args.form
    )
    return run(estimator, args, world=world)


def _backbone(args: argparse.Namespace) -> tuple[FrozenBackbone, Verification | None]:
    if bool(args.model_dir) == bool(args.backbone_name):
        raise ValueError(
            "which backbone? give --backbone_name with --resume_backbone, or --model_dir"
        )
    if args.model_dir:
        trained = load_run(
            args.model_dir,
            device=args.device,
            precision=args.precision,
            backbone_weights=args.resume_backbone,
        )
        return trained.frozen, trained.config.verification
    if not args.resume_backbone:
        raise ValueError(f"--backbone_name {args.backbone_name} needs --resume_backbone FILE")
    return open_backbone(
        args.backbone_name, args.resume_backbone, args.device, args.precision
    ), None


if __name__ == "__main__":
    sys.exit(main())

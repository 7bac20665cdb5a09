"""FNMR, EER and their curves against the share of discarded pairs, for a trained run.

python evaluation/verification_risk_fnmr.py --model_dir runs/NAME --dataset_path DIR --target lfw
python evaluation/verification_risk_fnmr.py --features FILE.npz
python evaluation/verification_risk_fnmr.py --config_file config/X.py --set head_weights=HEAD.pth

Prints the original's block for each set in a few seconds per thousand images (stored features: well
under a second); `--report DIR` adds the curve as a picture. Under torchrun all processes embed
(docs/scale.md).
"""

from __future__ import annotations

import sys

if not __package__:  # run as a file: import from the checkout, not from this folder
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from estimators.base import build_estimator
from evaluation import cli
from models.run import Run, load_run, open_backbone, untrained_run
from utils.cli import PARTS_HINT, Parser, run_on_ranks
from utils.config import load_config
from utils.config_json import override, parse_method
from utils.distributed import World
from utils.files import file_sha256


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run (or stored features); the exit code is 0, or 2 when no result can be given."""
    parser = Parser(description="Risk-controlled FNMR of a trained uncertainty head.")
    parser.add_argument("--model_dir", help="folder of a run of network.py")
    parser.add_argument("--config_file", help="instead of a run: a config that names head_weights")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override its fields"
    )
    parser.add_argument(
        "--estimator",
        default="trained_head",
        help="uncertainty to use: trained_head, embedding_norm, from_file:path=SCORES.csv, ...",
    )
    parser.add_argument("--checkpoint", default="best", choices=["best", "last"], help="(best)")
    cli.add_backbone_arguments(parser)
    cli.add_common_arguments(parser)
    args = parser.parse_args(argv)
    return run_on_ranks(
        "cpu" if args.features else args.device,
        lambda world, device: _body(args, world, device),
        resume_hint=PARTS_HINT,
    )


def _body(args: argparse.Namespace, world: World, device: str) -> int:
    args.device = device
    if args.features:
        cli.fill_defaults(args)
        return cli.run(None, args, world=world)
    if args.set and not args.config_file:
        raise ValueError("--set overrides a --config_file; a run of --model_dir has its own config")
    where = {"device": args.device, "precision": args.precision}
    method = parse_method(args.estimator)
    if args.backbone_name and not (args.model_dir or args.config_file):
        if not args.backbone_weights:
            raise ValueError(f"--backbone_name {args.backbone_name} needs --backbone_weights FILE")
        frozen = open_backbone(args.backbone_name, args.backbone_weights, **where)
        cli.fill_defaults(args)
        estimator = build_estimator(method, frozen=frozen)
        config: dict[str, Any] = {"name": "", "backbone": args.backbone_name}
        files: Sequence[Path] = [Path(args.backbone_weights)]
    else:
        run = _load(args, where)
        cli.fill_defaults(args, run.config.verification)
        estimator = build_estimator(method, frozen=run.frozen, head=run.head)
        config, files = dataclasses.asdict(run.config), run.files
    label = args.estimator
    if label == "trained_head" and config["name"]:
        label = f"trained_head ({config['name']})"
    args.about = " ".join([args.estimator, *(file_sha256(file) for file in files)])
    return cli.run(estimator, args, method=label, config=config, files=files, world=world)


def _load(args: argparse.Namespace, where: dict[str, Any]) -> Run:
    where = {**where, "backbone_weights": args.backbone_weights}
    if args.config_file:
        return untrained_run(override(load_config(args.config_file), args.set), **where)
    if not args.model_dir:
        raise ValueError(
            "give --model_dir RUN_DIR (a trained run), --features FILE, or --backbone_name with "
            "--backbone_weights and a training-free --estimator"
        )
    return load_run(args.model_dir, checkpoint=args.checkpoint, **where)


if __name__ == "__main__":
    sys.exit(main())

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

from evaluation import cli
from evaluation.open_model import LoadedModel, from_run
from utils.cli import PARTS_HINT, Parser, run_on_ranks
from utils.config import load_config
from utils.config_json import override
from utils.distributed import World


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run (or stored features); the exit code is 0, or 2 when no result can be given."""
    parser = Parser(description="Risk-controlled FNMR of a trained uncertainty head.")
    parser.add_argument("--config_file", help="instead of a run: a config that names head_weights")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override its fields"
    )
    cli.add_model_arguments(parser)
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
        raise ValueError("--set overrides a --config_file; a --model has its own config")
    model = _open(args)
    config = model.config
    cli.fill_defaults(args, config.verification if config else None)
    label = model.provenance.method
    if label == "trained_head":
        label = f"trained_head ({config.name if config else model.name})"
    args.about = model.fingerprint
    facts = dataclasses.asdict(config) if config else {"name": "", "backbone": args.backbone_name}
    return cli.run(
        model.estimator, args, method=label, config=facts, files=model.files, world=world
    )


def _open(args: argparse.Namespace) -> LoadedModel:
    if not args.config_file:
        return cli.open_named_model(args)
    from models.run import untrained_run

    run = untrained_run(
        override(load_config(args.config_file), args.set),
        device=args.device,
        precision=args.precision,
        backbone_weights=args.backbone_weights,
    )
    return from_run(run).with_estimator(args.estimator)


if __name__ == "__main__":
    sys.exit(main())
